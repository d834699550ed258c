//! A request for a run as the user gave it, before defaults apply.

use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{
    AgentName, BranchName, Kind, RepositoryUrl, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
use serde::{Deserialize, Serialize};

/// Agent of a request that names none.
pub const DEFAULT_AGENT: &str = "claude-agent-1";

/// A request for one run of a task.
///
/// Stored with the run, so that a retry resolves it again and sees changes of the
/// configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Request {
    #[serde(default)]
    pub kind: Kind,
    /// Task number; none for the documents of all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    pub service: ServiceName,
    pub agent: AgentName,
    /// Whether this is a first attempt, a retry or a fresh start.
    pub mode: Mode,
    #[serde(default)]
    pub overrides: Overrides,
}

/// Options that replace configured defaults or those of the earlier attempt.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Overrides {
    /// Claude model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Base branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// Extra instructions for the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<String>,
    /// Target repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_url: Option<RepositoryUrl>,
    /// Repository that holds `.taskmaster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_repository_url: Option<RepositoryUrl>,
    /// Branch of the platform repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_branch: Option<BranchName>,
    /// Directory of the platform repository that holds `.taskmaster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs_directory: Option<WorkingDirectory>,
    /// Account on the git host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_user: Option<String>,
    /// Directory of the target repository that the agent works in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<WorkingDirectory>,
    /// Maximum wall time in minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_minutes: Option<f64>,
    /// Maximum cost in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Maximum number of turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    /// Maximum minutes to wait for the end of a usage limit of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for_quota_minutes: Option<f64>,
    /// Verification commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<String>>,
    /// Commands to run before the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Vec<String>>,
    /// Whether to open a pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestPolicy>,
    /// Whether a docs run rewrites existing documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Concurrent sessions of a docs run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

impl Request {
    /// Returns the key whose attempts share one counter.
    #[must_use]
    pub fn identity(&self) -> TaskKey {
        TaskKey { kind: self.kind, service: self.service.clone(), agent: self.agent.clone(), task: self.task }
    }
}

impl Overrides {
    /// Returns these options, filled with the earlier ones where unset.
    #[must_use]
    pub fn merged_over(self, earlier: &Self) -> Self {
        let Self {
            model,
            branch,
            guidance,
            repository_url,
            platform_repository_url,
            platform_branch,
            docs_directory,
            github_user,
            working_directory,
            timeout_minutes,
            cost_usd,
            turns,
            wait_for_quota_minutes,
            verify,
            setup,
            pull_request,
            force,
            concurrency,
        } = earlier.clone();
        Self {
            model: self.model.or(model),
            branch: self.branch.or(branch),
            guidance: self.guidance.or(guidance),
            repository_url: self.repository_url.or(repository_url),
            platform_repository_url: self.platform_repository_url.or(platform_repository_url),
            platform_branch: self.platform_branch.or(platform_branch),
            docs_directory: self.docs_directory.or(docs_directory),
            github_user: self.github_user.or(github_user),
            working_directory: self.working_directory.or(working_directory),
            timeout_minutes: self.timeout_minutes.or(timeout_minutes),
            cost_usd: self.cost_usd.or(cost_usd),
            turns: self.turns.or(turns),
            wait_for_quota_minutes: self.wait_for_quota_minutes.or(wait_for_quota_minutes),
            verify: self.verify.or(verify),
            setup: self.setup.or(setup),
            pull_request: self.pull_request.or(pull_request),
            force: self.force.or(force),
            concurrency: self.concurrency.or(concurrency),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_without_kind_parses_as_implementation() {
        let stored = r#"{"task":1,"service":"trader","agent":"claude-agent-1","mode":"retry","overrides":{"turns":3}}"#;
        let request: Request = serde_json::from_str(stored).unwrap();
        assert_eq!((request.kind, request.task), (Kind::Implementation, TaskId::new(1).ok()));
        assert_eq!(request.overrides.turns, Some(3));
    }
}
