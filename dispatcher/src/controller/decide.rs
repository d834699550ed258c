//! What is to be done about a run: a function from what is there to what to do.
//!
//! Nothing here waits, reads a clock or asks the API server. Every action does
//! no harm if it is done twice, since the controller may end after any of them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use orchestrator_contract::{Outcome, Phase, Reason};

use super::crd::{StopMode, TASKRUN_FINALIZER, TaskRun, TaskRunStatus};
use super::objects::{TERMINATION_GRACE_PERIOD_SECONDS, result_name};
use super::pod::{PodEnd, PodProblem, PodState};
use super::queue::Admission;
use super::status::{self, ObservedEnd, TerminationMessage, apply_progress, set_condition};
use crate::task::event_fold::RunSnapshot;

/// What is there of a run, its TaskRun apart.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    /// Its Job.
    pub job: Option<JobState>,
    /// Its pod.
    pub pod: Option<PodInfo>,
    /// What its event stream has told.
    pub stream: LogStream,
    /// Whether it may begin; only asked for runs without a Job.
    pub turn: Option<Admission>,
}

/// A run's Job.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobState {
    /// Whether its pods are ended and no new ones begin.
    pub suspended: bool,
    /// Why it has failed.
    pub failed: Option<String>,
    /// Whether it is removed by itself after a time.
    pub has_ttl: bool,
    /// How old it is.
    pub age_seconds: i64,
}

/// A run's pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: Option<String>,
    /// Where it stands.
    pub state: PodState,
    /// Whether our finalizer keeps it.
    pub has_finalizer: bool,
    /// Seconds it was given to end, if it is to end.
    pub deletion_grace_seconds: Option<i64>,
}

/// The event stream of a run's pod.
#[derive(Clone, Debug, Default)]
pub enum LogStream {
    /// Nobody reads it.
    #[default]
    NotStarted,
    /// It is being read.
    Open(Box<RunSnapshot>),
    /// It was read to its end, or cannot be read.
    Closed(Box<RunSnapshot>),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Keep the TaskRun until its work is saved.
    AddFinalizer,
    /// Let the TaskRun go, its attempt's number written down.
    RemoveFinalizer,
    /// Make the service's volume if there is none, and take it for this run.
    AcquireVolume,
    /// Make the ConfigMap with the task, and the Job.
    CreateJob,
    /// Read the pod's log.
    FollowLogs,
    /// End the pod in an orderly way, and have no other begin.
    SuspendJob,
    /// End the pod within some seconds.
    DeletePod {
        /// Within so many.
        grace_seconds: i64,
    },
    /// Let the ended pod go.
    RemovePodFinalizer,
    /// Keep outcome and log.
    SaveResult,
    /// Have the Job removed after a time.
    SetJobTtl,
    /// Remove the Job: it was ended before its time, and would stay for ever.
    DeleteJob,
    /// Tell people.
    RecordEvent {
        /// Whether something is wrong.
        warning: bool,
        /// In a word.
        reason: &'static str,
        /// In a sentence.
        note: String,
    },
}

/// What is to be done, in this order, and then written down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to do.
    pub actions: Vec<Action>,
    /// The status, once that is done.
    pub status: TaskRunStatus,
    /// When to look again, even if nothing happens.
    pub requeue_after: Option<Duration>,
}

/// How long a pod that is over may keep its log to itself.
const LOG_DRAIN_TIMEOUT: SignedDuration = SignedDuration::from_secs(30);

/// How much later than its own deadline a pod is given up.
const POD_DELETION_SLACK_SECONDS: i64 = 60;

/// How often a run that waits looks at its place.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// What "now" means.
const STOP_NOW_GRACE_SECONDS: i64 = 10;

const STARTING_MESSAGE: &str = "its container is being started";

const STOPPED_BEFORE_START_MESSAGE: &str = "it was stopped before it began, and nothing was done";

/// Says what to do about a run.
#[must_use]
pub fn decide(run: &TaskRun, seen: &ClusterState, now: Timestamp) -> Decision {
    let mut decision = Decision { status: run.status.clone().unwrap_or_default(), ..Decision::default() };
    decision.status.observed_generation = run.metadata.generation;
    let held = run.metadata.finalizers.iter().flatten().any(|name| name == TASKRUN_FINALIZER);
    let deleted = run.metadata.deletion_timestamp.is_some();
    if !held {
        if !deleted {
            decision.actions.push(Action::AddFinalizer);
        } else if let Some(status) = &run.status {
            // It is gone already, whatever becomes of it.
            decision.status = status.clone();
        }
        return decision;
    }
    if !run.phase().is_final() {
        advance(&mut decision, run, seen, now);
        record_transitions(&mut decision, run);
    }
    // What was decided above is written first: a run ends once.
    if run.phase().is_final() {
        clean_up(&mut decision, run, seen, now);
    }
    decision
}

