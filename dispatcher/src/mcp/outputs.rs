//! Structured output of the tools; the text output has the same content.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::text::render_for_mcp;
use crate::task::diff::FileDiff;
use crate::task::status::{DamagedRun, Status};

/// Summary of a run; the full outcome is a resource.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct RunSummary {
    /// Run name.
    pub run: String,
    /// Service.
    pub service: String,
    /// Agent that runs the task.
    pub agent: String,
    /// Task number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<u32>,
    /// Task title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_title: Option<String>,
    /// Attempt number.
    pub attempt: u32,
    /// Phase: Pending, Preparing, Running, Publishing, Succeeded, Failed or Stopped.
    pub phase: String,
    /// Current or last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Reason of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Description of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Current activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Start time of the activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_since: Option<String>,
    /// Submission time.
    pub submitted_at: String,
    /// End time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Minutes since submission, until the end.
    pub minutes: f64,
    /// Number of agent turns.
    pub turns: u32,
    /// Cost in US dollars.
    pub cost_usd: f64,
    /// Feature branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// URL of the pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// URL of the target repository.
    pub repository: String,
    /// Directory or volume of the workspace.
    pub workspace: String,
    /// Recommended next step.
    pub next_step: String,
    /// Cursor of the end of the log.
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
            next_step: render_for_mcp(&status.next_step),
            last_event_seq: status.last_event_seq,
        }
    }
}

/// Summarizes several runs.
pub(super) fn summaries<'a>(statuses: impl IntoIterator<Item = &'a Status>) -> Vec<RunSummary> {
    statuses.into_iter().map(RunSummary::from).collect()
}

/// Output of `submit_implementation_task` and `init_docs`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct SubmitOutput {
    /// `created`: a run was started. `already_running`: the same run is active; nothing was started.
    /// `conflicting_run`: the task is running with other options; nothing was started.
    pub result: String,
    /// Started or active run.
    pub run: RunSummary,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Output of `get_task_status`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StatusOutput {
    /// Selected run; absent if several match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSummary>,
    /// Matching runs, if several match.
    pub candidates: Vec<RunSummary>,
}

/// Output of `list_tasks`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct ListOutput {
    /// Runs, newest first.
    pub runs: Vec<RunSummary>,
    /// Number of further matching runs.
    pub remaining: usize,
    /// Runs with a record that cannot be read; only without a filter.
    pub damaged: Vec<DamagedRun>,
}

/// Output of `get_task_logs`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct LogsOutput {
    /// Run name.
    pub run: String,
    /// Phase of the run.
    pub phase: String,
    /// Log lines.
    pub lines: Vec<String>,
    /// Cursor for the next page.
    pub next_cursor: u64,
    /// Number of lines after these.
    pub remaining: usize,
    /// Number of lines before these.
    pub skipped: usize,
}

/// Output of `get_task_diff`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct DiffOutput {
    /// Run name.
    pub run: String,
    /// Branch of the changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Changed files, at most 100, with long paths shortened.
    pub files: Vec<FileDiff>,
    /// Number of further changed files; `path` selects some of them.
    pub omitted_files: usize,
    /// Whether the record lacks further changes.
    pub truncated: bool,
}

/// Output of `wait_for_task`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct WaitOutput {
    /// Whether the run is finished.
    pub finished: bool,
    /// Awaited run.
    pub run: RunSummary,
}

/// Output of `stop_task`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StopOutput {
    /// `stopped`, `stopping` (the run is still saving its work), or `already_finished`.
    pub state: String,
    /// Stopped run.
    pub run: RunSummary,
}
