//! Computes the status of a TaskRun. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use orchestrator_contract::outcome::{Work, WorkLocation};
use orchestrator_contract::{Outcome, Phase, Reason};
use serde::Deserialize;

use crate::task::event_fold::RunSnapshot;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::pvc_name;
use crate::taskrun::status::TaskRunStatus;

/// Minimum time between two writes of progress.
pub const PROGRESS_INTERVAL: SignedDuration = SignedDuration::from_secs(15);

/// The outcome, as the termination message of the container abbreviates it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct TerminationMessage {
    /// Name of the run.
    pub run: String,
    /// Why the run ended.
    pub reason: Reason,
    /// Cause and next step, in one line.
    pub message: String,
    /// Location of the work.
    pub work: Work,
    /// URL of the pull request.
    #[serde(default)]
    pub pull_request: Option<String>,
    /// Cost in US dollars.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// How a run ended, and how the controller learned of it.
#[derive(Clone, Debug, PartialEq)]
pub enum ObservedEnd {
    /// The log contains the outcome.
    Outcome(Box<Outcome>),
    /// Only the termination message is available.
    TerminationMessage(TerminationMessage),
    /// The supervisor reported no outcome; the controller inferred the reason.
    Inferred {
        /// Why the run ended.
        reason: Reason,
        /// The reason in one sentence, without final period.
        message: String,
        /// Whether the container started, so that there may be work.
        started: bool,
    },
}

impl ObservedEnd {
    /// Returns why the run ended.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Outcome(outcome) => outcome.reason,
            Self::TerminationMessage(message) => message.reason,
            Self::Inferred { reason, .. } => *reason,
        }
    }

    /// Replaces the reason of a supervisor that was stopped from outside.
    #[must_use]
    pub fn attributed(self, reason: Reason, why: &str) -> Self {
        let why = why.trim_end_matches('.');
        let message = |work: &Work| format!("{why}{}. {}", work.describe(), reason.hint());
        match self {
            Self::Outcome(mut outcome) => {
                outcome.message = message(&outcome.work);
                (outcome.reason, outcome.phase) = (reason, reason.phase());
                (outcome.exit_code, outcome.retryable) = (reason.exit_code(), reason.retryable());
                Self::Outcome(outcome)
            }
            Self::TerminationMessage(end) => {
                Self::TerminationMessage(TerminationMessage { reason, message: message(&end.work), ..end })
            }
            Self::Inferred { started, .. } => Self::Inferred { reason, message: why.to_owned(), started },
        }
    }
}

/// Sets the final status of a run.
pub fn set_finished(status: &mut TaskRunStatus, run: &TaskRun, end: &ObservedEnd, now: Timestamp) {
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
            status.outcome = serde_json::to_value(outcome.as_ref()).ok();
            outcome.reason
        }
        ObservedEnd::TerminationMessage(termination) => {
            status.message = Some(termination.message.clone());
            status.cost_usd = termination.cost_usd.or(status.cost_usd);
            status.branch = termination.work.branch.clone().or(status.branch.take());
            status.pull_request.clone_from(&termination.pull_request);
            status.work = Some(termination.work.clone());
            termination.reason
        }
        ObservedEnd::Inferred { reason, message, started } => {
            let volume = pvc_name(&run.spec.service);
            // The hints of these reasons would repeat the message.
            let hint = if *reason == Reason::SupervisorLost {
                "Retry: the next run saves leftover work first."
            } else if *reason == Reason::Stopped && !started {
                "Retry to run it."
            } else {
                reason.hint()
            };
            let (location, path) = if *started {
                status.message = Some(format!("{message}; any work is in the volume {volume}. {hint}"));
                (WorkLocation::Workspace, Some(volume))
            } else {
                status.message = Some(format!("{message}. {hint}"));
                (WorkLocation::None, None)
            };
            status.work = Some(Work { location, branch: None, oid: None, path });
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

/// Copies a snapshot of the event stream into the status.
///
/// Mere progress is copied at most once per [`PROGRESS_INTERVAL`]; otherwise returns how long to wait.
#[must_use]
pub fn apply_progress(
    status: &mut TaskRunStatus,
    snapshot: &RunSnapshot,
    now: Timestamp,
) -> Option<SignedDuration> {
    let last_event_seq = i64::try_from(snapshot.last_event_seq).unwrap_or(i64::MAX);
    if snapshot.outcome.is_some() || last_event_seq <= status.last_event_seq.unwrap_or_default() {
        return None;
    }
    let old = status.phase.unwrap_or(Phase::Pending);
    let phase_advanced = snapshot.phase != old && snapshot.phase > old;
    if let Some(written) = status.last_progress_time.filter(|_| !phase_advanced) {
        let rest = PROGRESS_INTERVAL - now.duration_since(written);
        if rest.is_positive() {
            return Some(rest);
        }
    }
    status.phase = Some(snapshot.phase.max(old));
    status.step = snapshot.step.or(status.step);
    if let Some(progress) = &snapshot.progress {
        status.activity = Some(progress.activity.clone());
        status.activity_since = Some(progress.activity_since);
        status.turns = i32::try_from(progress.turns).ok();
        status.cost_usd = Some(progress.cost_usd);
        status.branch = progress.branch.clone().or(status.branch.take());
        status.waiting_for = progress.waiting_for.clone().filter(|_| snapshot.phase == Phase::Pending);
    }
    status.last_event_seq = Some(last_event_seq);
    status.last_event_time = snapshot.last_time;
    status.last_progress_time = Some(now);
    None
}

/// Sets a condition; its transition time changes only with its status.
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
