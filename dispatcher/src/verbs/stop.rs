//! stop.

use std::time::Duration;

use orchestrator_contract::RunName;

use super::{Dispatcher, Wait};
use crate::backend::Manner;
use crate::problem::Problem;
use crate::task::status::Status;

/// What came of asking a run to stop.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// It had ended before.
    HadEnded(Box<Status>),
    /// It has stopped.
    Ended(Box<Status>),
    /// It was asked, and is still saving its work.
    Asked(Box<Status>),
}

impl Dispatcher {
    /// Asks a run to stop and waits until it has, as long as `limit` allows.
    ///
    /// # Errors
    /// There is no such run, or it cannot be asked.
    pub async fn stop(
        &self,
        name: &RunName,
        manner: Manner,
        limit: Duration,
        each: impl FnMut(&Status) + Send,
    ) -> Result<Stop, Problem> {
        let run = self.run(name).await?;
        let status = self.look(run.clone()).await?;
        if status.phase.is_final() {
            return Ok(Stop::HadEnded(Box::new(status)));
        }
        self.backend.ask_to_stop(&run, manner).await?;
        Ok(match self.wait(name, Some(limit), each).await? {
            Wait::Ended(status) => Stop::Ended(status),
            Wait::TimedOut(status) => Stop::Asked(status),
        })
    }
}
