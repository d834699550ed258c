//! The steps of a run, in their order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Phase;

/// A step of a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Everything that can be known before anything is spent.
    Preflight,
    /// The task documentation is fetched.
    FetchPlatform,
    /// The code is fetched.
    FetchTarget,
    /// The branch and its working tree are prepared.
    Branch,
    /// The task's documents are found.
    Documents,
    /// The MCP servers are started once and asked for their tools.
    Mcp,
    /// The agent works.
    Agent,
    /// The service's checks run.
    Verify,
    /// What is left is committed.
    Commit,
    /// What is to be pushed is checked.
    Policy,
    /// The branch is pushed and its oid verified.
    Push,
    /// The pull request is opened or updated, and read back.
    PullRequest,
    /// The outcome is written.
    Report,
}

impl Step {
    /// All steps in the order in which a run takes them.
    pub const ALL: [Self; 13] = [
        Self::Preflight,
        Self::FetchPlatform,
        Self::FetchTarget,
        Self::Branch,
        Self::Documents,
        Self::Mcp,
        Self::Agent,
        Self::Verify,
        Self::Commit,
        Self::Policy,
        Self::Push,
        Self::PullRequest,
        Self::Report,
    ];

    /// The step's name, as in logs and on the command line.
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
            Self::Verify => "verify",
            Self::Commit => "commit",
            Self::Policy => "policy",
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::Report => "report",
        }
    }

    /// The phase that a run is in during this step.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Self::Preflight
            | Self::FetchPlatform
            | Self::FetchTarget
            | Self::Branch
            | Self::Documents
            | Self::Mcp => Phase::Preparing,
            Self::Agent | Self::Verify => Phase::Running,
            Self::Commit | Self::Policy | Self::Push | Self::PullRequest | Self::Report => Phase::Publishing,
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
                format!("`{value}` is no step: use one of {}", names.join(", "))
            })
    }
}
