//! Why something in a container failed.

use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::containers::ContainerRole;

use crate::guest::LOST_CONTAINER;

/// Failed request to a container.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ContainerError {
    /// No guest connected.
    #[error(
        "no guest in the `{}` container connected within {} seconds: the container did not start, or its image \
         cannot run the supervisor's program",
        role.name(), limit.as_secs()
    )]
    NoGuest { role: ContainerRole, limit: Duration },
    /// The tools of the container are not those of the supervisor.
    #[error(
        "the guest in the `{}` container is another build of the supervisor: its tools are from another image",
        role.name()
    )]
    OtherBuild { role: ContainerRole },
    /// The connection ended, or the guest broke the protocol.
    #[error("lost the guest in the `{}` container: it {why}", role.name())]
    Lost { role: ContainerRole, why: String },
    /// A program could not be started.
    #[error("cannot start `{program}` in the `{}` container: {why}", role.name())]
    Start { role: ContainerRole, program: String, why: String },
    /// Another request failed.
    #[error("the guest in the `{}` container cannot {action}: {why}", role.name())]
    Request { role: ContainerRole, action: &'static str, why: String },
}

impl ContainerError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoGuest { .. } | Self::OtherBuild { .. } => Reason::SandboxUnavailable,
            Self::Lost { .. } => LOST_CONTAINER,
            Self::Start { .. } | Self::Request { .. } => Reason::InternalError,
        }
    }
}
