//! Decides how to reconcile a run: a pure function from observed state to actions.
//!
//! Every action is idempotent, since the controller may crash after any of them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use orchestrator_contract::{Outcome, Phase, Reason};

use super::cluster_state::{ClusterState, JobState, LogStream, PodInfo};
use super::objects::TERMINATION_GRACE_PERIOD_SECONDS;
use super::pod::{PodEnd, PodProblem, PodState};
use super::queue::Admission;
use super::status::{self, ObservedEnd, TerminationMessage, apply_progress, set_condition};
use crate::task::stop_mode::StopMode;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::{TASKRUN_FINALIZER, result_name};
use crate::taskrun::status::{STARTING_MESSAGE, TaskRunStatus};

/// One idempotent change in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Add the finalizer that keeps the TaskRun until its work is saved.
    AddFinalizer,
    /// Record the attempt number, then remove the finalizer of the TaskRun.
    RemoveFinalizer,
    /// Create the workspace PVC if it is missing, and make the run its holder.
    AcquireVolume,
    /// Create the ConfigMap with the task, then the Job.
    CreateJob,
    /// Start to read the log of the pod.
    FollowLogs,
    /// Suspend the Job, which terminates the pod gracefully and prevents another.
    SuspendJob,
    /// Delete the pod with a short grace period.
    DeletePod {
        /// Grace period of the pod.
        grace_seconds: i64,
    },
    /// Remove the finalizer of the terminated pod.
    RemovePodFinalizer,
    /// Create the ConfigMap with outcome and log.
    SaveResult,
    /// Set the TTL of the Job.
    SetJobTtl,
    /// Delete the Job; a suspended Job never finishes, so its TTL never expires.
    DeleteJob,
    /// Record a Kubernetes event.
    RecordEvent {
        /// Whether its type is `Warning`.
        warning: bool,
        /// Reason of the event, in CamelCase.
        reason: &'static str,
        /// Message of the event.
        note: String,
    },
}

/// Actions to perform in order, and the status to write after them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub actions: Vec<Action>,
    /// Status to write once all actions succeed.
    pub status: TaskRunStatus,
    /// When to reconcile again if nothing changes before.
    pub requeue_after: Option<Duration>,
}

/// How long a supervisor that reported its outcome may take to exit.
const EXIT_TIMEOUT: SignedDuration = SignedDuration::from_secs(30);

/// Seconds after its grace period until a pod is lost.
const POD_DELETION_SLACK_SECONDS: i64 = 60;

/// Maximum time between two reconciliations of a queued run.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Grace period of a pod that is stopped with [`StopMode::Now`].
const STOP_NOW_GRACE_SECONDS: i64 = 10;

/// Condition of a run with a sidecar that was restarted.
const RESTARTED: &str = "Restarted";

const ADMITTED_MESSAGE: &str = "the run may start";

const STOPPED_BEFORE_START_MESSAGE: &str = "stopped before the run started; nothing was done";

/// Decides what to do about a run.
#[must_use]
pub fn decide(run: &TaskRun, seen: &ClusterState, now: Timestamp) -> Decision {
    let mut decision = Decision { status: run.status.clone().unwrap_or_default(), ..Decision::default() };
    decision.status.observed_generation = run.metadata.generation;
    let has_finalizer = run.metadata.finalizers.iter().flatten().any(|name| name == TASKRUN_FINALIZER);
    let deleted = run.metadata.deletion_timestamp.is_some();
    if !has_finalizer {
        if !deleted {
            decision.actions.push(Action::AddFinalizer);
        } else if let Some(status) = &run.status {
            // The API server is about to remove it; a status write would fail.
            decision.status = status.clone();
        }
        return decision;
    }
    if !run.phase().is_final() {
        advance(&mut decision, run, seen, now);
        record_transitions(&mut decision, run);
    }
    // Cleanup waits for the next reconciliation, once the final status is persisted.
    if run.phase().is_final() {
        clean_up(&mut decision, run, seen, now);
    }
    decision
}