/// Keeps what is to be kept of an ended run, and lets go of the rest.
fn clean_up(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Decision { actions, status, requeue_after: again } = decision;
    let over = matches!(seen.pod, None | Some(PodInfo { state: PodState::Ended(_), .. }));
    if status.result_config_map_name.is_none() && status.job_name.is_some() {
        actions.push(Action::SaveResult);
        status.result_config_map_name = Some(result_name(run.name()));
    }
    // Whoever has told its outcome ends by itself.
    let since = status.completion_time.unwrap_or(now);
    if !over && status.outcome.is_some() && now.duration_since(since) < LOG_DRAIN_TIMEOUT {
        *again = Some(Duration::from_secs(2));
        return;
    }
    if let Some(job) = &seen.job {
        if !over && !job.suspended {
            actions.push(Action::SuspendJob);
        }
        if job.suspended && seen.pod.as_ref().is_none_or(|pod| over && !pod.has_finalizer) {
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
    if let Err(faults) = run.task() {
        let message = crate::error::Error::from_field_errors(&faults).message().to_owned();
        let worked = false;
        let end = ObservedEnd::Inferred { reason: Reason::InvalidTask, message, started: worked };
        return status::set_finished(&mut decision.status, run, &end, now);
    }
    if seen.job.is_none() && decision.status.job_name.is_none() {
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
    }
    if let Some(end) = detect_end(status, run, seen, now) {
        status::set_finished(status, run, &end, now);
        return;
    }
    follow(decision, run, seen, now);
    apply_stop_request(decision, run, seen, now);
}

fn admit_or_queue(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Decision { actions, status, requeue_after: again } = decision;
    status.phase = Some(Phase::Pending);
    let mut end = |reason, message: String| {
        status::set_finished(status, run, &ObservedEnd::Inferred { reason, message, started: false }, now);
    };
    if run.requested_stop().is_some() {
        return end(Reason::Stopped, STOPPED_BEFORE_START_MESSAGE.to_owned());
    }
    let since = run.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    match &seen.turn {
        Some(Admission::Admitted) => {
            actions.extend([Action::AcquireVolume, Action::CreateJob]);
            status.job_name = Some(run.name().to_owned());
            status.queue_position = None;
            status.waiting_for = None;
            status.message = None;
            set_condition(status, run, "Admitted", "True", "Admitted", "it has its turn", now);
            set_condition(status, run, "Succeeded", "Unknown", "Pending", STARTING_MESSAGE, now);
        }
        Some(Admission::Queued { position: place, waiting_for }) => {
            #[expect(clippy::cast_possible_truncation, reason = "at most a week")]
            let longest = SignedDuration::from_secs((run.spec.limits.queue_minutes * 60.0) as i64);
            let waited = now.duration_since(since);
            if waited >= longest {
                let minutes = run.spec.limits.queue_minutes;
                return end(
                    Reason::WorkspaceBusy,
                    format!("it has waited {minutes} minutes for {waiting_for}, which is as long as it may"),
                );
            }
            *again = Duration::try_from(longest - waited).ok().map(|rest| rest.min(QUEUE_POLL_INTERVAL));
            status.queue_position = Some(*place);
            status.waiting_for = Some(waiting_for.clone());
            let message = format!("waits for {waiting_for} (place {place} of its queue)");
            status.message = Some(message.clone());
            set_condition(status, run, "Admitted", "False", "Queued", &message, now);
            set_condition(status, run, "Succeeded", "Unknown", "Queued", &message, now);
        }
        None => *again = Some(Duration::from_secs(5)),
    }
}

/// How a run has ended, if it has.
fn detect_end<'a>(
    status: &TaskRunStatus,
    run: &TaskRun,
    seen: &'a ClusterState,
    now: Timestamp,
) -> Option<ObservedEnd<'a>> {
    if let Some(outcome) = stream_outcome(&seen.stream) {
        return Some(ObservedEnd::Outcome(outcome));
    }
    let read = matches!(seen.stream, LogStream::Closed(_));
    let untold =
        |reason, message: String, worked| Some(ObservedEnd::Inferred { reason, message, started: worked });
    let began = status.start_time.is_some();
    match &seen.pod {
        Some(PodInfo { state: PodState::Ended(ended), .. }) => {
            let since = ended.finished.unwrap_or(now);
            let worked = ended.started.is_some() || began;
            // The log may still be on its way.
            if worked && !read && now.duration_since(since) < LOG_DRAIN_TIMEOUT {
                return None;
            }
            if let Some(digest) = digest(ended, run) {
                return Some(ObservedEnd::TerminationMessage(digest));
            }
            if !worked && run.requested_stop().is_some() {
                return untold(Reason::Stopped, STOPPED_BEFORE_START_MESSAGE.to_owned(), false);
            }
            match &ended.trouble {
                Some(PodProblem { reason, message, .. }) => untold(*reason, message.clone(), worked),
                None => {
                    let code =
                        ended.exit_code.map_or(String::new(), |code| format!(" with exit code {code}"));
                    untold(
                        Reason::SupervisorLost,
                        format!("the supervisor ended{code} without an outcome"),
                        worked,
                    )
                }
            }
        }
        // No node will have it any more.
        Some(PodInfo {
            state: PodState::Starting { .. },
            deletion_grace_seconds: Some(_),
            node: None,
            ..
        }) if run.requested_stop().is_some() => {
            untold(Reason::Stopped, STOPPED_BEFORE_START_MESSAGE.to_owned(), false)
        }
        Some(PodInfo { state: PodState::Starting { hindrance: Some(trouble) }, .. }) if trouble.terminal => {
            untold(trouble.reason, trouble.message.clone(), false)
        }
        Some(PodInfo { state: PodState::Running { trouble: Some(trouble), .. }, .. }) if trouble.terminal => {
            untold(trouble.reason, trouble.message.clone(), true)
        }
        Some(_) => stop_deadline_passed(status, now).then(|| ObservedEnd::Inferred {
            reason: Reason::SupervisorLost,
            message: "it did not end in the time that it was given".to_owned(),
            started: began,
        }),
        None => classify_missing_pod(status, run, seen, read || stop_deadline_passed(status, now)),
    }
}

