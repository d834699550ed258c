//! What the configuration says about services, agents and defaults.

use std::path::PathBuf;

use orchestrator_contract::task::{CleanMode, Limits, PullRequestPolicy};
use orchestrator_contract::{AgentName, BranchName, RepositoryUrl, WorkingDirectory};
use schemars::JsonSchema;
use serde::Deserialize;

use super::image::ImageReference;

/// What a run gets if neither the request nor its service says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Who works: `claude-agent-1` if not given.
    pub agent: Option<AgentName>,
    /// The model: `sonnet` if not given.
    pub model: Option<String>,
    /// Where the task documentation is: the open folder's git remote if not given.
    pub platform_repository_url: Option<RepositoryUrl>,
    /// The documentation's branch: the remote's default if not given.
    pub platform_branch: Option<BranchName>,
    /// The base branch: the remote's default if not given.
    pub branch: Option<BranchName>,
    /// What a run may use up.
    pub limits: LimitSettings,
    /// Commands that run before the agent.
    pub setup: Option<Vec<String>>,
    /// Commands that must succeed on the agent's work.
    pub verify: Option<Vec<String>>,
    /// The MCP servers by name.
    pub mcp_servers: Option<Vec<String>>,
    /// Whether a pull request is wanted.
    pub pull_request: Option<PullRequestPolicy>,
    /// What is removed from the working tree between two tasks.
    pub clean: Option<CleanMode>,
    /// Paths (gitignore patterns) that a run may not change.
    pub protected_paths: Option<Vec<String>>,
    /// How many commits of history are fetched.
    pub depth: Option<u32>,
}

/// What the runs of one service get.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSettings {
    /// The code to change.
    pub repository_url: Option<RepositoryUrl>,
    /// Where in the repository the agent works.
    pub working_directory: Option<WorkingDirectory>,
    /// The folder of the platform repository that holds `.taskmaster`.
    pub docs_directory: Option<WorkingDirectory>,
    /// The base branch.
    pub branch: Option<BranchName>,
    /// Commands that run before the agent.
    pub setup: Option<Vec<String>>,
    /// Commands that must succeed on the agent's work.
    pub verify: Option<Vec<String>>,
    /// The MCP servers by name.
    pub mcp_servers: Option<Vec<String>>,
    /// What a run may use up.
    pub limits: LimitSettings,
    /// Whether a pull request is wanted.
    pub pull_request: Option<PullRequestPolicy>,
    /// What is removed from the working tree between two tasks.
    pub clean: Option<CleanMode>,
    /// Paths (gitignore patterns) that a run may not change.
    pub protected_paths: Option<Vec<String>>,
    /// How many commits of history are fetched.
    pub depth: Option<u32>,
    /// The container image that its runs use, where they run in containers.
    pub image: Option<ImageReference>,
    /// A folder with one file for each secret that MCP servers ask for; it is used instead of the
    /// one in `[secrets]`.
    pub secrets_dir: Option<PathBuf>,
}

/// Limits that were given; the others keep their defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Minutes of wall time.
    pub timeout_minutes: Option<f64>,
    /// Minutes without any output of the agent.
    pub idle_minutes: Option<f64>,
    /// Agent turns.
    pub turns: Option<u32>,
    /// US dollars.
    pub cost_usd: Option<f64>,
    /// Minutes to wait while another run holds the workspace.
    pub queue_minutes: Option<f64>,
    /// Minutes that all verify commands together may take.
    pub verify_minutes: Option<f64>,
}

impl LimitSettings {
    /// Puts the limits that were given over others.
    #[must_use]
    pub fn over(self, under: Limits) -> Limits {
        let Self { timeout_minutes: minutes, idle_minutes, turns, cost_usd, queue_minutes, verify_minutes } =
            self;
        Limits {
            timeout_minutes: minutes.unwrap_or(under.timeout_minutes),
            idle_minutes: idle_minutes.unwrap_or(under.idle_minutes),
            turns: turns.or(under.turns),
            cost_usd: cost_usd.or(under.cost_usd),
            queue_minutes: queue_minutes.unwrap_or(under.queue_minutes),
            verify_minutes: verify_minutes.unwrap_or(under.verify_minutes),
        }
    }
}

/// What is known of one agent, credentials apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentProfile {
    /// The account on the git host.
    pub github_user: Option<String>,
    /// The name on commits.
    pub commit_name: Option<String>,
    /// The e-mail address on commits.
    pub commit_email: Option<String>,
}
