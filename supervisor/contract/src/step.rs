//! Steps of a run, in execution order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Phase;

/// One stage of a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Checks access, credentials and configuration before any cost arises.
    Preflight,
    /// Fetches the platform repository.
    FetchPlatform,
    /// Fetches the target repository.
    FetchTarget,
    /// Creates or updates the branch and checks it out.
    Branch,
    /// Locates the task's documents in the platform repository.
    Documents,
    /// Starts each MCP server once and lists its tools.
    Mcp,
    /// Runs the agent.
    Agent,
    /// Commits the remaining changes.
    Commit,
    /// Checks the commits for secrets and protected paths.
    Policy,
    /// Runs the service's verify commands on a clean export of the commit.
    Verify,
    /// Pushes the branch and verifies its commit on the remote.
    Push,
    /// Opens or updates the pull request and reads it back.
    PullRequest,
    /// Writes the outcome.
    Report,
}

impl Step {
    /// All steps in execution order.
    pub const ALL: [Self; 13] = [
        Self::Preflight,
        Self::FetchPlatform,
        Self::FetchTarget,
        Self::Branch,
        Self::Documents,
        Self::Mcp,
        Self::Agent,
        Self::Commit,
        Self::Policy,
        Self::Verify,
        Self::Push,
        Self::PullRequest,
        Self::Report,
    ];

    /// Returns the name used in logs, JSON and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::FetchPlatform => "fetch_platform",
            Self::FetchTarget => "fetch_target",
            Self::Branch => "branch",
            Self::Documents => "documents",
            Self::Mcp => "mcp",
            Self::Agent => "agent",
            Self::Commit => "commit",
            Self::Policy => "policy",
            Self::Verify => "verify",
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::Report => "report",
        }
    }

    /// Returns the phase of a run during this step.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Self::Preflight
            | Self::FetchPlatform
            | Self::FetchTarget
            | Self::Branch
            | Self::Documents
            | Self::Mcp => Phase::Preparing,
            // A failed verification returns to the agent, so publishing starts after it.
            Self::Agent | Self::Commit | Self::Policy | Self::Verify => Phase::Running,
            Self::Push | Self::PullRequest | Self::Report => Phase::Publishing,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Step {
    type Err = String;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|step| step.name() == value || step.name().replace('_', "-") == value)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|step| step.name()).collect();
                format!("unknown step `{value}`; expected one of {}", names.join(", "))
            })
    }
}
