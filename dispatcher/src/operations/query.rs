//! The `status` and `list` commands.

use jiff::Timestamp;
use orchestrator_contract::{Phase, Reason, RunName, ServiceName, TaskId};

use super::dispatcher::Dispatcher;
use crate::backend::StoredRun;
use crate::error::Error;
use crate::task::selection::{no_match_hint, no_runs_message};
use crate::task::status::{DamagedRun, Status};

/// Conditions that runs must meet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    pub service: Option<ServiceName>,
    pub task: Option<TaskId>,
    pub phase: Option<Phase>,
}

/// Result of a status query.
#[derive(Clone, Debug, PartialEq)]
pub enum StatusMatch {
    One(Box<Status>),
    /// Several active runs match.
    Ambiguous(Vec<Status>),
}

impl Dispatcher {
    /// Returns the status of every matching run, newest first.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Status>, Error> {
        let now = Timestamp::now();
        let mut statuses = Vec::new();
        for run in self.matching_runs(filter).await? {
            let name = run.task.run.clone();
            let status = self.backend.status(run, now).await?;
            // A record that gc removes concurrently looks like a lost run.
            if status.reason != Some(Reason::SupervisorLost) || self.backend.run(&name).await?.is_some() {
                statuses.push(status);
            }
        }
        statuses.retain(|status| filter.phase.is_none_or(|phase| status.phase == phase));
        Ok(statuses)
    }

    /// Returns the runs whose records cannot be read.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    pub async fn damaged(&self) -> Result<Vec<DamagedRun>, Error> {
        self.backend.damaged().await
    }

    pub(super) async fn matching_runs(&self, filter: &Filter) -> Result<Vec<StoredRun>, Error> {
        let mut runs = self.backend.runs().await?;
        runs.retain(|run| {
            filter.service.as_ref().is_none_or(|service| run.task.service == *service)
                && filter.task.is_none_or(|task| run.task.task_id == Some(task))
        });
        Ok(runs)
    }

    /// Returns the status of a run; without a name, of the active run, else of the latest.
    ///
    /// # Errors
    /// Returns an error if no run matches or the state cannot be read.
    pub async fn status(&self, name: Option<&RunName>, filter: &Filter) -> Result<StatusMatch, Error> {
        if let Some(name) = name {
            let status = self.status_of(self.run(name).await?).await?;
            return Ok(StatusMatch::One(Box::new(status)));
        }
        let mut all = self.list(filter).await?;
        let active: Vec<usize> =
            all.iter().enumerate().filter(|(_, status)| !status.phase.is_final()).map(|(at, _)| at).collect();
        match active.as_slice() {
            [] if all.is_empty() => Err(self.no_run(filter).await?),
            [] => Ok(StatusMatch::One(Box::new(all.swap_remove(0)))),
            [one] => Ok(StatusMatch::One(Box::new(all.swap_remove(*one)))),
            [..] => {
                all.retain(|status| !status.phase.is_final());
                Ok(StatusMatch::Ambiguous(all))
            }
        }
    }

    /// Returns the current status of a run.
    pub(super) async fn status_of(&self, run: StoredRun) -> Result<Status, Error> {
        self.backend.status(run, Timestamp::now()).await
    }

    /// Returns the name of the latest matching run.
    ///
    /// # Errors
    /// Returns an error if no run matches or the state cannot be read.
    pub async fn latest_run(&self, filter: &Filter) -> Result<RunName, Error> {
        let first = self.matching_runs(filter).await?.into_iter().next();
        match first {
            Some(run) => Ok(run.task.run),
            None => Err(self.no_run(filter).await?),
        }
    }

    /// Returns the error that no run matches, with the closest service or the newest runs.
    async fn no_run(&self, filter: &Filter) -> Result<Error, Error> {
        let all = self.list(&Filter::default()).await?;
        Ok(Error::invalid_request(no_runs_message(None, filter.service.as_ref(), filter.task))
            .with_hint(no_match_hint(filter.service.as_ref(), &all)))
    }
}