/// What to make of a run without a pod.
fn classify_missing_pod<'a>(
    status: &TaskRunStatus,
    run: &TaskRun,
    seen: &ClusterState,
    heard_out: bool,
) -> Option<ObservedEnd<'a>> {
    let began = status.start_time.is_some();
    let untold = |reason, message: String| Some(ObservedEnd::Inferred { reason, message, started: began });
    let stopped = STOPPED_BEFORE_START_MESSAGE.to_owned();
    // As long as the stream is open its end may bring the outcome.
    if began && !heard_out && !matches!(seen.stream, LogStream::NotStarted) {
        return None;
    }
    match &seen.job {
        None if !began && run.requested_stop().is_some() => untold(Reason::Stopped, stopped),
        None => untold(Reason::SupervisorLost, "its Job was deleted, and its pod with it".to_owned()),
        Some(job) if began && (job.suspended || job.failed.is_some()) => {
            untold(Reason::SupervisorLost, "its pod was deleted before it had told its outcome".to_owned())
        }
        Some(job) if job.suspended && run.requested_stop().is_some() => untold(Reason::Stopped, stopped),
        Some(JobState { failed: Some(why), .. }) => {
            untold(Reason::SupervisorLost, format!("its Job failed: {why}"))
        }
        Some(_) => None,
    }
}

fn stream_outcome(stream: &LogStream) -> Option<&Outcome> {
    match stream {
        LogStream::NotStarted => None,
        LogStream::Open(told) | LogStream::Closed(told) => told.outcome.as_deref(),
    }
}

fn digest(ended: &PodEnd, run: &TaskRun) -> Option<TerminationMessage> {
    let digest: TerminationMessage = serde_json::from_str(ended.message.as_deref()?).ok()?;
    (digest.run == run.name()).then_some(digest)
}

/// Whether a run that was asked to stop has had all its time.
fn stop_deadline_passed(status: &TaskRunStatus, now: Timestamp) -> bool {
    status.stop_request_time.is_some_and(|asked| {
        now.duration_since(asked)
            >= SignedDuration::from_secs(TERMINATION_GRACE_PERIOD_SECONDS + POD_DELETION_SLACK_SECONDS)
    })
}

