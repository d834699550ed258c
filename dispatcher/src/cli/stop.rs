//! `dispatcher stop`.

use std::time::Duration;

use orchestrator_contract::{Reason, RunName};

use super::context::CliContext;
use super::progress::Progress;
use super::run_selector::RunSelector;
use super::wait::{parse_seconds, print};
use crate::error::Error;
use crate::operations::StopOutcome;
use crate::task::selection::{Purpose, Recency};
use crate::task::stop_mode::StopMode;

/// Stop a run gracefully
///
/// The agent stops, its work is saved and pushed, and the workspace is kept for a retry.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher stop trader-claude-agent-1-task1-attempt1
  dispatcher stop --service trader --now
  dispatcher stop trader-claude-agent-1-task1-attempt1 --no-wait")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the active run, else the latest]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Save the work in the workspace, do not push it
    #[arg(long)]
    now: bool,
    /// Return immediately, do not wait for the run to stop
    #[arg(long)]
    no_wait: bool,
    /// Maximum seconds to wait; exits with 124 on timeout
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = parse_seconds)]
    timeout: Duration,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, now, no_wait, timeout } = arguments;
    let run = which.run(context, run, Purpose::Stop, Recency::Any).await?;
    let mode = if now { StopMode::Now } else { StopMode::Graceful };
    let limit = if no_wait { Duration::ZERO } else { timeout };
    let mut progress = Progress::new(context);
    let outcome = context.dispatcher.stop(&run, mode, limit, |status| progress.show(status)).await?;
    drop(progress);
    let (status, message, code) = match outcome {
        StopOutcome::AlreadyFinished(status) => (status, format!("{run} is already finished"), 0),
        StopOutcome::Stopped(status) => (status, format!("{run} stopped"), 0),
        StopOutcome::Requested(status) if no_wait => (status, format!("stop requested for {run}"), 0),
        StopOutcome::Requested(status) => {
            let message = format!("{run} is still saving its work; wait for it with: dispatcher wait {run}");
            (status, message, Reason::TimeLimit.exit_code())
        }
    };
    print(context, &status)?;
    context.output.note(&message);
    Ok(code)
}
