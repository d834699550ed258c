//! The structured half of what the tools answer. The text half says the same.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::wording::in_tool_words;
use crate::task::status::Status;

/// A run, as short as it can be said. The outcome in full is a resource.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct RunSummary {
    /// The run's name.
    pub run: String,
    /// The service.
    pub service: String,
    /// Who works.
    pub agent: String,
    /// The task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<u32>,
    /// The task's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_title: Option<String>,
    /// The attempt's number.
    pub attempt: u32,
    /// Pending, Preparing, Running, Publishing, Succeeded, Failed or Stopped.
    pub phase: String,
    /// The step it is in, or ended in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Cause and next step, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it is doing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Since when it does that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_since: Option<String>,
    /// When it was submitted.
    pub submitted_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// How long it has taken.
    pub minutes: f64,
    /// The agent's turns.
    pub turns: u32,
    /// US dollars.
    pub cost_usd: f64,
    /// The feature branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The pull request's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// The repository that is changed.
    pub repository: String,
    /// The folder or volume that holds the work.
    pub workspace: String,
    /// What to do next.
    pub next_step: String,
    /// The cursor of the log's end.
    pub last_event_seq: u64,
}

impl From<&Status> for RunSummary {
    fn from(status: &Status) -> Self {
        let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Self {
            run: status.run.to_string(),
            service: status.service.to_string(),
            agent: status.agent.to_string(),
            task_id: status.task_id.map(u32::from),
            task_title: status.task_title.clone(),
            attempt: status.attempt,
            phase: status.phase.name().to_owned(),
            step: status.step.map(|step| step.name().to_owned()),
            reason: status.reason.map(|reason| reason.name().to_owned()),
            message: status.message.clone(),
            activity: status.activity.clone(),
            activity_since: status.activity_since.map(time),
            submitted_at: time(status.submitted_at),
            finished_at: status.finished_at.map(time),
            minutes: status.minutes,
            turns: status.turns,
            cost_usd: status.cost_usd,
            branch: status.branch.clone(),
            pull_request: status.pull_request.clone(),
            repository: status.repository.clone(),
            workspace: status.workspace.clone(),
            next_step: in_tool_words(&status.next_step),
            last_event_seq: status.last_event_seq,
        }
    }
}

/// The runs of several statuses.
pub(super) fn views<'a>(statuses: impl IntoIterator<Item = &'a Status>) -> Vec<RunSummary> {
    statuses.into_iter().map(RunSummary::from).collect()
}

/// What `submit_implementation_task` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct SubmitOutput {
    /// `new`: a run was started. `already_running`: the same is being done already, nothing was started.
    /// `conflicting_run`: the task is at work with other wishes, nothing was started.
    pub result: String,
    /// The run.
    pub run: RunSummary,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What `get_task_status` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StatusOutput {
    /// The run that is meant; none if several may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSummary>,
    /// The runs that may be meant, where it is not clear.
    pub candidates: Vec<RunSummary>,
}

/// What `list_tasks` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct ListOutput {
    /// The runs, the newest first.
    pub runs: Vec<RunSummary>,
    /// How many more there are.
    pub remaining: usize,
}

/// What `get_task_logs` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct LogsOutput {
    /// The run.
    pub run: String,
    /// Its phase.
    pub phase: String,
    /// The lines.
    pub lines: Vec<String>,
    /// The cursor for what comes after them.
    pub next_cursor: u64,
    /// How many lines there are after them already.
    pub remaining: usize,
    /// How many lines there are before them.
    pub skipped: usize,
}

/// What `wait_for_task` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct WaitOutput {
    /// Whether the run has ended.
    pub finished: bool,
    /// The run.
    pub run: RunSummary,
}

/// What `stop_task` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StopOutput {
    /// `stopped`, `stopping` (it is still saving its work), or `already_finished` (before it was asked).
    pub state: String,
    /// The run.
    pub run: RunSummary,
}