fn follow(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Decision { actions, status, requeue_after: again } = decision;
    let mut look_again = |after: Duration| *again = Some(again.map_or(after, |again| again.min(after)));
    let trouble = match seen.pod.as_ref().map(|pod| &pod.state) {
        Some(PodState::Starting { hindrance }) => {
            // What keeps it may go on without any change that would be told.
            look_again(Duration::from_secs(10));
            hindrance.as_ref()
        }
        Some(PodState::Running { trouble, .. }) => {
            look_again(Duration::from_secs(15));
            trouble.as_ref()
        }
        Some(PodState::Ended(_)) => {
            look_again(Duration::from_secs(5));
            None
        }
        None => {
            look_again(Duration::from_secs(10));
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
        LogStream::Open(told) | LogStream::Closed(told) => {
            if let Some(rest) =
                apply_progress(status, told, now).and_then(|rest| Duration::try_from(rest).ok())
            {
                look_again(rest);
            }
        }
    }
    status.phase = status.phase.or(Some(Phase::Pending));
    let waits = seen
        .job
        .as_ref()
        .is_some_and(|job| seen.pod.is_none() && job.age_seconds > POD_DELETION_SLACK_SECONDS);
    let (reason, message) = match trouble {
        Some(trouble) => {
            (trouble.reason.name(), Some(format!("{}. {}", trouble.message, trouble.reason.hint())))
        }
        None if waits => {
            let told = format!("its Job has no pod yet: kubectl describe job {} tells why", run.name());
            ("Pending", Some(told))
        }
        None => (status.phase.unwrap_or(Phase::Pending).name(), None),
    };
    status.message.clone_from(&message);
    let phase = status.phase;
    let text = message.unwrap_or_else(|| {
        // The same words as before its Job was seen: nothing to write then.
        if phase == Some(Phase::Pending) { STARTING_MESSAGE } else { "it is at work" }.to_owned()
    });
    set_condition(status, run, "Admitted", "True", "Admitted", "it has its turn", now);
    set_condition(status, run, "Succeeded", "Unknown", reason, &text, now);
}

fn apply_stop_request(decision: &mut Decision, run: &TaskRun, seen: &ClusterState, now: Timestamp) {
    let Some(wish) = run.requested_stop() else { return };
    let Decision { actions, status, requeue_after: again } = decision;
    status.stop_request_time = status.stop_request_time.or(Some(now));
    if seen.job.as_ref().is_some_and(|job| !job.suspended) {
        actions.push(Action::SuspendJob);
    }
    if let (StopMode::Now, Some(pod)) = (wish, &seen.pod)
        && pod.deletion_grace_seconds.is_none_or(|seconds| seconds > STOP_NOW_GRACE_SECONDS)
        && !matches!(pod.state, PodState::Ended(_))
    {
        actions.push(Action::DeletePod { grace_seconds: STOP_NOW_GRACE_SECONDS });
    }
    let rest = Duration::from_secs(5);
    *again = Some(again.map_or(rest, |again| again.min(rest)));
}

/// Tells people what has changed.
fn record_transitions(decision: &mut Decision, run: &TaskRun) {
    let old = run.status.clone().unwrap_or_default();
    let new = &decision.status;
    let message = new.message.clone().unwrap_or_default();
    let reason_of = |status: &TaskRunStatus| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Succeeded")
            .map(|condition| condition.reason.clone())
    };
    let mut told = Vec::new();
    let mut say = |warning, reason, note: String| told.push(Action::RecordEvent { warning, reason, note });
    if let (Some(reason), None) = (new.reason, old.reason) {
        say(reason.phase() == Phase::Failed, reason.name(), message);
    } else if new.job_name.is_some() && old.job_name.is_none() {
        say(false, "Started", format!("Job {} performs it", run.name()));
    } else if new.stop_request_time.is_some() && old.stop_request_time.is_none() {
        say(false, "Stopping", "it was asked to stop: its work is being saved and pushed".to_owned());
    } else if new.queue_position.is_some() && old.queue_position.is_none() {
        say(false, "Queued", message);
    } else if let Some(word) = reason_of(new).filter(|_| reason_of(new) != reason_of(&old))
        && let Some(reason) = Reason::ALL.iter().find(|reason| reason.name() == word)
    {
        say(true, reason.name(), message);
    }
    decision.actions.extend(told);
}

#[cfg(test)]
mod tests;
