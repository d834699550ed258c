//! Arguments that submit, retry and debug share.

use std::io::Read as _;
use std::path::Path;

use orchestrator_contract::task::{GUIDANCE_MAX, PullRequestPolicy};
use orchestrator_contract::{BranchName, RepositoryUrl, WorkingDirectory};

use super::context::CliContext;
use crate::error::Error;
use crate::files;
use crate::task::request::Overrides;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Guidance {
    /// Additional instructions for the agent
    #[arg(long, value_name = "TEXT", conflicts_with = "guidance_file")]
    guidance: Option<String>,
    /// Read the guidance from a file; `-` for stdin
    #[arg(long, alias = "prompt-file", value_name = "FILE")]
    guidance_file: Option<String>,
}

impl Guidance {
    /// Returns the text from either option.
    pub(super) fn text(&self, context: &CliContext) -> Result<Option<String>, Error> {
        match &self.guidance_file {
            Some(file) => read_guidance(file, &context.cwd).map(Some),
            None => Ok(self.guidance.clone()),
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct OverrideArgs {
    /// Claude model, such as sonnet, opus or a full name [default: sonnet]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Base branch [default: the remote's default branch]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<BranchName>,
    #[command(flatten)]
    guidance: Guidance,
    /// Repository to change
    ///
    /// [default: the service's entry in the configuration, else the repository of its last run, else
    /// this folder's git remote if it is the service's own]
    #[arg(long, value_name = "URL")]
    repository_url: Option<String>,
    /// Repository that holds `.taskmaster` [default: this folder's git remote]
    #[arg(long, value_name = "URL")]
    platform_repository_url: Option<String>,
    /// Branch of the platform repository [default: the remote's default branch]
    #[arg(long, value_name = "BRANCH")]
    platform_branch: Option<BranchName>,
    /// Folder of the platform repository that holds `.taskmaster` [default: detected]
    #[arg(long, value_name = "DIR")]
    docs_directory: Option<WorkingDirectory>,
    /// Account on the git host [default: the agent's entry in the configuration, else its name]
    #[arg(long, value_name = "NAME")]
    github_user: Option<String>,
    /// Directory of the repository to work in; created if missing [default: the one named like the service, else the
    /// root]
    #[arg(long, value_name = "DIR")]
    working_directory: Option<WorkingDirectory>,
    /// Time limit of the run in minutes [default: 120]
    #[arg(long, value_name = "N", help_heading = "Limits", allow_negative_numbers = true, alias = "minutes")]
    timeout_minutes: Option<f64>,
    /// Cost limit of the run in US dollars [default: none]
    #[arg(long, value_name = "USD", help_heading = "Limits", allow_negative_numbers = true)]
    cost: Option<f64>,
    /// Turn limit of the agent [default: none]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    turns: Option<u32>,
    /// Wait this long for the end of a usage limit of the model instead of ending [default: 0]
    #[arg(long, value_name = "MINUTES", help_heading = "Limits", allow_negative_numbers = true)]
    wait_for_quota: Option<f64>,
    /// Command that must succeed on the agent's work (repeatable)
    #[arg(long, value_name = "CMD")]
    verify: Vec<String>,
    /// Command to run before the agent (repeatable)
    #[arg(long, value_name = "CMD")]
    setup: Vec<String>,
    /// Push the branch without opening a pull request
    #[arg(long)]
    no_pull_request: bool,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct SubmitMode {
    /// Wait for the run to end and exit with its exit code
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) wait: bool,
    /// Print the task and what would happen; start and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl OverrideArgs {
    pub(super) fn into_overrides(self, context: &CliContext) -> Result<Overrides, Error> {
        let url = |flag: &str, text: Option<String>| parse_url(flag, text.as_deref(), context);
        let commands = |commands: Vec<String>| (!commands.is_empty()).then_some(commands);
        Ok(Overrides {
            model: self.model,
            branch: self.branch,
            guidance: self.guidance.text(context)?,
            repository_url: url("--repository-url", self.repository_url)?,
            platform_repository_url: url("--platform-repository-url", self.platform_repository_url)?,
            platform_branch: self.platform_branch,
            docs_directory: self.docs_directory,
            github_user: self.github_user,
            working_directory: self.working_directory,
            timeout_minutes: self.timeout_minutes,
            cost_usd: self.cost,
            turns: self.turns,
            wait_for_quota_minutes: self.wait_for_quota,
            verify: commands(self.verify),
            setup: commands(self.setup),
            pull_request: self.no_pull_request.then_some(PullRequestPolicy::None),
            ..Overrides::default()
        })
    }
}

/// Parses the address in a flag.
pub(super) fn parse_url(
    flag: &str,
    text: Option<&str>,
    context: &CliContext,
) -> Result<Option<RepositoryUrl>, Error> {
    let parse = |text| {
        context.dispatcher.config().parse_repository(text, &context.cwd).map_err(|error| error.in_place(flag))
    };
    text.map(parse).transpose()
}

/// Reads at most one byte more than is allowed, so that guidance that is too long is detected.
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
                .with_hint("Name a readable UTF-8 file, or pass --guidance TEXT."))
        }
    }
}
