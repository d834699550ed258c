//! The `stop` command.

use std::time::Duration;

use orchestrator_contract::RunName;

use super::dispatcher::Dispatcher;
use super::follow::WaitOutcome;
use crate::error::Error;
use crate::task::status::Status;
use crate::task::stop_mode::StopMode;

/// Result of a stop request.
#[derive(Clone, Debug, PartialEq)]
pub enum StopOutcome {
    /// The run had finished before the request.
    AlreadyFinished(Box<Status>),
    Stopped(Box<Status>),
    /// The run is still saving its work.
    Requested(Box<Status>),
}

impl Dispatcher {
    /// Requests a run to stop and waits up to `timeout` for it to end.
    ///
    /// # Errors
    /// Returns an error if no such run exists or the request fails.
    pub async fn stop(
        &self,
        name: &RunName,
        mode: StopMode,
        timeout: Duration,
        each: impl FnMut(&Status) + Send,
    ) -> Result<StopOutcome, Error> {
        let run = self.run(name).await?;
        let status = self.status_of(run.clone()).await?;
        if status.phase.is_final() {
            return Ok(StopOutcome::AlreadyFinished(Box::new(status)));
        }
        self.backend.request_stop(&run, mode).await?;
        Ok(match self.wait(name, Some(timeout), each).await? {
            WaitOutcome::Finished(status) => StopOutcome::Stopped(status),
            WaitOutcome::TimedOut(status) => StopOutcome::Requested(status),
        })
    }
}
