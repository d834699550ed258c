//! retry.

use orchestrator_contract::RunName;

use super::wishes::{Conduct, WishArguments};
use super::{Session, submit};
use crate::problem::Problem;

/// Has an agent try again where a run ended, with better guidance.
///
/// Branch, conversation and everything that was said when the run was submitted
/// stay as they were; what is said here goes before.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher retry trader-claude-agent-1-task1-attempt1 --guidance \"Use reqwest, not curl.\"
  dispatcher retry trader-claude-agent-1-task1-attempt1 --minutes 240 --wait")]
pub(super) struct Arguments {
    /// The run.
    run: RunName,
    #[command(flatten)]
    wishes: WishArguments,
    #[command(flatten)]
    conduct: Conduct,
}

pub(super) async fn run(session: &Session, arguments: Arguments) -> Result<u8, Problem> {
    let Arguments { run, wishes, conduct } = arguments;
    let wishes = wishes.wishes(session)?;
    let request = session.dispatcher.retry_request(&run, wishes).await?;
    submit::submit(session, request, conduct).await
}