/// Saves the result of a finished run, then releases its objects.
fn clean_up(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Decision { actions, status, requeue_after } = decision;
    let pod_terminated = matches!(seen.pod, None | Some(PodInfo { state: PodState::Ended(_), .. }));
    if status.result_config_map_name.is_none() && status.job_name.is_some() {
        actions.push(Action::SaveResult);
        status.result_config_map_name = Some(result_name(run.name()));
    }
    // A supervisor that reported its outcome exits.
    let since = status.completion_time.unwrap_or(now);
    if !pod_terminated && status.outcome.is_some() && now.duration_since(since) < EXIT_TIMEOUT {
        *requeue_after = Some(Duration::from_secs(2));
        return;
    }
    if let Some(job) = &seen.job {
        if !pod_terminated && !job.suspended {
            actions.push(Action::SuspendJob);
        }
        if job.suspended && seen.pod.as_ref().is_none_or(|pod| pod_terminated && !pod.has_finalizer) {
            actions.push(Action::DeleteJob);
        } else if !job.has_ttl {
            actions.push(Action::SetJobTtl);
        }
    }
    if seen.pod.as_ref().is_some_and(|pod| pod.has_finalizer) {
        actions.push(Action::RemovePodFinalizer);
    }
    if run.metadata.deletion_timestamp.is_some() {
        actions.push(Action::RemoveFinalizer);
    }
}

fn advance(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    if let Err(errors) = run.task() {
        let message = crate::error::Error::from_field_errors(&errors).message().to_owned();
        let end = ObservedEnd::Inferred { reason: Reason::InvalidTask, message, started: false };
        return status::set_finished(&mut decision.status, run, &end, now);
    }
    if seen.job.is_none() && decision.status.job_name.is_none() {
        if let Some(refusal) = &seen.refusal {
            let (reason, message) = (Reason::InvalidConfiguration, refusal.clone());
            let end = ObservedEnd::Inferred { reason, message, started: false };
            return status::set_finished(&mut decision.status, run, &end, now);
        }
        return admit_or_queue(decision, run, seen, now);
    }
    decision.status.job_name = Some(run.name().to_owned());
    decision.status.queue_position = None;
    let status = &mut decision.status;
    if let Some(pod) = &seen.pod {
        status.pod_name = Some(pod.name.clone());
        status.node_name.clone_from(&pod.node);
        status.start_time = status.start_time.or(match &pod.state {
            PodState::Running { since, .. } => since.or(Some(now)),
            PodState::Ended(ended) => ended.started,
            PodState::Starting { .. } => None,
        });
        if let Some(first) = pod.restarts.first() {
            let texts: Vec<String> = pod.restarts.iter().map(ToString::to_string).collect();
            set_condition(status, run, RESTARTED, "True", &first.reason, &texts.join("; "), now);
        }
    }
    if let Some(end) = detect_end(status, run, seen, now) {
        status::set_finished(status, run, &end, now);
        return;
    }
    follow(decision, run, seen, now);
    apply_stop_request(decision, run, seen, now);
}

fn admit_or_queue(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Decision { actions, status, requeue_after } = decision;
    status.phase = Some(Phase::Pending);
    let mut end = |reason, message: String| {
        status::set_finished(status, run, &ObservedEnd::Inferred { reason, message, started: false }, now);
    };
    if run.requested_stop().is_some() {
        return end(Reason::Stopped, STOPPED_BEFORE_START_MESSAGE.to_owned());
    }
    let since = run.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    match &seen.admission {
        Some(Admission::Admitted) => {
            actions.extend([Action::AcquireVolume, Action::CreateJob]);
            status.job_name = Some(run.name().to_owned());
            status.queue_position = None;
            status.waiting_for = None;
            status.message = None;
            set_condition(status, run, "Admitted", "True", "Admitted", ADMITTED_MESSAGE, now);
            set_condition(status, run, "Succeeded", "Unknown", "Pending", STARTING_MESSAGE, now);
        }
        Some(Admission::Queued { position, waiting_for }) => {
            #[expect(clippy::cast_possible_truncation, reason = "at most a week")]
            let timeout = SignedDuration::from_secs((run.spec.limits.queue_minutes * 60.0) as i64);
            let waited = now.duration_since(since);
            if waited >= timeout {
                let minutes = run.spec.limits.queue_minutes;
                return end(
                    Reason::WorkspaceBusy,
                    format!("queue timeout: waited {minutes} minutes for {waiting_for}"),
                );
            }
            *requeue_after =
                Duration::try_from(timeout - waited).ok().map(|rest| rest.min(QUEUE_POLL_INTERVAL));
            status.queue_position = Some(*position);
            status.waiting_for = Some(waiting_for.clone());
            let message = format!("queued at position {position}, waiting for {waiting_for}");
            status.message = Some(message.clone());
            set_condition(status, run, "Admitted", "False", "Queued", &message, now);
            set_condition(status, run, "Succeeded", "Unknown", "Queued", &message, now);
        }
        None => *requeue_after = Some(Duration::from_secs(5)),
    }
}

