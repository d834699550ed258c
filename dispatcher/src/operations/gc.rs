//! The `gc` command: removes old run records, and workspaces.

use orchestrator_contract::{RunName, ServiceName};
use serde::Serialize;

use super::dispatcher::Dispatcher;
use super::query::Filter;
use crate::error::Error;
use crate::task::retention::select_expired;
use crate::task::workspace::{WorkspaceAction, WorkspacePlan, WorkspaceRun};

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

    /// Returns the workspaces and what [`Self::gc_workspaces`] does with them; changes nothing.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read, or the named service has no workspace.
    pub async fn plan_workspaces(&self, named: Option<&ServiceName>) -> Result<Vec<WorkspacePlan>, Error> {
        let mut found = self.backend.workspaces().await?;
        if let Some(named) = named {
            let services: Vec<String> = found.iter().map(|found| found.service.to_string()).collect();
            found.retain(|found| found.service == *named);
            if found.is_empty() {
                let place = self.backend.location();
                let hint = match services.as_slice() {
                    [] => "There is no workspace to remove.".to_owned(),
                    services => format!("The services with a workspace are {}.", services.join(", ")),
                };
                let message = format!("service {named} has no workspace in {place}");
                return Err(Error::invalid_request(message).with_hint(hint));
            }
        }
        let stored = self.backend.runs().await?;
        let damaged = self.backend.damaged().await?;
        let mut plans = Vec::new();
        for mut workspace in found {
            let service = workspace.service.clone();
            let mut runs = Vec::new();
            for run in stored.iter().filter(|run| run.task.service == service) {
                let status = self.status_of(run.clone()).await?;
                runs.push(WorkspaceRun { status, mode: run.task.mode });
            }
            // Only the name of a damaged run tells the service.
            let damaged = damaged.iter().filter(|run| run.run.starts_with(&format!("{service}-")));
            let possibly = |run: &str| format!("possibly work of {run}, whose record is damaged");
            workspace.unpushed.extend(damaged.map(|run| possibly(&run.run)));
            let place = self.backend.workspace(&service);
            plans.push(WorkspacePlan::new(workspace, place, &runs, named.is_some()));
        }
        Ok(plans)
    }

    /// Removes workspaces: never one with an active run, and one with unpushed work only if it is named.
    ///
    /// # Errors
    /// Returns the errors of [`Self::plan_workspaces`], or the first of a removal.
    pub async fn gc_workspaces(&self, named: Option<&ServiceName>) -> Result<Vec<WorkspacePlan>, Error> {
        self.backend.sweep().await?;
        let mut plans = self.plan_workspaces(named).await?;
        for plan in plans.iter_mut().filter(|plan| plan.action == WorkspaceAction::Remove) {
            let removed = self.backend.remove_workspace(&plan.service).await?;
            plan.action = if removed { WorkspaceAction::Removed } else { WorkspaceAction::KeepActive };
        }
        Ok(plans)
    }
}
