//! The status of a run: one value for the command line and for every client.

use jiff::Timestamp;
use orchestrator_contract::outcome::Work;
use orchestrator_contract::reason::Retryable;
use orchestrator_contract::{
    AgentName, Kind, Outcome, Phase, Reason, RunName, ServiceName, Step, TaskId, TaskSpec,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::event_fold::RunSnapshot;

/// The status of a run.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Status {
    /// The run.
    pub run: RunName,
    /// What it is for.
    pub kind: Kind,
    /// The service.
    pub service: ServiceName,
    /// Who works.
    pub agent: AgentName,
    /// The task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The task's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_title: Option<String>,
    /// The attempt's number.
    pub attempt: u32,
    /// The phase.
    pub phase: Phase,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The exit code that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Whether it makes sense to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<Retryable>,
    /// Cause and next step in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The last thing that the run did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_since: Option<Timestamp>,
    /// Whom it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How long it has taken.
    pub minutes: f64,
    /// The agent's turns.
    pub turns: u32,
    /// US dollars.
    pub cost_usd: f64,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The pull request's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// Where the work is, once the run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The code to change.
    pub repository: String,
    /// The folder that holds the work.
    pub workspace: String,
    /// What to do next.
    pub next_step: String,
    /// The last event's number: a cursor for the log.
    pub last_event_seq: u64,
    /// The outcome in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Box<Outcome>>,
}

/// What the dispatcher itself knows of a run.
#[derive(Clone, Debug)]
pub struct RunInfo<'a> {
    /// The task.
    pub task: &'a TaskSpec,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// The folder that holds the work.
    pub workspace: String,
    /// When it was found to be lost.
    pub lost_at: Option<Timestamp>,
    /// The last thing the supervisor complained about.
    pub last_stderr_line: Option<String>,
}

impl Status {
    /// Puts together what is known and what was observed.
    #[must_use]
    pub fn compose(known: &RunInfo<'_>, observed: RunSnapshot, now: Timestamp) -> Self {
        let RunInfo { task, submitted_at, workspace, lost_at, last_stderr_line: complaint } = known;
        let RunSnapshot { phase, step, reason, progress, outcome, last_event_seq, last_time, garbage: _ } =
            observed;
        let ended = outcome.as_deref();
        let live = progress.as_ref().filter(|_| !phase.is_final());
        let finished_at =
            ended.map(|outcome| outcome.finished_at).or(reason.and(lost_at.or(last_time).or(Some(now))));
        let turns = ended.map(|outcome| outcome.usage.turns).or(progress.as_ref().map(|p| p.turns));
        let cost = ended.map(|outcome| outcome.usage.cost_usd).or(progress.as_ref().map(|p| p.cost_usd));
        let message = match (ended, reason) {
            (Some(outcome), _) => Some(outcome.message.clone()),
            (None, Some(reason)) => {
                Some(ended_message(reason, last_event_seq, workspace, complaint.as_deref()))
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
            cost_usd: cost.unwrap_or_default(),
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
}

fn minutes_between(from: Timestamp, to: Timestamp) -> f64 {
    let seconds = to.duration_since(from).as_secs_f64().max(0.0);
    (seconds / 6.0).round() / 10.0
}

/// What is said of an end that only the dispatcher saw.
fn ended_message(reason: Reason, last_event_seq: u64, workspace: &str, complaint: Option<&str>) -> String {
    let when = if last_event_seq == 0 { "before it said anything" } else { "without an outcome" };
    // The other reasons say nothing of how it ended, or come from the supervisor itself.
    let why = if reason == Reason::OutOfMemory {
        " because its container ran out of memory"
    } else if reason == Reason::Evicted {
        " because the cluster evicted it"
    } else if reason == Reason::NodeLost {
        " because its node was lost"
    } else {
        ""
    };
    let complaint = complaint.map_or(String::new(), |text| format!(" (its last words: {text})"));
    format!("the supervisor ended {when}{why}{complaint}; whatever it made is in {workspace}")
}

fn next_step(run: &RunName, phase: Phase, reason: Option<Reason>) -> String {
    let Some(reason) = reason else {
        return match phase {
            Phase::Pending => format!("It waits for its turn: dispatcher wait {run}"),
            Phase::Preparing
            | Phase::Running
            | Phase::Publishing
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Stopped => format!("Follow it: dispatcher logs -f {run}"),
        };
    };
    let hint = reason.hint();
    match reason.retryable() {
        Retryable::No | Retryable::AfterReview | Retryable::ReportBug => hint.to_owned(),
        Retryable::WithGuidance => format!("{hint} dispatcher retry {run} --guidance \"...\""),
        Retryable::Yes | Retryable::Later | Retryable::AfterFix => {
            format!("{hint} dispatcher retry {run}")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::task::event_fold::{EventFold, LockState};

    const TASK: &str = include_str!("../../../supervisor/contract/samples/task-v1.json");
    const EVENTS: &str = include_str!("../../../supervisor/contract/samples/events-v1.jsonl");

    /// The status after the first `lines` events of the stored sample, at 12:06.
    pub(crate) fn sample(lines: usize, lock: LockState) -> Status {
        let task = TaskSpec::from_json(TASK).unwrap();
        let mut story = EventFold::new(task.run.clone());
        let bytes: String = EVENTS.split_inclusive('\n').take(lines).collect();
        story.feed(bytes.as_bytes(), |_, _| {});
        let known = RunInfo {
            task: &task,
            submitted_at: "2026-11-22T11:59:30Z".parse().unwrap(),
            workspace: "/state/workspaces/workspace-trader".to_owned(),
            lost_at: None,
            last_stderr_line: Some("error: out of cheese".to_owned()),
        };
        Status::compose(&known, story.observe(lock), "2026-11-22T12:06:00Z".parse().unwrap())
    }

    #[test]
    fn supervisor_lost_message_names_work_location() {
        let status = sample(3, LockState::Free);
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::SupervisorLost)));
        insta::assert_snapshot!(status.message.unwrap(), @"the supervisor ended without an outcome (its last words: error: out of cheese); whatever it made is in /state/workspaces/workspace-trader");
        insta::assert_snapshot!(status.next_step, @"The supervisor exited without an outcome; the work is in the workspace, and a retry saves it first. dispatcher retry trader-claude-agent-1-task1-attempt2");
    }

    #[test]
    fn externally_observed_end_message_names_cause() {
        let said = |reason| ended_message(reason, 3, "the volume workspace-trader", None);
        insta::assert_snapshot!(said(Reason::OutOfMemory), @"the supervisor ended without an outcome because its container ran out of memory; whatever it made is in the volume workspace-trader");
        insta::assert_snapshot!(said(Reason::SupervisorLost), @"the supervisor ended without an outcome; whatever it made is in the volume workspace-trader");
    }

    #[test]
    fn finished_run_duration_does_not_grow() {
        assert_eq!(sample(3, LockState::Held).minutes, 6.5);
        assert_eq!(sample(4, LockState::Free).minutes, 5.5);
    }
}
