//! Settings of services, agents and defaults in the configuration.

use std::path::PathBuf;

use orchestrator_contract::task::{CleanMode, Limits, PullRequestPolicy};
use orchestrator_contract::{AgentName, BranchName, RepositoryUrl, WorkingDirectory};
use schemars::JsonSchema;
use serde::Deserialize;

use super::address;
use super::image::ImageReference;

/// Settings of runs that neither the request nor the service sets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Agent that runs the task (default: `claude-agent-1`).
    pub agent: Option<AgentName>,
    /// Claude model (default: `sonnet`).
    pub model: Option<String>,
    /// Names of further models, in addition to those of the Claude Code CLI.
    pub models: Option<Vec<String>>,
    /// Repository that holds `.taskmaster` (default: the git remote of the working directory).
    #[serde(deserialize_with = "address::deserialize")]
    pub platform_repository_url: Option<RepositoryUrl>,
    /// Branch of the platform repository (default: the default branch of its remote).
    pub platform_branch: Option<BranchName>,
    /// Base branch (default: the default branch of the remote).
    pub branch: Option<BranchName>,
    /// Limits of a run.
    pub limits: LimitSettings,
    /// Commands to run before the agent.
    pub setup: Option<Vec<String>>,
    /// Verification commands, which must succeed on the agent's work.
    pub verify: Option<Vec<String>>,
    /// Directories to keep from one verification to the next for speed, such as `target`.
    pub verify_keep: Option<Vec<WorkingDirectory>>,
    /// Names of the MCP servers for the agent.
    pub mcp_servers: Option<Vec<String>>,
    /// Whether to open a pull request.
    pub pull_request: Option<PullRequestPolicy>,
    /// What to remove from the worktree between two tasks.
    pub clean: Option<CleanMode>,
    /// Paths that a run must not change, as gitignore patterns, in addition to CI workflows.
    pub protected_paths: Option<Vec<String>>,
    /// CI workflows that a run may change, as gitignore patterns, such as `.github/workflows/**`.
    pub protected_paths_allow: Option<Vec<String>>,
    /// Number of commits to fetch.
    pub depth: Option<u32>,
}

/// Settings of one service's runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSettings {
    /// Target repository: the code to change.
    #[serde(deserialize_with = "address::deserialize")]
    pub repository_url: Option<RepositoryUrl>,
    /// Directory of the target repository that the agent works in.
    pub working_directory: Option<WorkingDirectory>,
    /// Directory of the platform repository that holds `.taskmaster`.
    pub docs_directory: Option<WorkingDirectory>,
    /// Base branch.
    pub branch: Option<BranchName>,
    /// Commands to run before the agent.
    pub setup: Option<Vec<String>>,
    /// Verification commands, which must succeed on the agent's work.
    pub verify: Option<Vec<String>>,
    /// Directories to keep from one verification to the next for speed, such as `target`.
    pub verify_keep: Option<Vec<WorkingDirectory>>,
    /// Names of the MCP servers for the agent.
    pub mcp_servers: Option<Vec<String>>,
    /// Limits of a run.
    pub limits: LimitSettings,
    /// Whether to open a pull request.
    pub pull_request: Option<PullRequestPolicy>,
    /// What to remove from the worktree between two tasks.
    pub clean: Option<CleanMode>,
    /// Paths that a run must not change, as gitignore patterns, in addition to CI workflows.
    pub protected_paths: Option<Vec<String>>,
    /// CI workflows that a run may change, as gitignore patterns, such as `.github/workflows/**`.
    pub protected_paths_allow: Option<Vec<String>>,
    /// Number of commits to fetch.
    pub depth: Option<u32>,
    /// Container image, for runs in containers.
    pub image: Option<ImageReference>,
    /// Directory with one file for each secret of the MCP servers; replaces `secrets_dir` in
    /// `[secrets]`.
    pub secrets_dir: Option<PathBuf>,
}

/// Limits of a run; unset ones keep their defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Maximum wall time in minutes.
    pub timeout_minutes: Option<f64>,
    /// Maximum minutes without output of the agent.
    pub idle_minutes: Option<f64>,
    /// Maximum number of agent turns.
    pub turns: Option<u32>,
    /// Maximum cost in US dollars.
    pub cost_usd: Option<f64>,
    /// Maximum minutes to wait while another run holds the workspace.
    pub queue_minutes: Option<f64>,
    /// Maximum minutes for all verification commands together.
    pub verify_minutes: Option<f64>,
    /// Maximum minutes to wait for the end of a usage limit of the model, all waits of a run together.
    pub wait_for_quota_minutes: Option<f64>,
}

impl LimitSettings {
    /// Returns `base` with the limits that are set here.
    #[must_use]
    pub fn over(self, base: Limits) -> Limits {
        let Self {
            timeout_minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes,
            verify_minutes,
            wait_for_quota_minutes,
        } = self;
        Limits {
            timeout_minutes: timeout_minutes.unwrap_or(base.timeout_minutes),
            idle_minutes: idle_minutes.unwrap_or(base.idle_minutes),
            turns: turns.or(base.turns),
            cost_usd: cost_usd.or(base.cost_usd),
            queue_minutes: queue_minutes.unwrap_or(base.queue_minutes),
            verify_minutes: verify_minutes.unwrap_or(base.verify_minutes),
            wait_for_quota_minutes: wait_for_quota_minutes.unwrap_or(base.wait_for_quota_minutes),
        }
    }
}

/// Settings of an agent, without its credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentProfile {
    /// Account on the git host.
    pub github_user: Option<String>,
    /// Author name of commits.
    pub commit_name: Option<String>,
    /// Author email address of commits.
    pub commit_email: Option<String>,
}
