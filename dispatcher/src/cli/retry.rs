//! retry.

use orchestrator_contract::RunName;

use super::overrides::{OverrideArgs, SubmitMode};
use super::run_selector::RunSelector;
use super::{CliContext, submit};
use crate::error::Error;
use crate::task::selection::{Purpose, Recency};

/// Has an agent try again where a run ended, with better guidance.
///
/// Branch, conversation and everything that was said when the run was submitted
/// stay as they were; what is said here goes before.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher retry trader-claude-agent-1-task1-attempt1 --guidance \"Use reqwest, not curl.\"
  dispatcher retry --service trader --guidance-file notes.md --wait")]
pub(super) struct Arguments {
    /// The run [default: the latest that has ended].
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    #[command(flatten)]
    wishes: OverrideArgs,
    #[command(flatten)]
    conduct: SubmitMode,
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, wishes, conduct } = arguments;
    let run = which.run(session, run, Purpose::Retry, Recency::Any).await?;
    let wishes = wishes.into_overrides(session)?;
    let request = session.dispatcher.retry_request(&run, wishes).await?;
    submit::submit(session, request, conduct).await
}
