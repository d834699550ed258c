//! The status of a run: one value for the command line and for every client.

use jiff::Timestamp;
use orchestrator_contract::outcome::Work;
use orchestrator_contract::reason::Retryable;
use orchestrator_contract::{
    AgentName, Kind, Outcome, Phase, Reason, RunName, ServiceName, Step, TaskId, TaskSpec, figures,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::advice::Advice;
use super::event_fold::RunSnapshot;

/// The status of a run, as `status -o json` prints it.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Status {
    /// Name of the run.
    pub run: RunName,
    /// Whether the run implements a task or writes documents.
    pub kind: Kind,
    /// Service that owns the workspace.
    pub service: ServiceName,
    /// Agent that runs the task.
    pub agent: AgentName,
    /// Task number; none for the documents of all tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// Title of the task in tasks.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_title: Option<String>,
    /// Attempt number.
    pub attempt: u32,
    /// Phase of the run.
    pub phase: Phase,
    /// Current or last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Why the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Exit code of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Whether a retry can succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<Retryable>,
    /// How the run ended, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Current activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// When the activity started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_since: Option<Timestamp>,
    /// What a queued run waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Time of submission.
    pub submitted_at: Timestamp,
    /// Time of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Minutes since submission, until the end.
    pub minutes: f64,
    /// Turns of the agent.
    pub turns: u32,
    /// Cost in US dollars.
    pub cost_usd: f64,
    /// Feature branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// URL of the pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// Where a finished run's work is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// URL of the target repository.
    pub repository: String,
    /// Directory or volume of the workspace.
    pub workspace: String,
    /// What to do next, with commands of the command line.
    #[schemars(with = "String")]
    pub next_step: Advice,
    /// Number of the last event: a cursor for the log.
    pub last_event_seq: u64,
    /// Full outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Box<Outcome>>,
}

/// A run whose record cannot be read.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct DamagedRun {
    /// Name of the run, or of its folder or container.
    pub run: String,
    /// Why it cannot be read.
    pub problem: String,
}

/// What the backend knows about a run, apart from its events.
#[derive(Clone, Debug)]
pub struct RunInfo<'a> {
    pub task: &'a TaskSpec,
    pub submitted_at: Timestamp,
    /// Directory or volume of the workspace.
    pub workspace: String,
    /// When the run was first observed as lost.
    pub lost_at: Option<Timestamp>,
    /// Last line of the supervisor's stderr.
    pub last_stderr_line: Option<String>,
}

impl Status {
    /// Returns minutes, turns and cost as people read them.
    #[must_use]
    pub fn usage_text(&self) -> String {
        let unconfirmed = self.outcome.as_ref().map_or(0.0, |outcome| outcome.usage.unconfirmed_usd);
        let more = if unconfirmed >= 0.005 {
            format!(" (answers that were cut may have cost up to {} more)", figures::cost(unconfirmed))
        } else {
            String::new()
        };
        format!("{}{more}", figures::usage(self.minutes * 60.0, self.turns, self.cost_usd))
    }

    /// Combines what the backend knows with what the events say.
    #[must_use]
    pub fn compose(info: &RunInfo<'_>, snapshot: RunSnapshot, now: Timestamp) -> Self {
        let RunInfo { task, submitted_at, workspace, lost_at, last_stderr_line } = info;
        let RunSnapshot { phase, step, reason, progress, outcome, last_event_seq, last_time, garbage: _ } =
            snapshot;
        let ended = outcome.as_deref();
        let live = progress.as_ref().filter(|_| !phase.is_final());
        let finished_at =
            ended.map(|outcome| outcome.finished_at).or(reason.and(lost_at.or(last_time).or(Some(now))));
        let turns = ended.map(|outcome| outcome.usage.turns).or(progress.as_ref().map(|p| p.turns));
        let cost = ended.map(|outcome| outcome.usage.cost_usd).or(progress.as_ref().map(|p| p.cost_usd));
        let message = match (ended, reason) {
            (Some(outcome), _) => Some(outcome.message.clone()),
            (None, Some(reason)) => {
                Some(ended_message(reason, last_event_seq, workspace, last_stderr_line.as_deref()))
            }
            (None, None) => None,
        };
        Self {
            run: task.run.clone(),
            kind: task.kind,
            service: task.service.clone(),
            agent: task.agent.clone(),
            task_id: task.task_id,
            task_title: ended.and_then(|outcome| outcome.task_title.clone()),
            attempt: task.attempt,
            phase,
            step,
            reason,
            exit_code: ended.map(|outcome| outcome.exit_code).or(reason.map(Reason::exit_code)),
            retryable: ended.map(|outcome| outcome.retryable).or(reason.map(Reason::retryable)),
            message,
            activity: live.map(|progress| progress.activity.clone()),
            activity_since: live.map(|progress| progress.activity_since),
            waiting_for: live
                .filter(|_| phase == Phase::Pending)
                .and_then(|progress| progress.waiting_for.clone()),
            submitted_at: *submitted_at,
            finished_at,
            minutes: minutes_between(*submitted_at, finished_at.unwrap_or(now)),
            turns: turns.unwrap_or_default(),
            cost_usd: figures::round_usd(cost.unwrap_or_default()),
            branch: ended
                .and_then(|outcome| outcome.work.branch.clone())
                .or(progress.as_ref().and_then(|progress| progress.branch.clone())),
            pull_request: ended
                .and_then(|outcome| outcome.pull_request.as_ref())
                .map(|pull_request| pull_request.url.clone()),
            work: ended.map(|outcome| outcome.work.clone()),
            repository: task.target.url.to_string(),
            workspace: workspace.clone(),
            next_step: next_step(&task.run, phase, reason),
            last_event_seq,
            outcome,
        }
    }

