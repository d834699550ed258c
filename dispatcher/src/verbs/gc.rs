//! gc.

use orchestrator_contract::RunName;
use serde::Serialize;

use super::{Dispatcher, Filter};
use crate::files;
use crate::problem::Problem;
use crate::task::retention::plan_removal;

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
    pub async fn gc(&self, keep: usize, dry_run: bool) -> Result<Vec<Removal>, Problem> {
        let mut removals = Vec::new();
        if !dry_run {
            self.local.sweep()?;
        }
        for name in plan_removal(&self.list(&Filter::default())?, keep) {
            let run = self.run(&name)?;
            // What the workspace keeps of the run: its log and transcript, and the agent's home in it.
            let layout = self.local.workspace(&run.task.service);
            let in_workspace = [layout.run(&name).folder().to_owned(), layout.agent_home(&name)];
            let bytes = in_workspace.iter().map(|folder| files::size(folder)).sum::<u64>()
                + files::size(run.folder());
            let removal = Removal { run: name, bytes };
            if dry_run {
                removals.push(removal);
                continue;
            }
            // Nobody may be resolving a retry against the record that goes.
            let _gate = self.local.gate(&run.task.service).await?;
            if !run.remove()? {
                continue;
            }
            for folder in in_workspace.iter().filter(|folder| folder.is_dir()) {
                std::fs::remove_dir_all(folder).map_err(|error| files::problem("remove", folder, &error))?;
            }
            removals.push(removal);
        }
        Ok(removals)
    }
}
