//! The TaskRun: one run, as a cluster keeps it.
//!
//! What is said here about names, addresses and limits is the contract's; a
//! task goes to and fro without loss ([`TaskRunSpec::of`], [`TaskRun::task`]).

mod schema;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use orchestrator_contract::names::Transport;
use orchestrator_contract::outcome::Work;
use orchestrator_contract::reason::Retryable;
use orchestrator_contract::task::{CleanMode, CommitIdentity, FieldError, Mode, PullRequestPolicy};
use orchestrator_contract::{
    AgentName, BranchName, Kind, Phase, Reason, RepositoryUrl, RunName, ServiceName, Step, TaskId, TaskSpec,
    WorkingDirectory, task,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use schema::definition;

use crate::task::image::ImageReference;

/// The labels that say which run an object belongs to: a run's identity.
pub mod labels {
    /// The run.
    pub const RUN: &str = "orchestrator.io/run";
    /// The service.
    pub const SERVICE: &str = "orchestrator.io/service";
    /// Who works.
    pub const AGENT: &str = "orchestrator.io/agent";
    /// The task; not on docs runs over all tasks.
    pub const TASK: &str = "orchestrator.io/task";
    /// The attempt's number.
    pub const ATTEMPT: &str = "orchestrator.io/attempt";
    /// What the run is for.
    pub const KIND: &str = "orchestrator.io/kind";
    /// On pods whose agent may look at the cluster.
    pub const CLUSTER_ACCESS: &str = "orchestrator.io/cluster-access";
}

/// Keeps a TaskRun until its work is saved.
pub const TASKRUN_FINALIZER: &str = "orchestrator.io/work";

/// One attempt at one task. Nothing but `stop` can be changed.
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
    /// What the run is for.
    #[serde(default)]
    pub kind: Kind,
    /// The service whose workspace is used.
    pub service: ServiceName,
    /// Who works.
    #[serde(default = "default_agent")]
    pub agent: AgentName,
    /// The task; none for the documents of all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The attempt's number, from 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub attempt: u32,
    /// How this attempt relates to earlier ones.
    #[serde(default)]
    pub mode: Mode,
    /// The model, by any name that the Claude CLI takes.
    #[serde(default = "default_model")]
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^[^\s-]\S*$"))]
    pub model: String,
    /// How documents are written; only for docs runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<DocsOptions>,
    /// What the agent is told beyond the task's documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub guidance: Option<String>,
    /// The code to change.
    pub target: Target,
    /// Where the task's documents are.
    pub platform: Platform,
    /// The account on the git host; the agent's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub github_user: Option<String>,
    /// Name and address on commits; made from the account if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_identity: Option<CommitIdentity>,
    /// What the run may use up.
    #[serde(default)]
    pub limits: Limits,
    /// Commands that run before the agent, as the agent would run them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Commands that must succeed on the agent's work, without credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<String>,
    /// The MCP servers by name; the image's defaults if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<String>>,
    /// Whether a pull request is wanted.
    #[serde(default)]
    pub pull_request: PullRequestPolicy,
    /// What is removed from the working tree between two tasks.
    #[serde(default)]
    pub clean: CleanMode,
    /// Paths (gitignore patterns) that a run may not change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths: Vec<String>,
    /// The container image; the controller's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageReference>,
    /// What was asked for, as it was said: a retry begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub request: Option<serde_json::Value>,
    /// Ends the run; cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopMode>,
}

/// How a run is to be ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// The agent is stopped, its work is saved and pushed.
    Graceful,
    /// The container is ended at once. The work stays in the workspace; the next run saves it.
    Now,
}

/// How a docs run writes documents.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DocsOptions {
    /// Writes documents again that are there.
    pub force: bool,
    /// How many conversations are held at once.
    #[schemars(range(min = 1, max = 16))]
    pub concurrency: u32,
}

impl Default for DocsOptions {
    fn default() -> Self {
        let task::DocsOptions { force, concurrency: at_once } = task::DocsOptions::default();
        Self { force, concurrency: at_once }
    }
}

/// The code to change.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The repository.
    pub url: RepositoryUrl,
    /// The base branch; the remote's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BranchName>,
    /// Where in the repository the agent works; found by the service's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<WorkingDirectory>,
    /// How many commits of history are fetched.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub depth: u32,
}

/// Where the task's documents are.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// The repository.
    pub url: RepositoryUrl,
    /// The branch; the remote's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// The folder that holds `.taskmaster`; looked for if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs_directory: Option<WorkingDirectory>,
}

/// What a run may use up.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Minutes of wall time.
    #[schemars(range(min = 0.01, max = 10_080.0))]
    pub timeout_minutes: f64,
    /// Minutes without any output of the agent.
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub idle_minutes: f64,
    /// Agent turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub turns: Option<u32>,
    /// US dollars, by the CLI's own figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 1_000_000.0))]
    pub cost_usd: Option<f64>,
    /// Minutes to wait for the service's workspace.
    #[schemars(range(min = 0.0, max = 10_080.0))]
    pub queue_minutes: f64,
    /// Minutes that all verify commands together may take.
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub verify_minutes: f64,
}

