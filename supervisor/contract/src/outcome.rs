//! Outcomes: the full result of a run. Readers ignore unknown fields.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{AgentName, Kind, RunName, ServiceName, TaskId};
use crate::reason::{Phase, Reason, Retryable};
use crate::step::Step;
use crate::task::TaskSpec;

/// Full result of a run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Outcome {
    /// Contract version: 1.
    pub version: u32,
    /// Name of the run.
    pub run: RunName,
    /// Kind of the run: implementation or docs.
    pub kind: Kind,
    /// Service that owns the workspace.
    pub service: ServiceName,
    /// Agent that ran the task.
    pub agent: AgentName,
    /// Task in `tasks.json`; absent for a docs run over all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// Title of the task in `tasks.json`; absent if the run ended before reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_title: Option<String>,
    /// Attempt number, starting at 1.
    pub attempt: u32,
    /// Final phase: `Succeeded`, `Failed` or `Stopped`.
    pub phase: Phase,
    /// Why the run ended.
    pub reason: Reason,
    /// Exit code of the supervisor; determined by the reason.
    pub exit_code: u8,
    /// Whether and when a retry can succeed; determined by the reason.
    pub retryable: Retryable,
    /// Step in which the reason arose.
    pub step: Step,
    /// Cause and advice in one line.
    pub message: String,
    /// Location of the agent's work.
    pub work: Work,
    /// Base branch and commit of the work; absent if the run ended before fetching it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Revision>,
    /// Branch and commit of the platform repository that the run used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Revision>,
    /// Directory of the target repository that the agent worked in, `.` for its root; absent in a docs
    /// run, and if the run ended before choosing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Number of commits on the branch that are not on the base.
    #[serde(default)]
    pub commits: u32,
    /// Pull request of the branch, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequest>,
    /// Structured result that the agent returned; absent if it returned none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Result of the service's verify commands.
    pub verification: Verification,
    /// Turns, tokens and cost of this attempt.
    #[serde(default)]
    pub usage: Usage,
    /// Ids of the agent's sessions in this attempt.
    #[serde(default)]
    pub sessions: Vec<String>,
    /// Configured MCP servers and whether the agent could use them.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Sandbox of the agent's programs; absent if the run ended before choosing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// Names of tools that the agent requested and was denied.
    #[serde(default)]
    pub denied_tools: Vec<String>,
    /// Documents that the agent worked from; absent if the run ended before locating them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_sources: Option<DocumentSources>,
    /// Result for each task of a docs run, in the order of `tasks.json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docs_results: Vec<DocsResult>,
    /// Authors of commits on the branch other than the agent, as `Name <email>`.
    #[serde(default)]
    pub other_authors: Vec<String>,
    /// Further remarks for people, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Duration and result of each step, in execution order.
    #[serde(default)]
    pub steps: Vec<StepTiming>,
    /// Time at which the supervisor started (RFC 3339, UTC).
    pub started_at: Timestamp,
    /// Time at which the run finished (RFC 3339, UTC).
    pub finished_at: Timestamp,
}

/// Location of the agent's work.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Work {
    /// Whether the work is on the remote, only in the workspace, or there is none.
    pub location: WorkLocation,
    /// Branch that holds the work, or the ref of work that could not be pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit id of the work, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// Directory or file in the workspace that holds the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Work {
    /// Describes where the work is, to end a sentence; empty if there is none.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.location, &self.branch) {
            (WorkLocation::Remote, Some(branch)) => format!("; the work is on `{branch}`"),
            (WorkLocation::Workspace, _) => {
                let path = self.path.as_deref().unwrap_or_default();
                format!("; the work is kept in the workspace ({path})")
            }
            (WorkLocation::Remote | WorkLocation::None, _) => String::new(),
        }
    }
}

/// Whether the work is on the remote, only in the workspace, or there is none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkLocation {
    /// On the remote branch; the commit id was read back.
    Remote,
    /// Only in the workspace.
    Workspace,
    /// The run produced no work.
    #[default]
    None,
}

/// A commit on a branch of a repository.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Revision {
    /// Repository URL.
    pub url: String,
    /// Branch name, without `refs/heads/`.
    pub branch: String,
    /// Commit id, in hexadecimal.
    pub oid: String,
}

