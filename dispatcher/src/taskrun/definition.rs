//! The TaskRun resource: the specification of one run.
//!
//! Names, URLs and limits are those of the contract; [`super::convert`] converts without loss.

use kube::CustomResource;
use orchestrator_contract::task::{self, CleanMode, CommitIdentity, Mode, PullRequestPolicy};
use orchestrator_contract::{
    AgentName, BranchName, Kind, Phase, RepositoryUrl, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{TaskRunStatus, any_object};
use crate::task::image::ImageReference;
use crate::task::stop_mode::StopMode;

/// One attempt at a task. All fields except `stop` are immutable.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "orchestrator.io",
    version = "v1alpha1",
    kind = "TaskRun",
    plural = "taskruns",
    shortname = "tr",
    category = "orchestrator",
    namespaced,
    derive = "PartialEq",
    status = "TaskRunStatus",
    selectable = ".spec.service",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Task", type_ = "integer", json_path = ".spec.taskId"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agent"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".spec.attempt"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "PR", type_ = "string", json_path = ".status.pullRequest"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Activity", type_ = "string", json_path = ".status.activity", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::duplicated_attributes, reason = "each column has a name, a type and a path")]
pub struct TaskRunSpec {
    /// Kind of the run.
    #[serde(default)]
    pub kind: Kind,
    /// Service whose workspace the run uses.
    pub service: ServiceName,
    /// Agent that runs the task.
    #[serde(default = "default_agent")]
    pub agent: AgentName,
    /// Number of the task; omitted by docs runs that cover all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// Attempt number, starting at 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub attempt: u32,
    /// Relation of this attempt to earlier ones.
    #[serde(default)]
    pub mode: Mode,
    /// Model name or alias, as the Claude Code CLI accepts it.
    #[serde(default = "default_model")]
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^[^\s-]\S*$"))]
    pub model: String,
    /// Options of docs runs; not allowed for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<DocsOptions>,
    /// Extra instructions for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub guidance: Option<String>,
    /// Repository to change.
    pub target: Target,
    /// Platform repository, which holds the task documents.
    pub platform: Platform,
    /// Account on the git host; defaults to the name of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub github_user: Option<String>,
    /// Author name and email of commits; defaults to those of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_identity: Option<CommitIdentity>,
    /// Limits of the run.
    #[serde(default)]
    pub limits: Limits,
    /// Commands to run before the agent starts, in its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Commands that must succeed on the committed work; they get no credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<String>,
    /// Directories to keep from one verification to the next for speed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify_keep: Vec<WorkingDirectory>,
    /// Names of the MCP servers; defaults to those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<String>>,
    /// Whether to open a pull request.
    #[serde(default)]
    pub pull_request: PullRequestPolicy,
    /// Which files to remove from the worktree between tasks.
    #[serde(default)]
    pub clean: CleanMode,
    /// Paths that the run may not change, as gitignore patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths: Vec<String>,
    /// Paths of CI workflows that the run may change, as gitignore patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths_allow: Vec<String>,
    /// Image of the agent and of verify commands; defaults to that of the controller's configuration. It gets no Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageReference>,
    /// The original request, which a retry starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub request: Option<serde_json::Value>,
    /// Stops the run; cannot be unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopMode>,
}

/// Options of a docs run.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DocsOptions {
    /// Whether to rewrite existing documents.
    pub force: bool,
    /// Maximum number of concurrent sessions.
    #[schemars(range(min = 1, max = 16))]
    pub concurrency: u32,
}

impl Default for DocsOptions {
    fn default() -> Self {
        let task::DocsOptions { force, concurrency } = task::DocsOptions::default();
        Self { force, concurrency }
    }
}

/// Repository to change.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// URL of the repository, over https or ssh.
    pub url: RepositoryUrl,
    /// Base branch; defaults to the default branch of the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BranchName>,
    /// Directory that the agent works in; by default, found by the name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<WorkingDirectory>,
    /// Number of commits of history to fetch.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub depth: u32,
}

/// Platform repository, which holds the task documents.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// URL of the repository, over https or ssh.
    pub url: RepositoryUrl,
    /// Branch; defaults to the default branch of the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// Directory that contains `.taskmaster`; searched for by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs_directory: Option<WorkingDirectory>,
}

/// Limits of a run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Maximum wall time, in minutes.
    #[schemars(range(min = 0.01, max = 10_080.0))]
    pub timeout_minutes: f64,
    /// Maximum time without agent output, in minutes.
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub idle_minutes: f64,
    /// Maximum number of agent turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub turns: Option<u32>,
    /// Maximum cost in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 1_000_000.0))]
    pub cost_usd: Option<f64>,
    /// Maximum time in the queue, in minutes.
    #[schemars(range(min = 0.0, max = 10_080.0))]
    pub queue_minutes: f64,
    /// Maximum time for all verify commands together, in minutes.
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub verify_minutes: f64,
    /// Maximum time to wait for the end of a usage limit of the model, all waits together, in minutes.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0.0, max = 1_440.0))]
    pub wait_for_quota_minutes: f64,
}

/// Whether a limit is left out: an older resource definition does not know it.
fn is_zero(minutes: &f64) -> bool {
    *minutes == 0.0
}

impl Default for Limits {
    fn default() -> Self {
        task::Limits::default().into()
    }
}

fn default_agent() -> AgentName {
    #[expect(clippy::unwrap_used, reason = "a constant that a test checks")]
    AgentName::new(crate::task::request::DEFAULT_AGENT).unwrap()
}

fn default_model() -> String {
    "sonnet".to_owned()
}

fn default_depth() -> u32 {
    1
}

impl TaskRun {
    /// Returns the phase; `Pending` before the controller writes a status.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending)
    }

    /// Returns the name; empty before the API server assigns one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the task key that this run is an attempt of.
    #[must_use]
    pub fn task_key(&self) -> TaskKey {
        let TaskRunSpec { kind, service, agent, task_id, .. } = &self.spec;
        TaskKey { kind: *kind, service: service.clone(), agent: agent.clone(), task: *task_id }
    }

    /// Returns the requested stop mode, if any; deletion requests a graceful stop.
    #[must_use]
    pub fn requested_stop(&self) -> Option<StopMode> {
        self.spec.stop.or(self.metadata.deletion_timestamp.as_ref().map(|_| StopMode::Graceful))
    }
}
