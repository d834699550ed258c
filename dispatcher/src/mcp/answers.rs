//! The structured half of what the tools answer. The text half says the same.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::wording::in_tool_words;
use crate::task::status::Status;

/// A run, as short as it can be said. The outcome in full is a resource.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct RunView {
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
    pub doing: Option<String>,
    /// Since when it does that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
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
    pub last_seq: u64,
}

impl From<&Status> for RunView {
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
            doing: status.doing.clone(),
            since: status.since.map(time),
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
            last_seq: status.last_seq,
        }
    }
}

/// The runs of several statuses.
pub(super) fn views<'a>(statuses: impl IntoIterator<Item = &'a Status>) -> Vec<RunView> {
    statuses.into_iter().map(RunView::from).collect()
}

/// What `submit_implementation_task` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct SubmitAnswer {
    /// `new`: a run was started. `already_at_work`: the same is being done already, nothing was started.
    /// `at_work_otherwise`: the task is at work with other wishes, nothing was started.
    pub started: String,
    /// The run.
    pub run: RunView,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What `get_task_status` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StatusAnswer {
    /// The run that is meant; none if several may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunView>,
    /// The runs that may be meant, where it is not clear.
    pub candidates: Vec<RunView>,
}

/// What `list_tasks` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct ListAnswer {
    /// The runs, the newest first.
    pub runs: Vec<RunView>,
    /// How many more there are.
    pub more: usize,
}

/// What `get_task_logs` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct LogsAnswer {
    /// The run.
    pub run: String,
    /// Its phase.
    pub phase: String,
    /// The lines.
    pub lines: Vec<String>,
    /// The cursor for what comes after them.
    pub next: u64,
    /// How many lines there are after them already.
    pub more: usize,
    /// How many lines there are before them.
    pub earlier: usize,
}

/// What `wait_for_task` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct WaitAnswer {
    /// Whether the run has ended.
    pub ended: bool,
    /// The run.
    pub run: RunView,
}

/// What `stop_task` answers.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StopAnswer {
    /// `stopped`, `stopping` (it is still saving its work), or `had_ended` (before it was asked).
    pub state: String,
    /// The run.
    pub run: RunView,
}
