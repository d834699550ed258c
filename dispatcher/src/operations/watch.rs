//! The `watch` command: the status of all runs, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName};

use super::dispatcher::Dispatcher;
use super::query::Filter;
use crate::backend::RunFollower;
use crate::error::Error;
use crate::task::status::Status;

/// What is known of the watched runs, so that no event is read twice.
#[derive(Default)]
pub struct WatchedRuns {
    /// Readers of the active runs.
    followers: BTreeMap<RunName, Box<dyn RunFollower>>,
    /// Statuses that do not change anymore.
    finished: BTreeMap<RunName, Status>,
}

impl fmt::Debug for WatchedRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let followed: Vec<&RunName> = self.followers.keys().collect();
        f.debug_struct("WatchedRuns").field("followers", &followed).field("finished", &self.finished).finish()
    }
}

impl Dispatcher {
    /// Returns the status of every matching run, newest first, as [`Self::list`] does.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read. The next call reads it again.
    pub async fn refresh(&self, watched: &mut WatchedRuns, filter: &Filter) -> Result<Vec<Status>, Error> {
        let now = Timestamp::now();
        let runs = self.matching_runs(filter).await?;
        let names: BTreeSet<RunName> = runs.iter().map(|run| run.task.run.clone()).collect();
        watched.followers.retain(|name, _| names.contains(name));
        watched.finished.retain(|name, _| names.contains(name));
        let mut statuses = Vec::with_capacity(runs.len());
        for run in runs {
            let name = run.task.run.clone();
            if let Some(status) = watched.finished.get(&name) {
                statuses.push(status.clone());
                continue;
            }
            let mut follower = watched.followers.remove(&name).unwrap_or_else(|| self.backend.follow(run));
            let status = follower.status(now, &mut |_, _| {}).await?;
            // A record that gc removes concurrently looks like a lost run.
            if status.reason == Some(Reason::SupervisorLost) && self.backend.run(&name).await?.is_none() {
                continue;
            }
            // A run without an outcome may be found again.
            if status.phase.is_final() && status.outcome.is_some() {
                watched.finished.insert(name, status.clone());
            } else {
                watched.followers.insert(name, follower);
            }
            statuses.push(status);
        }
        statuses.retain(|status| filter.phase.is_none_or(|phase| status.phase == phase));
        Ok(statuses)
    }
}
