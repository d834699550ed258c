//! The volumes of services: their removal keeps what finished containers still mount, emptied but for the
//! attempt numbers.

use std::collections::HashMap;

use bollard::models::Volume;
use bollard::query_parameters::ListVolumesOptionsBuilder;
use jiff::Timestamp;
use orchestrator_contract::containers::{ContainerRole, PRIVATE_DIR, SHARED_DIR};
use orchestrator_contract::{Reason, ServiceName};

use super::connect::problem;
use super::guests::{private_mount, private_volume, shared_mount, tree_volume, workspace_mount};
use super::handle::Docker;
use super::labels::{SERVICE, WORKSPACE};
use super::spec;
use crate::backend::Backend as _;
use crate::error::Error;
use crate::task::event_fold::Liveness;
use crate::task::workspace::{FoundWorkspace, WorkspaceSize};

/// Exit code of the helper while a supervisor holds the lock of the workspace.
const LOCKED: i64 = 75;

const REMOVING: &str = "remove the files of a workspace";

impl Docker {
    /// Returns the workspaces whose worktree has a volume.
    pub(super) async fn found_workspaces(&self) -> Result<Vec<FoundWorkspace>, Error> {
        let filters = HashMap::from([("label".to_owned(), vec![WORKSPACE.to_owned()])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let listed = self.engine().await?.client.list_volumes(Some(options)).await;
        let volumes = listed.map_err(|error| problem("list volumes", &error))?.volumes.unwrap_or_default();
        let mut found: Vec<FoundWorkspace> =
            volumes.iter().filter_map(|volume| found_workspace(volume, &volumes)).collect();
        found.sort_by(|a, b| a.service.cmp(&b.service));
        Ok(found)
    }

    /// Removes a workspace; returns false if a run uses it.
    pub(super) async fn removed_workspace(&self, service: &ServiceName) -> Result<bool, Error> {
        for run in self.runs().await?.into_iter().filter(|run| run.task.service == *service) {
            if self.probe(&run.task.run, Timestamp::now()).await?.liveness == Liveness::Alive {
                return Ok(false);
            }
        }
        if self.has_volume(&private_volume(service)).await? && !self.empty_state(service).await? {
            return Ok(false);
        }
        self.remove_volume(&workspace_mount(service, ContainerRole::Verify).name).await?;
        // The last one: as long as it exists, the workspace is listed.
        self.remove_volume(&workspace_mount(service, ContainerRole::Agent).name).await?;
        Ok(true)
    }

    /// Removes the supervisor's files, which finished containers keep from being removed with their volumes.
    /// Returns false if a supervisor holds the lock.
    async fn empty_state(&self, service: &ServiceName) -> Result<bool, Error> {
        let image = spec::supervisor_image(self.config.docker());
        let mounts = vec![private_mount(service), shared_mount(service)];
        let command = command();
        let words: Vec<&str> = command.split(' ').collect();
        let helper = self.create_helper(service, image, mounts, &words).await?;
        let code = self.helper_exit_code(&helper, REMOVING).await;
        self.remove_container(&helper).await?;
        match code? {
            0 => Ok(true),
            LOCKED => Ok(false),
            code => {
                Err(Error::new(Reason::IoError, format!("cannot {REMOVING}: `find` exited with code {code}"))
                    .with_hint(format!("Inspect the volume {}.", private_volume(service))))
            }
        }
    }
}

/// Returns the command that removes everything but attempt numbers and locks, with the lock held.
fn command() -> String {
    format!(
        "flock --nonblock --conflict-exit-code {LOCKED} {PRIVATE_DIR}/lock find {PRIVATE_DIR} {SHARED_DIR} \
         -mindepth 1 -maxdepth 1 ! -name attempts ! -name lock ! -name queue -exec rm -rf {{}} +"
    )
}

/// Returns the workspace of a volume, if it is that of a worktree.
fn found_workspace(volume: &Volume, all: &[Volume]) -> Option<FoundWorkspace> {
    let service = ServiceName::new(volume.labels.get(SERVICE)?.clone()).ok()?;
    if volume.name != tree_volume(&service) {
        return None;
    }
    let of_service = all.iter().filter(|other| other.labels.get(SERVICE) == volume.labels.get(SERVICE));
    // Only some engines tell the size in a list; asking for it makes the engine walk all volumes.
    let sizes = of_service.map(|volume| u64::try_from(volume.usage_data.as_ref()?.size).ok());
    let size = sizes
        .sum::<Option<u64>>()
        .map_or(WorkspaceSize::Unknown, |bytes| WorkspaceSize::Used { bytes, is_lower_bound: false });
    Some(FoundWorkspace {
        service,
        size,
        last_used: None,
        unpushed: Vec::new(),
        data: vec!["data that MCP servers keep, such as the agent's memory".to_owned()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, size: Option<i64>) -> Volume {
        let usage = size.map(|size| serde_json::json!({"Size": size, "RefCount": 0}));
        serde_json::from_value(serde_json::json!({
            "Name": name, "Driver": "local", "Mountpoint": "/m", "Scope": "local", "Options": {},
            "Labels": {(SERVICE): "trader", (WORKSPACE): "true"}, "UsageData": usage,
        }))
        .unwrap()
    }

    #[test]
    fn workspace_size_is_known_if_engine_tells_all() {
        let names = ["workspace-trader", "workspace-trader.private", "workspace-trader.shared"];
        for (sizes, expected) in [
            ([Some(1), Some(2), Some(4)], WorkspaceSize::Used { bytes: 7, is_lower_bound: false }),
            ([Some(1), Some(-1), Some(4)], WorkspaceSize::Unknown),
            ([Some(1), None, Some(4)], WorkspaceSize::Unknown),
        ] {
            let volumes: Vec<Volume> =
                names.iter().zip(sizes).map(|(name, size)| volume(name, size)).collect();
            let found: Vec<_> =
                volumes.iter().filter_map(|volume| found_workspace(volume, &volumes)).collect();
            assert_eq!(found.len(), 1, "the other volumes belong to the same workspace");
            assert_eq!((found[0].service.as_str(), &found[0].size), ("trader", &expected));
        }
    }

    #[test]
    fn attempt_numbers_and_lock_of_removed_workspace_stay() {
        let command = command();
        let kept = command.split(" ! -name ").skip(1).filter_map(|rest| rest.split(' ').next());
        assert_eq!(kept.collect::<Vec<_>>(), ["attempts", "lock", "queue"]);
        let locked = "flock --nonblock --conflict-exit-code 75 /var/lib/orchestrator/private/lock find ";
        assert!(command.starts_with(locked) && command.ends_with("-exec rm -rf {} +"), "{command}");
    }
}
