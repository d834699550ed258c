//! gc.

use orchestrator_contract::RunName;
use serde::Serialize;

use super::{Dispatcher, Filter};
use crate::error::Error;
use crate::task::retention::select_expired;

/// A record that was removed, or would be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Removal {
    /// The run.
    pub run: RunName,
    /// What it took.
    pub bytes: u64,
}

impl Dispatcher {
    /// Removes the records of old runs, in the workspace too; its trees, its repositories and the
    /// attempt numbers stay.
    ///
    /// # Errors
    /// The state cannot be read or written.
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