/// A pull request, as read back from the git host.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PullRequest {
    /// URL of its web page.
    pub url: String,
    /// Number in the repository.
    pub number: u64,
    /// Whether this run opened it; false if it existed before.
    pub created: bool,
    /// Commit id of its head as reported by the git host, in hexadecimal.
    pub head: String,
}

/// Structured result that the agent returned when it finished.
///
/// A missing verdict never means that the task was already done.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether the task is done, was already done, or is blocked.
    pub status: VerdictStatus,
    /// Summary of the work, written by the agent.
    pub summary: String,
    /// Question that must be answered before the agent can continue; set if blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

/// Whether a task is done, was already done, or is blocked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictStatus {
    /// The agent implemented the task.
    Done,
    /// The task was already implemented; nothing was changed.
    AlreadyDone,
    /// The agent cannot continue without an answer to its question.
    Blocked,
}

/// Result of the service's verify commands.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Verification {
    /// Overall result.
    pub status: VerificationStatus,
    /// Commit that was verified, in hexadecimal; absent if the commands did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Commands of the last verification, in execution order.
    #[serde(default)]
    pub commands: Vec<CommandResult>,
    /// Directories that were kept from an earlier verification (`verify_keep`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

/// Overall result of verification.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationStatus {
    /// The service has no verify commands.
    NotConfigured,
    /// No commit was verified: the run ended before, or another commit was published.
    #[default]
    NotRun,
    /// Every command succeeded on the published commit, in a fresh sandbox.
    Passed,
    /// At least one command failed.
    Failed,
}

/// Result of one verify command.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct CommandResult {
    /// Command line, as configured.
    pub command: String,
    /// Exit code; absent if a signal or the time limit ended the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Duration in seconds.
    pub seconds: f64,
    /// Last part of the output, redacted; empty if the command succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// Turns, tokens and cost of one attempt, as counted by the supervisor's model gateway.
///
/// With Bedrock and Vertex, which have no gateway, they are the figures of the Claude Code CLI.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Usage {
    /// Number of agent turns: answered requests of a conversation, without those of sub-agents.
    pub turns: u32,
    /// Cost in US dollars, without `unconfirmed_usd`.
    pub cost_usd: f64,
    /// Most that requests without a complete answer can have cost, in US dollars.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unconfirmed_usd: f64,
    /// Tokens and cost by model id.
    #[serde(default)]
    pub models: BTreeMap<String, ModelUsage>,
    /// Number of requests that the gateway refused.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refused_requests: u32,
    /// Date of the price table (`YYYY-MM-DD`); absent if the figures are those of the CLI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices_as_of: Option<String>,
    /// Number of agent turns as reported by the Claude Code CLI; not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli_turns: Option<u32>,
    /// Cost in US dollars as reported by the Claude Code CLI; not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli_cost_usd: Option<f64>,
}

/// Tokens and cost of one model.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ModelUsage {
    /// Input tokens, without those read from or written to the cache.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens read from the prompt cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to the prompt cache.
    pub cache_creation_tokens: u64,
    /// Number of web searches.
    #[serde(default, skip_serializing_if = "is_default")]
    pub web_searches: u64,
    /// Cost in US dollars.
    pub cost_usd: f64,
}

/// Returns whether a figure is absent from the JSON.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An MCP server and whether the agent could use it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct McpServer {
    /// Name of the server in the configuration.
    pub name: String,
    /// Whether the agent could use the server.
    pub status: McpStatus,
    /// Name and version that the server reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Number of tools that the server offers.
    #[serde(default)]
    pub tools: u32,
    /// Why the server was skipped or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether the agent could use an MCP server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum McpStatus {
    /// The server started and listed its tools.
    Connected,
    /// The server was not started because a requirement, such as a secret, is missing.
    Skipped,
    /// The server failed to start or to list its tools.
    Failed,
}

/// Sandbox of the agent's programs.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Sandbox {
    /// What the sandbox is made of.
    pub kind: SandboxKind,
    /// What it does not separate, or does not allow, on that machine: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// What a sandbox is made of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxKind {
    /// A container of its own, with another user and without secrets.
    Container,
    /// Namespaces of its own: files, processes, devices.
    Namespaces,
    /// Landlock rules and a system call filter.
    Landlock,
    /// Nothing: the programs had the rights of the supervisor's user.
    Off,
}