/// Returns how a run ended; `None` while it is active.
fn detect_end(
    status: &TaskRunStatus,
    run: &TaskRun,
    seen: &ClusterState,
    now: Timestamp,
) -> Option<ObservedEnd> {
    let end = observed_end(status, run, seen, now)?;
    // The supervisor sees only a signal, not its sender.
    let is_requested = run.requested_stop().is_some() || status.stop_request_time.is_some();
    match external_stop(seen) {
        Some((reason, why)) if end.reason() == Reason::Stopped && !is_requested => {
            Some(end.attributed(reason, &why))
        }
        Some(_) | None => Some(end),
    }
}

/// Returns why a pod was stopped from outside: the cluster terminates it, or a client deleted it.
fn external_stop(seen: &ClusterState) -> Option<(Reason, String)> {
    let Some(pod) = &seen.pod else { return Some((Reason::PodDeleted, "the pod was deleted".to_owned())) };
    let ended = match &pod.state {
        PodState::Ended(ended) => ended.problem.as_ref(),
        PodState::Starting { .. } | PodState::Running { .. } => None,
    };
    if let Some(problem) = pod.disruption.as_ref().or(ended) {
        return Some((problem.reason, problem.message.clone()));
    }
    pod.deletion_grace_seconds.map(|_| (Reason::PodDeleted, format!("the pod {} was deleted", pod.name)))
}

/// Returns what the log, the pod and the Job tell about the end of a run.
fn observed_end(
    status: &TaskRunStatus,
    run: &TaskRun,
    seen: &ClusterState,
    now: Timestamp,
) -> Option<ObservedEnd> {
    if let Some(outcome) = stream_outcome(&seen.stream) {
        return Some(ObservedEnd::Outcome(Box::new(outcome.clone())));
    }
    let log_read = matches!(seen.stream, LogStream::Closed(_));
    let inferred =
        |reason, message: String, started| Some(ObservedEnd::Inferred { reason, message, started });
    let pod_started = status.start_time.is_some();
    match &seen.pod {
        Some(PodInfo { state: PodState::Ended(ended), .. }) => {
            let started = ended.started.is_some() || pod_started;
            // The log has the whole outcome, also long after the end; its reader gives up by itself.
            if started && !log_read && !stop_deadline_passed(status, now) {
                return None;
            }
            if let Some(message) = termination_message(ended, run) {
                return Some(ObservedEnd::TerminationMessage(message));
            }
            if !started && run.requested_stop().is_some() {
                return inferred(Reason::Stopped, STOPPED_BEFORE_START_MESSAGE.to_owned(), false);
            }
            match &ended.problem {
                Some(PodProblem { reason, message, .. }) => inferred(*reason, message.clone(), started),
                None => {
                    let code =
                        ended.exit_code.map_or(String::new(), |code| format!(" with exit code {code}"));
                    inferred(
                        Reason::SupervisorLost,
                        format!("the supervisor exited{code} without reporting an outcome"),
                        started,
                    )
                }
            }
        }
        // An unscheduled pod that is being deleted never starts.
        Some(PodInfo {
            state: PodState::Starting { .. },
            deletion_grace_seconds: Some(_),
            node: None,
            ..
        }) if run.requested_stop().is_some() => {
            inferred(Reason::Stopped, STOPPED_BEFORE_START_MESSAGE.to_owned(), false)
        }
        Some(PodInfo { state: PodState::Starting { problem: Some(problem) }, .. }) if problem.terminal => {
            inferred(problem.reason, problem.message.clone(), false)
        }
        Some(PodInfo { state: PodState::Running { problem: Some(problem), .. }, .. }) if problem.terminal => {
            inferred(problem.reason, problem.message.clone(), true)
        }
        Some(_) => stop_deadline_passed(status, now).then(|| ObservedEnd::Inferred {
            reason: Reason::SupervisorLost,
            message: "the pod did not terminate within its grace period".to_owned(),
            started: pod_started,
        }),
        None => classify_missing_pod(status, run, seen, log_read || stop_deadline_passed(status, now)),
    }
}

