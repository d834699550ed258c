//! `dispatcher retry`.

use orchestrator_contract::RunName;

use super::context::CliContext;
use super::overrides::{OverrideArgs, SubmitMode};
use super::run_selector::RunSelector;
use super::submit;
use crate::error::Error;
use crate::task::selection::{Purpose, Recency};

/// Retry a finished run, with better guidance
///
/// Reuses the branch, session and options of the earlier attempt; options given here override them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher retry trader-claude-agent-1-task1-attempt1 --guidance \"Use reqwest, not curl.\"
  dispatcher retry --service trader --guidance-file notes.md --wait")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the latest finished one]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(flatten)]
    mode: SubmitMode,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, overrides, mode } = arguments;
    let run = which.run(context, run, Purpose::Retry, Recency::Any).await?;
    let overrides = overrides.into_overrides(context)?;
    let request = context.dispatcher.retry_request(&run, overrides).await?;
    submit::submit(context, request, mode).await
}