impl SandboxKind {
    /// Returns the name used in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Off => "off",
        }
    }
}

/// Documents that the agent worked from.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct DocumentSources {
    /// Whether the task has its own documents or only an entry in `tasks.json`.
    pub source: DocumentSource,
    /// Paths of the files, relative to the root of the platform repository.
    pub files: Vec<String>,
    /// Task Master tag that contains the task; absent if `tasks.json` has no tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Source of the documents of a task.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentSource {
    /// The files in `docs/task-{id}/`.
    Files,
    /// The task's entry in `tasks.json`; there are no files.
    TaskEntry,
}

/// Duration and result of one step.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct StepTiming {
    /// Step that was executed.
    pub step: Step,
    /// Duration in seconds.
    pub seconds: f64,
    /// Whether the step succeeded.
    pub ok: bool,
}

/// Result of a docs run for one task.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DocsResult {
    /// Task in `tasks.json`.
    pub task_id: TaskId,
    /// Title of the task in `tasks.json`.
    pub title: String,
    /// Status of the task's documents.
    pub status: DocsStatus,
    /// Problems that the review found, or why no documents were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Duration of the task's session in minutes.
    #[serde(default)]
    pub minutes: f64,
    /// Number of agent turns for this task.
    #[serde(default)]
    pub turns: u32,
    /// Cost for this task in US dollars.
    #[serde(default)]
    pub cost_usd: f64,
    /// Id of the agent session that wrote the documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Earlier run that wrote the documents, if this run kept them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by_run: Option<RunName>,
}

/// Status of one task's documents in a docs run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocsStatus {
    /// Written, reviewed and committed.
    Written,
    /// The documents already existed and were not changed.
    Unchanged,
    /// The agent could not write the documents, or the review rejected them.
    Failed,
    /// The run ended before the documents were written.
    NotWritten,
}

/// Maximum length of the termination message in bytes; Kubernetes limits a container to 4096.
pub const TERMINATION_MESSAGE_MAX_BYTES: usize = 2048;

impl Outcome {
    /// Creates the outcome of a run that ended for `reason`; all other fields are empty.
    #[must_use]
    pub fn new(
        task: &TaskSpec,
        reason: Reason,
        step: Step,
        message: String,
        started_at: Timestamp,
        finished_at: Timestamp,
    ) -> Self {
        Self {
            version: crate::VERSION,
            run: task.run.clone(),
            kind: task.kind,
            service: task.service.clone(),
            agent: task.agent.clone(),
            task_id: task.task_id,
            task_title: None,
            attempt: task.attempt,
            phase: reason.phase(),
            reason,
            exit_code: reason.exit_code(),
            retryable: reason.retryable(),
            step,
            message,
            work: Work::default(),
            base: None,
            platform: None,
            working_directory: None,
            commits: 0,
            pull_request: None,
            verdict: None,
            verification: Verification::default(),
            usage: Usage::default(),
            sessions: Vec::new(),
            mcp_servers: Vec::new(),
            denied_tools: Vec::new(),
            document_sources: None,
            docs_results: Vec::new(),
            other_authors: Vec::new(),
            sandbox: None,
            notes: Vec::new(),
            steps: Vec::new(),
            started_at,
            finished_at,
        }
    }

    /// Returns a summary as JSON of at most [`TERMINATION_MESSAGE_MAX_BYTES`] bytes.
    #[must_use]
    pub fn termination_message(&self) -> String {
        let mut limit = 1200;
        loop {
            let short = |text: &String| text.chars().take(limit).collect::<String>();
            let work = Work {
                location: self.work.location,
                branch: self.work.branch.as_ref().map(short),
                oid: self.work.oid.as_ref().map(short),
                path: self.work.path.as_ref().map(short),
            };
            let text = serde_json::json!({
                "version": self.version,
                "run": self.run,
                "phase": self.phase,
                "reason": self.reason,
                "exit_code": self.exit_code,
                "message": short(&self.message),
                "work": work,
                "pull_request": self.pull_request.as_ref().map(|pull| short(&pull.url)),
                "cost_usd": self.usage.cost_usd,
            })
            .to_string();
            if text.len() <= TERMINATION_MESSAGE_MAX_BYTES || limit == 0 {
                return text;
            }
            limit /= 2;
        }
    }
}
