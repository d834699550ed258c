//! The `gc` command: removes old run records.

use orchestrator_contract::RunName;
use serde::Serialize;

use super::dispatcher::Dispatcher;
use super::query::Filter;
use crate::error::Error;
use crate::task::retention::select_expired;

/// A run record that was removed, or would be in a dry run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Removal {
    pub run: RunName,
    /// Size of the record.
    pub bytes: u64,
}

impl Dispatcher {
    /// Removes the records of old runs, keeping `keep` of each service.
    ///
    /// Worktrees, repositories and attempt numbers stay.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read or written.
    pub async fn gc(&self, keep: usize, dry_run: bool) -> Result<Vec<Removal>, Error> {
        let mut removals = Vec::new();
        if !dry_run {
            self.backend.sweep().await?;
        }
        for name in select_expired(&self.list(&Filter::default()).await?, keep) {
            let run = self.run(&name).await?;
            let removal = Removal { run: name, bytes: self.backend.size(&run).await };
            if dry_run || self.backend.remove(&run).await? {
                removals.push(removal);
            }
        }
        Ok(removals)
    }
}
