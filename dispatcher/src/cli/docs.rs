//! docs.

use std::path::PathBuf;

use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{AgentName, BranchName, ServiceName, TaskId};

use super::overrides::{Guidance, SubmitMode};
use super::{CliContext, submit};
use crate::config::parse_repository;
use crate::error::Error;
use crate::operations::DocsRequest;
use crate::task::request::Overrides;

/// Has an agent write the documents of tasks: task.md, prompt.md and acceptance-criteria.md.
///
/// They are written on a branch of the platform repository, from the branch that is open here, and
/// come as a pull request. Your own files, changes and branches are only looked at.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher docs --task 5
  dispatcher docs --all --service trader --wait
  dispatcher docs --task 5 --force --model sonnet
  dispatcher docs --all --retry")]
#[group(id = "which", required = true, multiple = false, args = ["task", "all"])]
pub(super) struct Arguments {
    /// The task: its `id` in tasks.json.
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// All tasks.
    #[arg(long)]
    all: bool,
    /// Write documents again that are there; the agent gets the old text.
    #[arg(long)]
    force: bool,
    /// The service [default: the folder or repository that holds `.taskmaster`].
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Who works [default: claude-agent-1].
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// The model [default: opus].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The folder that holds `.taskmaster` [default: the nearest upwards from here].
    #[arg(long, value_name = "DIR", visible_alias = "docs-directory")]
    working_directory: Option<PathBuf>,
    /// The branch that is read, and that the pull request is for [default: the one that is open here].
    #[arg(long, value_name = "BRANCH")]
    branch: Option<BranchName>,
    /// Where the tasks are [default: the git remote of the open folder].
    #[arg(long, value_name = "URL")]
    platform_repository_url: Option<String>,
    /// Go on with a run that ended early: what is missing is written.
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    guidance: Guidance,
    /// How many tasks are documented at once [default: 2].
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Minutes that the run may take [default: 120].
    #[arg(long, value_name = "N", help_heading = "Limits", allow_negative_numbers = true, alias = "minutes")]
    timeout_minutes: Option<f64>,
    /// US dollars that the run may cost [default: no limit].
    #[arg(long, value_name = "USD", help_heading = "Limits", allow_negative_numbers = true)]
    cost: Option<f64>,
    /// Turns that the agents may take in all [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    turns: Option<u32>,
    /// Push the branch, open no pull request.
    #[arg(long)]
    no_pull_request: bool,
    #[command(flatten)]
    conduct: SubmitMode,
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { task, all: _, force, service, agent, model, working_directory, branch, .. } = &arguments;
    let url = arguments.platform_repository_url.as_deref();
    let wishes = Overrides {
        model: model.clone(),
        branch: branch.clone(),
        guidance: arguments.guidance.text(session)?,
        platform_repository_url: url.map(|text| parse_repository(text, &session.cwd)).transpose()?,
        timeout_minutes: arguments.timeout_minutes,
        cost_usd: arguments.cost,
        turns: arguments.turns,
        pull_request: arguments.no_pull_request.then_some(PullRequestPolicy::None),
        force: force.then_some(true),
        concurrency: arguments.concurrency,
        ..Overrides::default()
    };
    let wish = DocsRequest {
        task: *task,
        service: service.clone(),
        agent: agent.clone(),
        working_directory: working_directory.clone(),
        mode: if arguments.retry { Mode::Retry } else { Mode::First },
        overrides: wishes,
    };
    let request = session.dispatcher.docs_request(wish).await?;
    submit::submit(session, request, arguments.conduct).await
}