impl Default for Limits {
    fn default() -> Self {
        task::Limits::default().into()
    }
}

/// Where a run stands. Every figure and reason is the supervisor's own, or what the cluster says of its pod.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunStatus {
    /// The generation of the specification that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Why it ended, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The exit code that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether it makes sense to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<Retryable>,
    /// Why it ended or what it waits for, and what to do next, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its place among those that wait: 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// Whom it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// The last thing that the run or the agent did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_since: Option<Timestamp>,
    /// The agent's turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<i32>,
    /// US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The pull request's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// Where the work is, once the run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// When its container began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it was asked to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_request_time: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// The number of the last event that was seen: a cursor for the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_seq: Option<i64>,
    /// The time of that event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_time: Option<Timestamp>,
    /// When progress was last written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Timestamp>,
    /// The ConfigMap that keeps outcome and log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_config_map_name: Option<String>,
    /// The outcome in full, in the contract's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub outcome: Option<serde_json::Value>,
    /// `Admitted`: it has its turn. `Complete`: it has ended. `Succeeded`: how.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

fn default_agent() -> AgentName {
    // The name is valid, as a test shows; another could not be made up here.
    #[expect(clippy::unwrap_used, reason = "a constant that a test checks")]
    AgentName::new(crate::task::request::DEFAULT_AGENT).unwrap()
}

fn default_model() -> String {
    "sonnet".to_owned()
}

fn default_depth() -> u32 {
    1
}

impl From<task::Limits> for Limits {
    fn from(limits: task::Limits) -> Self {
        let task::Limits {
            timeout_minutes: minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes,
            verify_minutes,
        } = limits;
        Self { timeout_minutes: minutes, idle_minutes, turns, cost_usd, queue_minutes, verify_minutes }
    }
}

impl From<Limits> for task::Limits {
    fn from(limits: Limits) -> Self {
        let Limits { timeout_minutes: minutes, idle_minutes, turns, cost_usd, queue_minutes, verify_minutes } =
            limits;
        Self { timeout_minutes: minutes, idle_minutes, turns, cost_usd, queue_minutes, verify_minutes }
    }
}

impl TaskRunSpec {
    /// The specification of a task's run.
    #[must_use]
    pub fn of(task: &TaskSpec, image: Option<ImageReference>, request: Option<serde_json::Value>) -> Self {
        let TaskSpec {
            version: _,
            run: _,
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs,
            guidance,
            target: task::Target { url, base, working_directory, depth },
            platform: task::Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits,
            setup,
            verify,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
        } = task.clone();
        Self {
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs: docs.map(|task::DocsOptions { force, concurrency: at_once }| DocsOptions {
                force,
                concurrency: at_once,
            }),
            guidance,
            target: Target { url, base, working_directory, depth },
            platform: Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits: limits.into(),
            setup,
            verify,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
            image,
            request,
            stop: None,
        }
    }
}

impl TaskRun {
    /// What the supervisor is asked to do.
    ///
    /// # Errors
    /// What is wrong with it beyond the form of its fields, which the API server has checked.
    pub fn task(&self) -> Result<TaskSpec, Vec<FieldError>> {
        let TaskRunSpec {
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs,
            guidance,
            target: Target { url, base, working_directory, depth },
            platform: Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits,
            setup,
            verify,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
            image: _,
            request: _,
            stop: _,
        } = self.spec.clone();
        let name = self.metadata.name.clone().unwrap_or_default();
        let run = RunName::new(name).map_err(|error| {
            vec![FieldError { field: "metadata.name".to_owned(), message: error.to_string() }]
        })?;
        let task = TaskSpec {
            version: orchestrator_contract::VERSION,
            run,
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs: docs.map(|DocsOptions { force, concurrency: at_once }| task::DocsOptions {
                force,
                concurrency: at_once,
            }),
            guidance,
            target: task::Target { url, base, working_directory, depth },
            platform: task::Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits: limits.into(),
            setup,
            verify,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
        };
        let mut faults = task.validate();
        for (field, url) in [("target.url", &task.target.url), ("platform.url", &task.platform.url)] {
            if url.transport() == Transport::Local {
                let problem = "is a path, which no pod can reach: give an https or ssh address".to_owned();
                faults.push(FieldError { field: field.to_owned(), message: problem });
            }
        }
        if faults.is_empty() { Ok(task) } else { Err(faults) }
    }

    /// The phase, as far as it is known.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending)
    }

    /// The name; empty before the API server has given one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether somebody wants it to end, and how: deleting it is asking for an orderly end.
    #[must_use]
    pub fn requested_stop(&self) -> Option<StopMode> {
        self.spec.stop.or(self.metadata.deletion_timestamp.as_ref().map(|_| StopMode::Graceful))
    }
}

#[cfg(test)]
mod tests;
