//! stop.

use std::time::Duration;

use orchestrator_contract::RunName;

use super::{Dispatcher, Wait};
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

/// How a run is asked to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// The agent is stopped, its work is saved and pushed.
    Orderly,
    /// The work is saved where it is, nothing is pushed.
    Now,
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
        each: impl FnMut(&Status),
    ) -> Result<Stop, Problem> {
        let run = self.run(name)?;
        let status = self.local.status(&run, jiff::Timestamp::now())?;
        if status.phase.is_final() {
            return Ok(Stop::HadEnded(Box::new(status)));
        }
        run.ask_to_stop(manner == Manner::Now)?;
        Ok(match self.wait(name, Some(limit), each).await? {
            Wait::Ended(status) => Stop::Ended(status),
            Wait::TimedOut(status) => Stop::Asked(status),
        })
    }
}
