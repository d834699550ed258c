//! `dispatcher docs`.

use std::path::PathBuf;

use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{AgentName, BranchName, TaskId};

use super::context::CliContext;
use super::overrides::{Guidance, SubmitMode, parse_url};
use super::submit;
use crate::error::Error;
use crate::operations::DocsRequest;
use crate::task::request::Overrides;

/// Write the documents of tasks with an agent
///
/// Writes task.md, prompt.md and acceptance-criteria.md on a new branch of the platform repository,
/// starting from the branch that is checked out here, and opens a pull request. Your own checkout is
/// not modified.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher docs --task 5
  dispatcher docs --all --service trader --wait
  dispatcher docs --task 5 --force --model sonnet
  dispatcher docs --all --retry")]
#[group(id = "which", required = true, multiple = false, args = ["task", "all"])]
pub(super) struct Arguments {
    /// Task ID: `id` in tasks.json
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Write the documents of all tasks
    #[arg(long)]
    all: bool,
    /// Rewrite existing documents; the agent sees the old text
    #[arg(long)]
    force: bool,
    /// Service name [default: the folder or repository that holds `.taskmaster`]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Agent that writes the documents [default: claude-agent-1]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Claude model, such as sonnet, opus or a full name [default: opus]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Folder that holds `.taskmaster` [default: the nearest upwards from here]
    #[arg(long, value_name = "DIR", visible_alias = "docs-directory")]
    working_directory: Option<PathBuf>,
    /// Branch to read, and base of the pull request [default: the one checked out here]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<BranchName>,
    /// Repository that holds `.taskmaster` [default: this folder's git remote]
    #[arg(long, value_name = "URL")]
    platform_repository_url: Option<String>,
    /// Resume an unfinished docs run
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    guidance: Guidance,
    /// Maximum number of tasks to document concurrently [default: 2]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Time limit of the run in minutes [default: 120]
    #[arg(long, value_name = "N", help_heading = "Limits", allow_negative_numbers = true, alias = "minutes")]
    timeout_minutes: Option<f64>,
    /// Cost limit of the run in US dollars [default: none]
    #[arg(long, value_name = "USD", help_heading = "Limits", allow_negative_numbers = true)]
    cost: Option<f64>,
    /// Turn limit of all agent sessions together [default: none]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    turns: Option<u32>,
    /// Push the branch without opening a pull request
    #[arg(long)]
    no_pull_request: bool,
    #[command(flatten)]
    mode: SubmitMode,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { task, all: _, force, service, agent, model, working_directory, branch, .. } = &arguments;
    let url = arguments.platform_repository_url.as_deref();
    let overrides = Overrides {
        model: model.clone(),
        branch: branch.clone(),
        guidance: arguments.guidance.text(context)?,
        platform_repository_url: parse_url("--platform-repository-url", url, context)?,
        timeout_minutes: arguments.timeout_minutes,
        cost_usd: arguments.cost,
        turns: arguments.turns,
        pull_request: arguments.no_pull_request.then_some(PullRequestPolicy::None),
        force: force.then_some(true),
        concurrency: arguments.concurrency,
        ..Overrides::default()
    };
    let docs = DocsRequest {
        task: *task,
        service: context.service(service.as_deref()).await?,
        agent: agent.clone(),
        working_directory: working_directory.clone(),
        mode: if arguments.retry { Mode::Retry } else { Mode::First },
        overrides,
    };
    let request = context.dispatcher.docs_request(docs).await?;
    submit::submit(context, request, arguments.mode).await
}
