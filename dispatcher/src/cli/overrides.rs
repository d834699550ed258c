//! The arguments that submit and retry share.

use std::io::Read as _;
use std::path::Path;

use orchestrator_contract::task::{GUIDANCE_MAX, PullRequestPolicy};
use orchestrator_contract::{BranchName, RepositoryUrl, WorkingDirectory};

use super::CliContext;
use crate::config::parse_repository;
use crate::error::Error;
use crate::files;
use crate::task::request::Overrides;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Guidance {
    /// What the agent is told beyond the task's documents.
    #[arg(long, value_name = "TEXT", conflicts_with = "guidance_file")]
    guidance: Option<String>,
    /// The same from a file; `-` is stdin.
    #[arg(long, alias = "prompt-file", value_name = "FILE")]
    guidance_file: Option<String>,
}

impl Guidance {
    /// The text, wherever it was given.
    pub(super) fn text(&self, session: &CliContext) -> Result<Option<String>, Error> {
        match &self.guidance_file {
            Some(file) => read_guidance(file, &session.cwd).map(Some),
            None => Ok(self.guidance.clone()),
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct OverrideArgs {
    /// The model, by any name that the Claude CLI takes [default: sonnet].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The base branch [default: the remote's default].
    #[arg(long, value_name = "BRANCH")]
    branch: Option<BranchName>,
    #[command(flatten)]
    guidance: Guidance,
    /// The code to change [default: the configuration's entry of the service, else the repository of
    /// its last run, else the open repository if it is the service's own].
    #[arg(long, value_name = "URL")]
    repository_url: Option<String>,
    /// Where the task documentation is [default: the open folder's git remote].
    #[arg(long, value_name = "URL")]
    platform_repository_url: Option<String>,
    /// The documentation's branch [default: the remote's default].
    #[arg(long, value_name = "BRANCH")]
    platform_branch: Option<BranchName>,
    /// The folder of the platform repository that holds `.taskmaster` [default: looked for].
    #[arg(long, value_name = "DIR")]
    docs_directory: Option<WorkingDirectory>,
    /// The account on the git host [default: the configuration's entry of the agent, else its name].
    #[arg(long, value_name = "NAME")]
    github_user: Option<String>,
    /// Where in the repository the agent works [default: found by the service's name].
    #[arg(long, value_name = "DIR")]
    working_directory: Option<WorkingDirectory>,
    /// Minutes that the run may take [default: 120].
    #[arg(long, value_name = "N", help_heading = "Limits", allow_negative_numbers = true, alias = "minutes")]
    timeout_minutes: Option<f64>,
    /// US dollars that the run may cost [default: no limit].
    #[arg(long, value_name = "USD", help_heading = "Limits", allow_negative_numbers = true)]
    cost: Option<f64>,
    /// Turns that the agent may take [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    turns: Option<u32>,
    /// A command that must succeed on the agent's work; may be repeated.
    #[arg(long, value_name = "CMD")]
    verify: Vec<String>,
    /// A command that runs before the agent; may be repeated.
    #[arg(long, value_name = "CMD")]
    setup: Vec<String>,
    /// Push the branch, open no pull request.
    #[arg(long)]
    no_pull_request: bool,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct SubmitMode {
    /// Wait until the run has ended, and end with its exit code.
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) wait: bool,
    /// Show the task and what would happen; start and write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl OverrideArgs {
    pub(super) fn into_overrides(self, session: &CliContext) -> Result<Overrides, Error> {
        let url = |text: Option<String>| -> Result<Option<RepositoryUrl>, Error> {
            text.map(|text| parse_repository(&text, &session.cwd)).transpose()
        };
        let commands = |commands: Vec<String>| (!commands.is_empty()).then_some(commands);
        Ok(Overrides {
            model: self.model,
            branch: self.branch,
            guidance: self.guidance.text(session)?,
            repository_url: url(self.repository_url)?,
            platform_repository_url: url(self.platform_repository_url)?,
            platform_branch: self.platform_branch,
            docs_directory: self.docs_directory,
            github_user: self.github_user,
            working_directory: self.working_directory,
            timeout_minutes: self.timeout_minutes,
            cost_usd: self.cost,
            turns: self.turns,
            verify: commands(self.verify),
            setup: commands(self.setup),
            pull_request: self.no_pull_request.then_some(PullRequestPolicy::None),
            ..Overrides::default()
        })
    }
}

/// Reads guidance, and one byte more than is allowed, so that too much is noticed.
fn read_guidance(file: &str, cwd: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let path = cwd.join(file);
    let limit = GUIDANCE_MAX as u64 + 1;
    let read = if file == "-" {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let name = if file == "-" { Path::new("stdin") } else { &path };
            let problem = files::problem("read the guidance from", name, &error);
            Err(Error::invalid_request(problem.message())
                .with_hint("Give a readable UTF-8 text, or --guidance TEXT."))
        }
    }
}