    /// Returns the message without the reason's hint, which `next_step` repeats.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        let message = self.message.as_deref()?;
        let hint = self.reason.map_or("", Reason::hint);
        Some(message.strip_suffix(hint).map_or(message, str::trim_end))
    }
}

fn minutes_between(from: Timestamp, to: Timestamp) -> f64 {
    let seconds = to.duration_since(from).as_secs_f64().max(0.0);
    // Two decimals: less would turn 4 seconds into 6.
    (seconds / 0.6).round() / 100.0
}

/// Returns the message for a run whose supervisor exited without an outcome.
fn ended_message(
    reason: Reason,
    last_event_seq: u64,
    workspace: &str,
    last_stderr_line: Option<&str>,
) -> String {
    let when = if last_event_seq == 0 { "before its first event" } else { "without an outcome" };
    // The other reasons do not explain the exit, or the supervisor reports them.
    let why = if reason == Reason::OutOfMemory {
        " because its container ran out of memory"
    } else if reason == Reason::Evicted {
        " because the cluster evicted it"
    } else if reason == Reason::NodeLost {
        " because its node was lost"
    } else {
        ""
    };
    let stderr = last_stderr_line.map_or(String::new(), |line| format!(" (stderr: {line})"));
    format!("the supervisor exited {when}{why}{stderr}; its work is in {workspace}")
}

fn next_step(run: &RunName, phase: Phase, reason: Option<Reason>) -> Advice {
    let run = run.clone();
    let Some(reason) = reason else {
        return match phase {
            Phase::Pending => Advice::WaitForWorkspace(run),
            Phase::Preparing
            | Phase::Running
            | Phase::Publishing
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Stopped => Advice::Follow(run),
        };
    };
    match reason.retryable() {
        Retryable::No | Retryable::AfterReview | Retryable::ReportBug => Advice::Resolve(reason),
        Retryable::WithGuidance => Advice::RetryWithGuidance { run, reason },
        Retryable::Yes | Retryable::Later | Retryable::AfterFix => Advice::Retry { run, reason },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::task::advice::render_for_cli;
    use crate::task::event_fold::{EventFold, LockState};

    const TASK: &str = include_str!("../../../supervisor/contract/samples/task-v1.json");
    const EVENTS: &str = include_str!("../../../supervisor/contract/samples/events-v1.jsonl");

    /// Returns the status after the first `lines` events of the stored sample, at 12:06.
    pub(crate) fn sample(lines: usize, lock: LockState) -> Status {
        let task = TaskSpec::from_json(TASK).unwrap();
        let mut fold = EventFold::new(task.run.clone());
        let bytes: String = EVENTS.split_inclusive('\n').take(lines).collect();
        fold.feed(bytes.as_bytes(), |_, _| {});
        let info = RunInfo {
            task: &task,
            submitted_at: "2026-11-22T11:59:30Z".parse().unwrap(),
            workspace: "/state/workspaces/workspace-trader".to_owned(),
            lost_at: None,
            last_stderr_line: Some("error: out of cheese".to_owned()),
        };
        Status::compose(&info, fold.observe(lock), "2026-11-22T12:06:00Z".parse().unwrap())
    }

    #[test]
    fn supervisor_lost_message_names_work_location() {
        let status = sample(3, LockState::Free);
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::SupervisorLost)));
        insta::assert_snapshot!(status.message.unwrap(), @"the supervisor exited without an outcome (stderr: error: out of cheese); its work is in /state/workspaces/workspace-trader");
        assert_eq!(
            status.next_step,
            Advice::Retry { run: status.run.clone(), reason: Reason::SupervisorLost }
        );
        assert!(
            render_for_cli(&status.next_step)
                .ends_with("`dispatcher retry trader-claude-agent-1-task1-attempt2`.")
        );
    }

    #[test]
    fn externally_observed_end_message_names_cause() {
        let message = |reason| ended_message(reason, 3, "the volume workspace-trader", None);
        insta::assert_snapshot!(message(Reason::OutOfMemory), @"the supervisor exited without an outcome because its container ran out of memory; its work is in the volume workspace-trader");
        insta::assert_snapshot!(message(Reason::SupervisorLost), @"the supervisor exited without an outcome; its work is in the volume workspace-trader");
    }

    #[test]
    fn cause_omits_hint_of_reason() {
        let mut status = sample(5, LockState::Free);
        assert_eq!(status.cause(), Some("pull request #7 is open."));
        status.message = Some("stopped".to_owned());
        assert_eq!(status.cause(), Some("stopped"));
    }

    #[test]
    fn finished_run_duration_does_not_grow() {
        assert_eq!(sample(3, LockState::Held).minutes, 6.5);
        assert_eq!(sample(4, LockState::Free).minutes, 5.5);
    }
}
