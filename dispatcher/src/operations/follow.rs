//! wait and logs.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::{Event, RunName};

use super::Dispatcher;
use crate::backend::RunFollower;
use crate::error::Error;
use crate::task::status::Status;

/// How often a run is looked at while something happens.
const ACTIVE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often it is looked at while nothing happens: nobody notices a quarter of
/// a second, and looking costs a lock and a read.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What came of waiting.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitOutcome {
    /// The run has ended.
    Finished(Box<Status>),
    /// It has not, in the time that was given.
    TimedOut(Box<Status>),
}

impl Dispatcher {
    /// Waits until a run has ended; `each` sees its status at every look.
    ///
    /// # Errors
    /// There is no such run, or its state cannot be read.
    pub async fn wait(
        &self,
        name: &RunName,
        limit: Option<Duration>,
        mut each: impl FnMut(&Status) + Send,
    ) -> Result<WaitOutcome, Error> {
        let mut follower = self.backend.follow(self.run(name).await?);
        until_ended(&mut *follower, limit, |_, _| Ok(()), |status| each(status)).await
    }

    /// Shows the events of a run, and goes on showing them until it has ended if `follow` says so.
    ///
    /// # Errors
    /// There is no such run, its state cannot be read, or `each` fails.
    pub async fn logs(
        &self,
        name: &RunName,
        follow: bool,
        each: impl FnMut(&Event, &str) -> Result<(), Error> + Send,
    ) -> Result<Status, Error> {
        let mut follower = self.backend.follow(self.run(name).await?);
        let limit = if follow { None } else { Some(Duration::ZERO) };
        match until_ended(&mut *follower, limit, each, |_| {}).await? {
            WaitOutcome::Finished(status) | WaitOutcome::TimedOut(status) => Ok(*status),
        }
    }
}

async fn until_ended(
    follower: &mut dyn RunFollower,
    limit: Option<Duration>,
    mut each_event: impl FnMut(&Event, &str) -> Result<(), Error> + Send,
    mut each_status: impl FnMut(&Status) + Send,
) -> Result<WaitOutcome, Error> {
    let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
    let mut pause = ACTIVE_POLL_INTERVAL;
    let mut seen = 0;
    loop {
        let mut failed = Ok(());
        let mut each = |event: &Event, line: &str| {
            if failed.is_ok() {
                failed = each_event(event, line);
            }
        };
        let status = follower.status(Timestamp::now(), &mut each).await?;
        failed?;
        each_status(&status);
        if status.phase.is_final() {
            return Ok(WaitOutcome::Finished(Box::new(status)));
        }
        // Quick again as soon as something was said.
        pause = if status.last_event_seq == seen {
            (pause * 2).min(IDLE_POLL_INTERVAL)
        } else {
            ACTIVE_POLL_INTERVAL
        };
        seen = status.last_event_seq;
        let wake = tokio::time::Instant::now() + pause;
        match deadline {
            Some(deadline) if deadline <= tokio::time::Instant::now() => {
                return Ok(WaitOutcome::TimedOut(Box::new(status)));
            }
            Some(deadline) => tokio::time::sleep_until(wake.min(deadline)).await,
            None => tokio::time::sleep_until(wake).await,
        }
    }
}
