//! What somebody asked for, as they said it: nothing is filled in yet.

use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{
    AgentName, BranchName, Kind, RepositoryUrl, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
use serde::{Deserialize, Serialize};

/// Who works if nobody says otherwise.
pub const DEFAULT_AGENT: &str = "claude-agent-1";

/// A request for one run of a task.
///
/// It is kept with the run, so that a retry can be resolved anew against a
/// configuration that was mended in between.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Request {
    /// What the run is for.
    #[serde(default)]
    pub kind: Kind,
    /// The task; none for the documents of all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The service.
    pub service: ServiceName,
    /// Who works.
    pub agent: AgentName,
    /// How this run relates to earlier ones.
    pub mode: Mode,
    /// What was said beyond that.
    #[serde(default)]
    pub overrides: Overrides,
}

/// Everything that a request may leave out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Overrides {
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The base branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// What the agent is told beyond the task's documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<String>,
    /// The code to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_url: Option<RepositoryUrl>,
    /// Where the task documentation is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_repository_url: Option<RepositoryUrl>,
    /// The documentation's branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_branch: Option<BranchName>,
    /// The folder that holds `.taskmaster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs_directory: Option<WorkingDirectory>,
    /// The account on the git host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_user: Option<String>,
    /// Where in the repository the agent works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<WorkingDirectory>,
    /// Minutes of wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_minutes: Option<f64>,
    /// US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Agent turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    /// Commands that must succeed on the agent's work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<String>>,
    /// Commands that run before the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Vec<String>>,
    /// Whether a pull request is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestPolicy>,
    /// Whether documents that are there are written again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// How many conversations of a docs run are held at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

impl Request {
    /// Whose attempts are numbered together.
    #[must_use]
    pub fn identity(&self) -> TaskKey {
        TaskKey { kind: self.kind, service: self.service.clone(), agent: self.agent.clone(), task: self.task }
    }
}

impl Overrides {
    /// These wishes, and the earlier ones where these say nothing.
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
            timeout_minutes: minutes,
            cost_usd,
            turns,
            verify,
            setup,
            pull_request,
            force,
            at_once: concurrency,
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
            timeout_minutes: self.timeout_minutes.or(minutes),
            cost_usd: self.cost_usd.or(cost_usd),
            turns: self.turns.or(turns),
            verify: self.verify.or(verify),
            setup: self.setup.or(setup),
            pull_request: self.pull_request.or(pull_request),
            force: self.force.or(force),
            at_once: self.at_once.or(concurrency),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_without_kind_parses_as_implementation() {
        let kept = r#"{"task":1,"service":"trader","agent":"claude-agent-1","mode":"retry","overrides":{"turns":3}}"#;
        let request: Request = serde_json::from_str(kept).unwrap();
        assert_eq!((request.kind, request.task), (Kind::Implementation, TaskId::new(1).ok()));
        assert_eq!(request.overrides.turns, Some(3));
    }
}
