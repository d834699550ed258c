//! wait.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName};

use super::CliContext;
use super::progress::Progress;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::operations::WaitOutcome;
use crate::task::selection::{Purpose, Recency};
use crate::task::status::Status;
use crate::task::text::render_status;

/// Waits until a run has ended, and ends with its exit code.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher wait trader-claude-agent-1-task1-attempt1
  dispatcher wait --service trader --timeout 600; echo $?

The exit code is the run's own: `dispatcher --help` lists them; 124 if --timeout was over first.")]
pub(super) struct Arguments {
    /// The run [default: the one at work, else the latest].
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Wait at most so many seconds; the exit code is 124 if the run has not ended by then.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

/// Reads seconds, with a fraction if need be.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("`{text}` is no number of seconds: {error}"))
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, timeout } = arguments;
    let run = which.run(session, run, Purpose::Inspect, Recency::Any).await?;
    wait(session, &run, timeout).await
}

/// Waits, shows progress, prints the end.
pub(super) async fn wait(session: &CliContext, run: &RunName, limit: Option<Duration>) -> Result<u8, Error> {
    let mut progress = Progress::new(session);
    let end = session.dispatcher.wait(run, limit, |status| progress.show(status)).await?;
    drop(progress);
    match end {
        WaitOutcome::Finished(status) => {
            print(session, &status)?;
            Ok(status.exit_code.unwrap_or(Reason::InternalError.exit_code()))
        }
        WaitOutcome::TimedOut(status) => {
            print(session, &status)?;
            session.output.note(&format!(
                "{run} has not ended in the time given ({}); it goes on: dispatcher wait {run}",
                status.phase
            ));
            Ok(Reason::TimeLimit.exit_code())
        }
    }
}

/// Prints the status of a run.
pub(super) fn print(session: &CliContext, status: &Status) -> Result<(), Error> {
    session.output.result(status, || render_status(status, Timestamp::now(), session.output.colour()))
}
