//! stop.

use std::time::Duration;

use orchestrator_contract::RunName;

use super::{Dispatcher, WaitOutcome};
use crate::error::Error;
use crate::task::status::Status;
use crate::task::stop_mode::StopMode;

/// What came of asking a run to stop.
#[derive(Clone, Debug, PartialEq)]
pub enum StopOutcome {
    /// It had ended before.
    AlreadyFinished(Box<Status>),
    /// It has stopped.
    Stopped(Box<Status>),
    /// It was asked, and is still saving its work.
    Requested(Box<Status>),
}

impl Dispatcher {
    /// Asks a run to stop and waits until it has, as long as `limit` allows.
    ///
    /// # Errors
    /// There is no such run, or it cannot be asked.
    pub async fn stop(
        &self,
        name: &RunName,
        manner: StopMode,
        limit: Duration,
        each: impl FnMut(&Status) + Send,
    ) -> Result<StopOutcome, Error> {
        let run = self.run(name).await?;
        let status = self.status_of(run.clone()).await?;
        if status.phase.is_final() {
            return Ok(StopOutcome::AlreadyFinished(Box::new(status)));
        }
        self.backend.request_stop(&run, manner).await?;
        Ok(match self.wait(name, Some(limit), each).await? {
            WaitOutcome::Finished(status) => StopOutcome::Stopped(status),
            WaitOutcome::TimedOut(status) => StopOutcome::Requested(status),
        })
    }
}