/// Returns how a run without a pod ended; `None` if a pod or the rest of the log may still appear.
fn classify_missing_pod(
    status: &TaskRunStatus,
    run: &TaskRun,
    seen: &ClusterState,
    stream_done: bool,
) -> Option<ObservedEnd> {
    let started = status.start_time.is_some();
    let inferred = |reason, message: String| Some(ObservedEnd::Inferred { reason, message, started });
    let stopped = STOPPED_BEFORE_START_MESSAGE.to_owned();
    // An open stream may still deliver the outcome.
    if started && !stream_done && !matches!(seen.stream, LogStream::NotStarted) {
        return None;
    }
    match &seen.job {
        None if !started && run.requested_stop().is_some() => inferred(Reason::Stopped, stopped),
        None => inferred(Reason::SupervisorLost, "the Job and its pod were deleted".to_owned()),
        Some(job) if started && (job.suspended || job.failed.is_some()) => inferred(
            Reason::SupervisorLost,
            "the pod was deleted before the supervisor reported an outcome".to_owned(),
        ),
        Some(job) if job.suspended && run.requested_stop().is_some() => inferred(Reason::Stopped, stopped),
        Some(JobState { failed: Some(message), .. }) => {
            inferred(Reason::SupervisorLost, format!("the Job failed: {message}"))
        }
        Some(_) => None,
    }
}

fn stream_outcome(stream: &LogStream) -> Option<&Outcome> {
    match stream {
        LogStream::NotStarted => None,
        LogStream::Open(snapshot) | LogStream::Closed(snapshot) => snapshot.outcome.as_deref(),
    }
}

fn termination_message(ended: &PodEnd, run: &TaskRun) -> Option<TerminationMessage> {
    let message: TerminationMessage = serde_json::from_str(ended.message.as_deref()?).ok()?;
    (message.run == run.name()).then_some(message)
}

/// Returns whether a run has exceeded its grace period since the stop request.
fn stop_deadline_passed(status: &TaskRunStatus, now: Timestamp) -> bool {
    status.stop_request_time.is_some_and(|requested| {
        now.duration_since(requested)
            >= SignedDuration::from_secs(TERMINATION_GRACE_PERIOD_SECONDS + POD_DELETION_SLACK_SECONDS)
    })
}

