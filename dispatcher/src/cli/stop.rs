//! stop.

use std::time::Duration;

use orchestrator_contract::{Reason, RunName};

use super::CliContext;
use super::progress::Progress;
use super::run_selector::RunSelector;
use super::wait::{parse_seconds, print};
use crate::error::Error;
use crate::operations::StopOutcome;
use crate::task::selection::{Purpose, Recency};
use crate::task::stop_mode::StopMode;

/// Stops a run: the agent ends, what it made is saved and pushed, the workspace is kept.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher stop trader-claude-agent-1-task1-attempt1
  dispatcher stop --service trader --now
  dispatcher stop trader-claude-agent-1-task1-attempt1 --no-wait")]
pub(super) struct Arguments {
    /// The run [default: the one at work, else the latest].
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Save the work where it is, without pushing it.
    #[arg(long)]
    now: bool,
    /// Ask, and do not wait until the run has stopped.
    #[arg(long)]
    no_wait: bool,
    /// Wait at most so many seconds; the exit code is 124 if the run has not stopped by then.
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = parse_seconds)]
    timeout: Duration,
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, now, no_wait, timeout } = arguments;
    let run = which.run(session, run, Purpose::Stop, Recency::Any).await?;
    let manner = if now { StopMode::Now } else { StopMode::Graceful };
    let limit = if no_wait { Duration::ZERO } else { timeout };
    let mut progress = Progress::new(session);
    let end = session.dispatcher.stop(&run, manner, limit, |status| progress.show(status)).await?;
    drop(progress);
    let (status, remark, code) = match end {
        StopOutcome::AlreadyFinished(status) => (status, format!("{run} had ended already"), 0),
        StopOutcome::Stopped(status) => (status, format!("{run} has stopped"), 0),
        StopOutcome::Requested(status) if no_wait => (status, format!("{run} was asked to stop"), 0),
        StopOutcome::Requested(status) => {
            let remark =
                format!("{run} was asked to stop and is still saving its work: dispatcher wait {run}");
            (status, remark, Reason::TimeLimit.exit_code())
        }
    };
    print(session, &status)?;
    session.output.note(&remark);
    Ok(code)
}
