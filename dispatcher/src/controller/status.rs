//! The status of a TaskRun, put together from what is known.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use orchestrator_contract::outcome::{Work, WorkLocation};
use orchestrator_contract::{Outcome, Phase, Reason};
use serde::Deserialize;

use super::crd::{TaskRun, TaskRunStatus};
use super::objects::pvc_name;
use crate::task::event_fold::RunSnapshot;

/// How often progress is written, at most.
pub const PROGRESS_INTERVAL: SignedDuration = SignedDuration::from_secs(15);

/// The outcome as a container's termination message has it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct TerminationMessage {
    /// The run.
    pub run: String,
    /// Why it ended.
    pub reason: Reason,
    /// One line: cause and next step.
    pub message: String,
    /// Where the work is.
    pub work: Work,
    /// The pull request's page.
    #[serde(default)]
    pub pull_request: Option<String>,
    /// US dollars.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// What ends a run.
#[derive(Clone, Debug, PartialEq)]
pub enum ObservedEnd<'a> {
    /// The supervisor told it in full.
    Outcome(&'a Outcome),
    /// Only its termination message was left.
    TerminationMessage(TerminationMessage),
    /// The supervisor could not tell.
    Inferred {
        /// Why.
        reason: Reason,
        /// Why, in words.
        message: String,
        /// Whether anything can have been made.
        started: bool,
    },
}

/// Writes down that a run has ended.
pub fn set_finished(status: &mut TaskRunStatus, run: &TaskRun, end: &ObservedEnd<'_>, now: Timestamp) {
    status.activity = None;
    status.activity_since = None;
    status.queue_position = None;
    status.waiting_for = None;
    let reason = match end {
        ObservedEnd::Outcome(outcome) => {
            status.step = Some(outcome.step);
            status.message = Some(outcome.message.clone());
            status.turns = i32::try_from(outcome.usage.turns).ok();
            status.cost_usd = Some(outcome.usage.cost_usd);
            status.branch = outcome.work.branch.clone();
            status.pull_request = outcome.pull_request.as_ref().map(|pull_request| pull_request.url.clone());
            status.work = Some(outcome.work.clone());
            status.completion_time = Some(outcome.finished_at);
            status.outcome = serde_json::to_value(outcome).ok();
            outcome.reason
        }
        ObservedEnd::TerminationMessage(digest) => {
            status.message = Some(digest.message.clone());
            status.cost_usd = digest.cost_usd.or(status.cost_usd);
            status.branch = digest.work.branch.clone().or(status.branch.take());
            status.pull_request.clone_from(&digest.pull_request);
            status.work = Some(digest.work.clone());
            digest.reason
        }
        ObservedEnd::Inferred { reason, message, started: worked } => {
            let volume = pvc_name(&run.spec.service);
            // The word's own hint says no more than the message does.
            let hint = if *reason == Reason::SupervisorLost {
                "Retry: whatever is there is saved first."
            } else if *reason == Reason::Stopped && !worked {
                "Retry when it is wanted after all."
            } else {
                reason.hint()
            };
            let (place, path) = if *worked {
                status.message =
                    Some(format!("{message}; whatever it made is in the volume {volume}. {hint}"));
                (WorkLocation::Workspace, Some(volume))
            } else {
                status.message = Some(format!("{message}. {hint}"));
                (WorkLocation::None, None)
            };
            status.work = Some(Work { location: place, branch: None, oid: None, path });
            *reason
        }
    };
    status.completion_time = status.completion_time.or(Some(now));
    status.phase = Some(reason.phase());
    status.reason = Some(reason);
    status.exit_code = Some(i32::from(reason.exit_code()));
    status.retryable = Some(reason.retryable());
    let message = status.message.clone().unwrap_or_default();
    let succeeded = reason.phase() == Phase::Succeeded;
    set_condition(status, run, "Complete", "True", reason.name(), &message, now);
    set_condition(
        status,
        run,
        "Succeeded",
        if succeeded { "True" } else { "False" },
        reason.name(),
        &message,
        now,
    );
}

/// Takes over what the event stream has told, unless that is only progress and was written a moment ago;
/// then says how long to wait.
#[must_use]
pub fn apply_progress(
    status: &mut TaskRunStatus,
    told: &RunSnapshot,
    now: Timestamp,
) -> Option<SignedDuration> {
    let last_event_seq = i64::try_from(told.last_event_seq).unwrap_or(i64::MAX);
    if told.outcome.is_some() || last_event_seq <= status.last_event_seq.unwrap_or_default() {
        return None;
    }
    let old = status.phase.unwrap_or(Phase::Pending);
    let moved = told.phase != old && told.phase > old;
    if let Some(written) = status.last_progress_time.filter(|_| !moved) {
        let rest = PROGRESS_INTERVAL - now.duration_since(written);
        if rest.is_positive() {
            return Some(rest);
        }
    }
    status.phase = Some(told.phase.max(old));
    status.step = told.step.or(status.step);
    if let Some(progress) = &told.progress {
        status.activity = Some(progress.activity.clone());
        status.activity_since = Some(progress.activity_since);
        status.turns = i32::try_from(progress.turns).ok();
        status.cost_usd = Some(progress.cost_usd);
        status.branch = progress.branch.clone().or(status.branch.take());
        status.waiting_for = progress.waiting_for.clone().filter(|_| told.phase == Phase::Pending);
    }
    status.last_event_seq = Some(last_event_seq);
    status.last_event_time = told.last_time;
    status.last_progress_time = Some(now);
    None
}

/// Sets a condition; the time of its last change stays as long as its status does.
pub fn set_condition(
    status: &mut TaskRunStatus,
    run: &TaskRun,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let old = status.conditions.iter().find(|condition| condition.type_ == kind);
    let since = old.filter(|old| old.status == value).map(|old| old.last_transition_time.clone());
    let new = Condition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        // The API server's limit is 32,768 characters.
        message: message.chars().take(2000).collect(),
        observed_generation: run.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match status.conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(condition) => *condition = new,
        None => status.conditions.push(new),
    }
}
