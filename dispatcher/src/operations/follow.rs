//! The `wait` and `logs` commands.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::{Event, RunName};

use super::dispatcher::Dispatcher;
use crate::backend::RunFollower;
use crate::error::Error;
use crate::task::status::Status;

/// Poll interval while events arrive.
const ACTIVE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Poll interval without events: each poll costs a lock and a read, and a quarter of a
/// second goes unnoticed.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Result of waiting for a run.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitOutcome {
    Finished(Box<Status>),
    /// The timeout elapsed first.
    TimedOut(Box<Status>),
}

impl Dispatcher {
    /// Waits for a run to end; `each` receives its status at every poll.
    ///
    /// # Errors
    /// Returns an error if no such run exists or its state cannot be read.
    pub async fn wait(
        &self,
        name: &RunName,
        timeout: Option<Duration>,
        mut each: impl FnMut(&Status) + Send,
    ) -> Result<WaitOutcome, Error> {
        let mut follower = self.backend.follow(self.run(name).await?);
        until_finished(&mut *follower, timeout, |_, _| Ok(()), |status| each(status)).await
    }

    /// Passes the events of a run to `each`; with `follow`, until the run ends.
    ///
    /// # Errors
    /// Returns an error if no such run exists, its state cannot be read, or `each` fails.
    pub async fn logs(
        &self,
        name: &RunName,
        follow: bool,
        each: impl FnMut(&Event, &str) -> Result<(), Error> + Send,
    ) -> Result<Status, Error> {
        let mut follower = self.backend.follow(self.run(name).await?);
        let timeout = if follow { None } else { Some(Duration::ZERO) };
        match until_finished(&mut *follower, timeout, each, |_| {}).await? {
            WaitOutcome::Finished(status) | WaitOutcome::TimedOut(status) => Ok(*status),
        }
    }
}

async fn until_finished(
    follower: &mut dyn RunFollower,
    timeout: Option<Duration>,
    mut each_event: impl FnMut(&Event, &str) -> Result<(), Error> + Send,
    mut each_status: impl FnMut(&Status) + Send,
) -> Result<WaitOutcome, Error> {
    let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    let mut pause = ACTIVE_POLL_INTERVAL;
    let mut seen_seq = 0;
    loop {
        let mut result = Ok(());
        let mut each = |event: &Event, line: &str| {
            if result.is_ok() {
                result = each_event(event, line);
            }
        };
        let status = follower.status(Timestamp::now(), &mut each).await?;
        result?;
        each_status(&status);
        if status.phase.is_final() {
            return Ok(WaitOutcome::Finished(Box::new(status)));
        }
        // Each event resets the backoff.
        pause = if status.last_event_seq == seen_seq {
            (pause * 2).min(IDLE_POLL_INTERVAL)
        } else {
            ACTIVE_POLL_INTERVAL
        };
        seen_seq = status.last_event_seq;
        let next_poll = tokio::time::Instant::now() + pause;
        match deadline {
            Some(deadline) if deadline <= tokio::time::Instant::now() => {
                return Ok(WaitOutcome::TimedOut(Box::new(status)));
            }
            Some(deadline) => tokio::time::sleep_until(next_poll.min(deadline)).await,
            None => tokio::time::sleep_until(next_poll).await,
        }
    }
}
