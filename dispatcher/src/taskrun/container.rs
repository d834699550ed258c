//! The containers of a run's pod, and what the supervisor's and `prepare` are started with.

use orchestrator_contract::containers::{ContainerRole, GUESTS_DIR, STATE_DIR, WORKSPACE};

/// Name of the supervisor's container.
pub const CONTAINER: &str = "supervisor";

/// Name of the init container that makes the directories of the workspace PVC and fills the tools volume.
pub const PREPARE: &str = "prepare";

/// Directory where the ConfigMap with the task is mounted.
pub const TASK_DIR: &str = "/etc/orchestrator";

/// Where `prepare` mounts the whole workspace PVC.
pub const VOLUMES_DIR: &str = "/volumes";

/// Where `prepare` mounts the tools volume.
pub const NEW_TOOLS_DIR: &str = "/tools";

/// Directories of the workspace PVC that containers mount as a `subPath`.
///
/// No container of untrusted programs writes a parent of one: the kubelet would follow its links.
pub mod sub_paths {
    /// Tree of the service, which only the agent's container mounts.
    pub const TREE: &str = "tree";
    /// Verification, which only the container of verify commands mounts.
    pub const VERIFY: &str = "verify";
    /// Files of the supervisor, which only its container mounts.
    pub const PRIVATE: &str = "private";
    /// Files that the supervisor writes and the other containers read.
    pub const SHARED: &str = "shared";
}

/// Returns the arguments of the supervisor; the image sets the program.
#[must_use]
pub fn arguments() -> Vec<String> {
    let task = format!("{TASK_DIR}/task.json");
    let paths = ["--workspace", WORKSPACE, "--state-dir", STATE_DIR, "--guests-dir", GUESTS_DIR];
    let mut all = vec!["run", "--task-file", &task];
    all.extend(paths);
    all.extend(["--log-format", "json"]);
    all.into_iter().map(str::to_owned).collect()
}

/// Returns the arguments of the supervisor's program in [`PREPARE`].
#[must_use]
pub fn prepare_arguments() -> Vec<String> {
    ["prepare-volumes", "--volumes", VOLUMES_DIR, "--tools", NEW_TOOLS_DIR].map(str::to_owned).into()
}

/// Returns the containers that a run's untrusted programs need.
#[must_use]
pub fn roles(has_verify_commands: bool) -> Vec<ContainerRole> {
    ContainerRole::ALL
        .into_iter()
        .filter(|role| match role {
            ContainerRole::Agent => true,
            ContainerRole::Verify => has_verify_commands,
        })
        .collect()
}
