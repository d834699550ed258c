//! retry.

use orchestrator_contract::RunName;

use super::which::Which;
use super::wishes::{Conduct, WishArguments};
use super::{Session, submit};
use crate::problem::Problem;
use crate::task::selection::{Purpose, When};

/// Has an agent try again where a run ended, with better guidance.
///
/// Branch, conversation and everything that was said when the run was submitted
/// stay as they were; what is said here goes before.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher retry trader-claude-agent-1-task1-attempt1 --guidance \"Use reqwest, not curl.\"
  dispatcher retry --service trader --prompt-file notes.md --wait")]
pub(super) struct Arguments {
    /// The run [default: the latest that has ended].
    run: Option<RunName>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    wishes: WishArguments,
    #[command(flatten)]
    conduct: Conduct,
}

pub(super) async fn run(session: &Session, arguments: Arguments) -> Result<u8, Problem> {
    let Arguments { run, which, wishes, conduct } = arguments;
    let run = which.run(session, run, Purpose::Retry, When::Unsaid).await?;
    let wishes = wishes.wishes(session)?;
    let request = session.dispatcher.retry_request(&run, wishes).await?;
    submit::submit(session, request, conduct).await
}
