//! Containers of a run on Docker and Kubernetes, and the paths that both programs use in them.
//!
//! The supervisor has a container of its own, with the credentials. Untrusted programs run in other
//! containers, as another user, where a guest of the supervisor is process 1. The supervisor opens no
//! volume that such a container can write; it asks the guest.
//!
//! | volume | mounted at | supervisor | agent | verify |
//! |---|---|---|---|---|
//! | tree of the service | [`WORKSPACE`] | | read and write | |
//! | verification | [`WORKSPACE`] | | | read and write |
//! | private | [`PRIVATE_DIR`] | read and write | | |
//! | shared | [`SHARED_DIR`] | read and write | read | read |
//! | socket of a guest, one volume for each | [`ContainerRole::guest_dir`] | read and write | its own: read | its own: read |
//! | tools | [`TOOLS_DIR`] | part of its image | read | read |

use serde::{Deserialize, Serialize};

/// Directory of the workspace in the containers of untrusted programs.
pub const WORKSPACE: &str = "/workspace";

/// Directory of the supervisor's files; it has a subdirectory for each of the two volumes below.
pub const STATE_DIR: &str = "/var/lib/orchestrator";

/// Directory that only the supervisor's container has: records, sessions, locks.
pub const PRIVATE_DIR: &str = "/var/lib/orchestrator/private";

/// Directory that the supervisor writes and other containers read: git objects, trusted caches, documents.
pub const SHARED_DIR: &str = "/var/lib/orchestrator/shared";

/// Directory of the guests' sockets; it has a subdirectory for each role.
pub const GUESTS_DIR: &str = "/run/orchestrator/guests";

/// Directory of the programs that a guest needs in any image: supervisor, Claude Code CLI, git.
pub const TOOLS_DIR: &str = "/opt/orchestrator";

/// Directory of executables in [`TOOLS_DIR`]; a guest's programs find it at the end of `PATH`.
pub const TOOLS_BIN_DIR: &str = "/opt/orchestrator/bin";

/// Path of the supervisor's program in every container.
pub const SUPERVISOR: &str = "/opt/orchestrator/bin/supervisor";

/// Directory of shared memory in a container, of which each has its own.
pub const SHARED_MEMORY_DIR: &str = "/dev/shm";

/// User of untrusted programs, unless it is configured; the group is 0.
pub const AGENT_UID: u32 = 10_002;

/// Role of a container of untrusted programs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRole {
    /// The agent's conversations, and setup commands.
    Agent,
    /// Verify commands.
    Verify,
}

impl ContainerRole {
    /// All roles.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Verify];

    /// Returns the name of the role: that of its container in a pod, and of its socket's directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Verify => "verify",
        }
    }

    /// Returns the directory of the guest's socket, where its volume is mounted.
    #[must_use]
    pub fn guest_dir(self) -> String {
        format!("{GUESTS_DIR}/{}", self.name())
    }

    /// Returns the arguments of the guest, which is the container's process 1.
    #[must_use]
    pub fn guest_arguments(self) -> [String; 3] {
        ["guest".to_owned(), "--connect".to_owned(), format!("{}/{SOCKET}", self.guest_dir())]
    }
}

/// Name of a guest's socket in its directory.
pub const SOCKET: &str = "socket";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_volumes_are_subdirectories() {
        assert_eq!(PRIVATE_DIR, format!("{STATE_DIR}/private"));
        assert_eq!(SHARED_DIR, format!("{STATE_DIR}/shared"));
        assert_eq!(TOOLS_BIN_DIR, format!("{TOOLS_DIR}/bin"));
        assert_eq!(SUPERVISOR, format!("{TOOLS_BIN_DIR}/supervisor"));
        assert_eq!(ContainerRole::Verify.guest_dir(), format!("{GUESTS_DIR}/verify"));
    }
}
