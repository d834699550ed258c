//! `dispatcher wait`.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName};

use super::context::CliContext;
use super::progress::Progress;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::operations::WaitOutcome;
use crate::task::selection::{Purpose, Recency};
use crate::task::status::Status;
use crate::task::text::render_status;

/// Wait for a run to end and exit with its exit code
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher wait trader-claude-agent-1-task1-attempt1
  dispatcher wait --service trader --timeout 600; echo $?

Exits with the run's exit code (see `dispatcher --help`), or with 124 if --timeout expires first.")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the active run, else the latest]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Maximum seconds to wait; exits with 124 on timeout
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

/// Parses a number of seconds, with an optional fraction.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| format!("`{text}` is not a number of seconds: {error}"))
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, timeout } = arguments;
    let run = which.run(context, run, Purpose::Inspect, Recency::Any).await?;
    wait(context, &run, timeout).await
}

/// Waits for a run, shows progress and prints the final status.
pub(super) async fn wait(context: &CliContext, run: &RunName, limit: Option<Duration>) -> Result<u8, Error> {
    let mut progress = Progress::new(context);
    let outcome = context.dispatcher.wait(run, limit, |status| progress.show(status)).await?;
    drop(progress);
    match outcome {
        WaitOutcome::Finished(status) => {
            print(context, &status)?;
            Ok(status.exit_code.unwrap_or(Reason::InternalError.exit_code()))
        }
        WaitOutcome::TimedOut(status) => {
            print(context, &status)?;
            context.output.note(&format!(
                "timed out waiting for {run} ({}), which continues; wait again with: dispatcher wait {run}",
                status.phase
            ));
            Ok(Reason::TimeLimit.exit_code())
        }
    }
}

/// Prints the status of a run.
pub(super) fn print(context: &CliContext, status: &Status) -> Result<(), Error> {
    context.output.result(status, || render_status(status, Timestamp::now(), context.output.color()))
}