fn follow(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Decision { actions, status, requeue_after } = decision;
    let mut requeue = |after: Duration| {
        *requeue_after = Some(requeue_after.map_or(after, |earlier| earlier.min(after)));
    };
    let problem = match seen.pod.as_ref().map(|pod| &pod.state) {
        Some(PodState::Starting { problem }) => {
            // Timeouts of startup problems expire without a change of the pod.
            requeue(Duration::from_secs(10));
            problem.as_ref()
        }
        Some(PodState::Running { problem, .. }) => {
            requeue(Duration::from_secs(15));
            problem.as_ref()
        }
        Some(PodState::Ended(_)) => {
            requeue(Duration::from_secs(5));
            None
        }
        None => {
            requeue(Duration::from_secs(10));
            None
        }
    };
    match &seen.stream {
        LogStream::NotStarted => {
            if matches!(
                seen.pod.as_ref().map(|pod| &pod.state),
                Some(PodState::Running { .. } | PodState::Ended(_))
            ) {
                actions.push(Action::FollowLogs);
            }
        }
        LogStream::Open(snapshot) | LogStream::Closed(snapshot) => {
            if let Some(rest) =
                apply_progress(status, snapshot, now).and_then(|rest| Duration::try_from(rest).ok())
            {
                requeue(rest);
            }
        }
    }
    status.phase = status.phase.or(Some(Phase::Pending));
    let lacks_pod = seen
        .job
        .as_ref()
        .is_some_and(|job| seen.pod.is_none() && job.age_seconds > POD_DELETION_SLACK_SECONDS);
    let (reason, message) = match problem {
        Some(problem) => (
            problem.reason.name(),
            Some(format!("{}. {}", problem.message.trim_end_matches('.'), problem.hint())),
        ),
        None if lacks_pod => {
            let message = format!("the Job has no pod yet; see `kubectl describe job {}`", run.name());
            ("Pending", Some(message))
        }
        None => (status.phase.unwrap_or(Phase::Pending).name(), None),
    };
    status.message.clone_from(&message);
    let phase = status.phase;
    let text = message.unwrap_or_else(|| {
        // The same text as on admission, which avoids a status write.
        if phase == Some(Phase::Pending) { STARTING_MESSAGE } else { "the run is active" }.to_owned()
    });
    set_condition(status, run, "Admitted", "True", "Admitted", ADMITTED_MESSAGE, now);
    set_condition(status, run, "Succeeded", "Unknown", reason, &text, now);
}

fn apply_stop_request(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Some(mode) = run.requested_stop() else { return };
    let Decision { actions, status, requeue_after } = decision;
    status.stop_request_time = status.stop_request_time.or(Some(now));
    if seen.job.as_ref().is_some_and(|job| !job.suspended) {
        actions.push(Action::SuspendJob);
    }
    if let (StopMode::Now, Some(pod)) = (mode, &seen.pod)
        && pod.deletion_grace_seconds.is_none_or(|seconds| seconds > STOP_NOW_GRACE_SECONDS)
        && !matches!(pod.state, PodState::Ended(_))
    {
        actions.push(Action::DeletePod { grace_seconds: STOP_NOW_GRACE_SECONDS });
    }
    let poll = Duration::from_secs(5);
    *requeue_after = Some(requeue_after.map_or(poll, |earlier| earlier.min(poll)));
}

/// Adds an event for the change from the previous status.
fn record_transitions(decision: &mut Decision, run: &TaskRun) {
    let old = run.status.clone().unwrap_or_default();
    let new = &decision.status;
    let message = new.message.clone().unwrap_or_default();
    let find = |status: &TaskRunStatus, kind: &str| {
        status.conditions.iter().find(|condition| condition.type_ == kind).cloned()
    };
    let reason_of = |status: &TaskRunStatus| find(status, "Succeeded").map(|condition| condition.reason);
    let restarted = |status: &TaskRunStatus| find(status, RESTARTED).map(|condition| condition.message);
    let mut events = Vec::new();
    let mut record =
        |warning, reason, note: String| events.push(Action::RecordEvent { warning, reason, note });
    if let Some(note) = restarted(new).filter(|_| restarted(new) != restarted(&old)) {
        record(true, RESTARTED, note);
    }
    if let (Some(reason), None) = (new.reason, old.reason) {
        record(reason.phase() == Phase::Failed, reason.name(), message);
    } else if new.job_name.is_some() && old.job_name.is_none() {
        record(false, "Started", format!("created Job {}", run.name()));
    } else if new.stop_request_time.is_some() && old.stop_request_time.is_none() {
        record(false, "Stopping", "stop requested; saving and pushing the work".to_owned());
    } else if new.queue_position.is_some() && old.queue_position.is_none() {
        record(false, "Queued", message);
    } else if let Some(name) = reason_of(new).filter(|_| reason_of(new) != reason_of(&old))
        && let Some(reason) = Reason::ALL.iter().find(|reason| reason.name() == name)
    {
        record(true, reason.name(), message);
    }
    decision.actions.extend(events);
}

#[cfg(test)]
mod tests;
