//! How a run ended, in full. The reader tolerates fields it does not know.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{AgentName, Kind, RunName, ServiceName, TaskId};
use crate::reason::{Phase, Reason, Retryable};
use crate::step::Step;
use crate::task::TaskSpec;

/// How a run ended.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Outcome {
    /// The contract's version.
    pub version: u32,
    /// The run.
    pub run: RunName,
    /// What the run was for.
    pub kind: Kind,
    /// The service.
    pub service: ServiceName,
    /// Who worked.
    pub agent: AgentName,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The task's title in `tasks.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_title: Option<String>,
    /// The attempt's number.
    pub attempt: u32,
    /// `Succeeded`, `Failed` or `Stopped`.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// The supervisor's exit code.
    pub exit_code: u8,
    /// Whether it makes sense to try again.
    pub retryable: Retryable,
    /// The step in which the end was decided.
    pub step: Step,
    /// One line: cause and next step.
    pub message: String,
    /// Where the work is.
    pub work: Work,
    /// What the work is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Revision>,
    /// The documentation that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Revision>,
    /// Commits of the branch that the base has not.
    #[serde(default)]
    pub commits: u32,
    /// The pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequest>,
    /// What the agent said at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What the service's checks said.
    pub verification: Verification,
    /// What the agent used.
    #[serde(default)]
    pub usage: Usage,
    /// The agent's sessions in this attempt, by id.
    #[serde(default)]
    pub sessions: Vec<String>,
    /// The MCP servers, started or left out.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Tools that the agent was denied, by name.
    #[serde(default)]
    pub denied_tools: Vec<String>,
    /// Where the task's documents came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_sources: Option<DocumentSources>,
    /// What became of each task's documents, in the order of `tasks.json`; only of docs runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docs_results: Vec<DocsResult>,
    /// Authors of commits on the branch other than the agent.
    #[serde(default)]
    pub other_authors: Vec<String>,
    /// What a person should know beyond the message.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Seconds per step.
    #[serde(default)]
    pub steps: Vec<StepTiming>,
    /// When the supervisor began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Where the work is.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Work {
    /// On the remote, only in the workspace, or there is none.
    pub location: WorkLocation,
    /// The branch, or the ref that holds a rescue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// The folder or file in the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// On the remote, only in the workspace, or there is none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkLocation {
    /// The remote's branch has it; its oid was read back.
    Remote,
    /// Only the workspace has it.
    Workspace,
    /// There is no work.
    #[default]
    None,
}

/// A commit of a branch of a repository.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Revision {
    /// The repository.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The commit.
    pub oid: String,
}

/// A pull request, as read back from the host.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PullRequest {
    /// Its page.
    pub url: String,
    /// Its number.
    pub number: u64,
    /// Whether this run opened it.
    pub created: bool,
    /// The commit that the host says it has.
    pub head: String,
}

/// What the agent said at its end. No verdict never means that nothing was needed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Verdict {
    /// The verdict.
    pub status: VerdictStatus,
    /// What was done, in the agent's words.
    pub summary: String,
    /// What the agent needs to know to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

/// The agent's verdict.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictStatus {
    /// The task is implemented.
    Done,
    /// The task was already implemented.
    AlreadyDone,
    /// The agent cannot go on without an answer.
    Blocked,
}

/// What the service's checks said.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Verification {
    /// The result.
    pub status: VerificationStatus,
    /// The commands of the last round.
    #[serde(default)]
    pub commands: Vec<CommandResult>,
}

/// The result of verification.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationStatus {
    /// The service has no verify commands.
    NotConfigured,
    /// The run ended before.
    #[default]
    NotRun,
    /// Every command succeeded.
    Passed,
    /// A command failed.
    Failed,
}

/// One verify command.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct CommandResult {
    /// The command line.
    pub command: String,
    /// Its exit code; none if a signal or the time limit ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long it took.
    pub seconds: f64,
    /// The end of its output, where it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What the agent used in this attempt, by the CLI's own figures.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Usage {
    /// Turns.
    pub turns: u32,
    /// US dollars.
    pub cost_usd: f64,
    /// Tokens and cost by model.
    #[serde(default)]
    pub models: BTreeMap<String, ModelUsage>,
}

/// What one model was used for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ModelUsage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens written to the cache.
    pub cache_creation_tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
}

/// An MCP server, started or left out.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct McpServer {
    /// The name in the configuration.
    pub name: String,
    /// Whether the agent had it.
    pub status: McpStatus,
    /// The server's own name and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How many tools it has.
    #[serde(default)]
    pub tools: u32,
    /// Why it was left out or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether the agent had an MCP server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum McpStatus {
    /// It answered with its tools.
    Connected,
    /// Something it needs is not there.
    Skipped,
    /// It was started and did not answer as it should.
    Failed,
}

/// Where the task's documents came from.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct DocumentSources {
    /// The task's own documents, or only its entry in `tasks.json`.
    pub source: DocumentSource,
    /// The files, relative to the platform repository.
    pub files: Vec<String>,
    /// The tag of `tasks.json`, where it has tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Where the task's documents came from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentSource {
    /// `docs/task-{id}/`.
    Files,
    /// The task's entry in `tasks.json`, because there were no files.
    TaskEntry,
}

/// One step, as it went.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct StepTiming {
    /// The step.
    pub step: Step,
    /// How long it took.
    pub seconds: f64,
    /// Whether it did what it should.
    pub ok: bool,
}

/// What became of one task's documents in a docs run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DocsResult {
    /// The task.
    pub task_id: TaskId,
    /// Its title in `tasks.json`.
    pub title: String,
    /// What became of its documents.
    pub status: DocsStatus,
    /// Why there are none, or what the checks still found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Minutes from the start of its conversation to its end.
    #[serde(default)]
    pub minutes: f64,
    /// The agent's turns.
    #[serde(default)]
    pub turns: u32,
    /// US dollars.
    #[serde(default)]
    pub cost_usd: f64,
    /// Its conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The earlier attempt that wrote the documents, where this one kept them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by_run: Option<RunName>,
}

/// What became of one task's documents.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocsStatus {
    /// Written, checked and committed.
    Written,
    /// They were there and are as they were.
    Unchanged,
    /// The agent could not write them, or the checks refused what it wrote.
    Failed,
    /// The run ended before they were written.
    NotWritten,
}

/// Longest termination message in bytes; Kubernetes allows 4,096 for a pod.
pub const TERMINATION_MESSAGE_MAX_BYTES: usize = 2048;

impl Outcome {
    /// The outcome of a run that ended for this reason, with nothing else known of it yet.
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
            notes: Vec::new(),
            steps: Vec::new(),
            started_at,
            finished_at,
        }
    }

    /// The outcome as JSON of at most [`DIGEST_MAX`] bytes, for the termination message.
    #[must_use]
    pub fn termination_message(&self) -> String {
        let mut limit = 1200;
        loop {
            let message: String = self.message.chars().take(limit).collect();
            let text = serde_json::json!({
                "version": self.version,
                "run": self.run,
                "phase": self.phase,
                "reason": self.reason,
                "exit_code": self.exit_code,
                "message": message,
                "work": self.work,
                "pull_request": self.pull_request.as_ref().map(|pull| &pull.url),
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
