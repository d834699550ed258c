//! What is to be done about a run: a function from what is there to what to do.
//!
//! Nothing here waits, reads a clock or asks the API server. Every action does
//! no harm if it is done twice, since the controller may end after any of them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use orchestrator_contract::{Outcome, Phase, Reason};

use super::crd::{FINALIZER, StopWish, TaskRun, TaskRunStatus};
use super::objects::{GRACE_SECONDS, result_name};
use super::pod::{Ended, PodState, Trouble};
use super::queue::Turn;
use super::status::{self, Digest, End, condition, take_over};
use crate::task::observe::Observed;

/// What is there of a run, its TaskRun apart.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its Job.
    pub job: Option<JobSeen>,
    /// Its pod.
    pub pod: Option<PodSeen>,
    /// What its event stream has told.
    pub stream: Stream,
    /// Whether it may begin; only asked for runs without a Job.
    pub turn: Option<Turn>,
}

/// A run's Job.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobSeen {
    /// Whether its pods are ended and no new ones begin.
    pub suspended: bool,
    /// Why it has failed.
    pub failed: Option<String>,
    /// Whether it is removed by itself after a time.
    pub removes_itself: bool,
    /// How old it is.
    pub seconds: i64,
}

/// A run's pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: Option<String>,
    /// Where it stands.
    pub state: PodState,
    /// Whether our finalizer keeps it.
    pub held: bool,
    /// Seconds it was given to end, if it is to end.
    pub ending: Option<i64>,
}

/// The event stream of a run's pod.
#[derive(Clone, Debug, Default)]
pub enum Stream {
    /// Nobody reads it.
    #[default]
    Unread,
    /// It is being read.
    Open(Box<Observed>),
    /// It was read to its end, or cannot be read.
    Closed(Box<Observed>),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Keep the TaskRun until its work is saved.
    Hold,
    /// Let the TaskRun go, its attempt's number written down.
    Release,
    /// Make the service's volume if there is none, and take it for this run.
    Admit,
    /// Make the ConfigMap with the task, and the Job.
    Launch,
    /// Read the pod's log.
    Follow,
    /// End the pod in an orderly way, and have no other begin.
    Suspend,
    /// End the pod within some seconds.
    EndPod {
        /// Within so many.
        seconds: i64,
    },
    /// Let the ended pod go.
    ReleasePod,
    /// Keep outcome and log.
    KeepResult,
    /// Have the Job removed after a time.
    Expire,
    /// Remove the Job: it was ended before its time, and would stay for ever.
    RemoveJob,
    /// Tell people.
    Tell {
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
    pub again: Option<Duration>,
}

/// How long a pod that is over may keep its log to itself.
const LAST_WORDS: SignedDuration = SignedDuration::from_secs(30);

/// How much later than its own deadline a pod is given up.
const PATIENCE_SECONDS: i64 = 60;

/// How often a run that waits looks at its place.
const WAITING_EVERY: Duration = Duration::from_secs(60);

/// What "now" means.
const NOW_SECONDS: i64 = 10;

const STARTING: &str = "its container is being started";

const BEFORE_IT_BEGAN: &str = "it was stopped before it began, and nothing was done";

/// Says what to do about a run.
#[must_use]
pub fn decide(run: &TaskRun, seen: &Seen, now: Timestamp) -> Decision {
    let mut decision = Decision { status: run.status.clone().unwrap_or_default(), ..Decision::default() };
    decision.status.observed_generation = run.metadata.generation;
    let held = run.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    let deleted = run.metadata.deletion_timestamp.is_some();
    if !held {
        if !deleted {
            decision.actions.push(Action::Hold);
        } else if let Some(status) = &run.status {
            // It is gone already, whatever becomes of it.
            decision.status = status.clone();
        }
        return decision;
    }
    if !run.phase().is_final() {
        go_on(&mut decision, run, seen, now);
        tell(&mut decision, run);
    }
    // What was decided above is written first: a run ends once.
    if run.phase().is_final() {
        finish(&mut decision, run, seen, now);
    }
    decision
}

/// Keeps what is to be kept of an ended run, and lets go of the rest.
fn finish(decision: &mut Decision, run: &TaskRun, seen: &Seen, now: Timestamp) {
    let Decision { actions, status, again } = decision;
    let over = matches!(seen.pod, None | Some(PodSeen { state: PodState::Ended(_), .. }));
    if status.result.is_none() && status.job.is_some() {
        actions.push(Action::KeepResult);
        status.result = Some(result_name(run.name()));
    }
    // Whoever has told its outcome ends by itself.
    let since = status.finished_at.unwrap_or(now);
    if !over && status.outcome.is_some() && now.duration_since(since) < LAST_WORDS {
        *again = Some(Duration::from_secs(2));
        return;
    }
    if let Some(job) = &seen.job {
        if !over && !job.suspended {
            actions.push(Action::Suspend);
        }
        if job.suspended && seen.pod.as_ref().is_none_or(|pod| over && !pod.held) {
            actions.push(Action::RemoveJob);
        } else if !job.removes_itself {
            actions.push(Action::Expire);
        }
    }
    if seen.pod.as_ref().is_some_and(|pod| pod.held) {
        actions.push(Action::ReleasePod);
    }
    if run.metadata.deletion_timestamp.is_some() {
        actions.push(Action::Release);
    }
}

fn go_on(decision: &mut Decision, run: &TaskRun, seen: &Seen, now: Timestamp) {
    if let Err(faults) = run.task() {
        let message = crate::problem::Problem::faults(&faults).message().to_owned();
        let worked = false;
        let end = End::Untold { reason: Reason::InvalidTask, message, worked };
        return status::end(&mut decision.status, run, &end, now);
    }
    if seen.job.is_none() && decision.status.job.is_none() {
        return wait_or_begin(decision, run, seen, now);
    }
    decision.status.job = Some(run.name().to_owned());
    decision.status.queue_position = None;
    let status = &mut decision.status;
    if let Some(pod) = &seen.pod {
        status.pod = Some(pod.name.clone());
        status.node.clone_from(&pod.node);
        status.started_at = status.started_at.or(match &pod.state {
            PodState::Running { since, .. } => since.or(Some(now)),
            PodState::Ended(ended) => ended.started,
            PodState::Starting { .. } => None,
        });
    }
    if let Some(end) = how_it_ended(status, run, seen, now) {
        status::end(status, run, &end, now);
        return;
    }
    follow(decision, run, seen, now);
    stop_if_asked(decision, run, seen, now);
}

fn wait_or_begin(decision: &mut Decision, run: &TaskRun, seen: &Seen, now: Timestamp) {
    let Decision { actions, status, again } = decision;
    status.phase = Some(Phase::Pending);
    let mut end = |reason, message: String| {
        status::end(status, run, &End::Untold { reason, message, worked: false }, now);
    };
    if run.stop_wish().is_some() {
        return end(Reason::Stopped, BEFORE_IT_BEGAN.to_owned());
    }
    let since = run.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    match &seen.turn {
        Some(Turn::Now) => {
            actions.extend([Action::Admit, Action::Launch]);
            status.job = Some(run.name().to_owned());
            status.queue_position = None;
            status.waiting_for = None;
            status.message = None;
            condition(status, run, "Admitted", "True", "Turn", "it has its turn", now);
            condition(status, run, "Succeeded", "Unknown", "Pending", STARTING, now);
        }
        Some(Turn::Waits { place, waiting_for }) => {
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
            *again = Duration::try_from(longest - waited).ok().map(|rest| rest.min(WAITING_EVERY));
            status.queue_position = Some(*place);
            status.waiting_for = Some(waiting_for.clone());
            let message = format!("waits for {waiting_for} (place {place} of its queue)");
            status.message = Some(message.clone());
            condition(status, run, "Admitted", "False", "Queued", &message, now);
            condition(status, run, "Succeeded", "Unknown", "Queued", &message, now);
        }
        None => *again = Some(Duration::from_secs(5)),
    }
}

/// How a run has ended, if it has.
fn how_it_ended<'a>(
    status: &TaskRunStatus,
    run: &TaskRun,
    seen: &'a Seen,
    now: Timestamp,
) -> Option<End<'a>> {
    if let Some(outcome) = told_outcome(&seen.stream) {
        return Some(End::Outcome(outcome));
    }
    let read = matches!(seen.stream, Stream::Closed(_));
    let untold = |reason, message: String, worked| Some(End::Untold { reason, message, worked });
    let began = status.started_at.is_some();
    match &seen.pod {
        Some(PodSeen { state: PodState::Ended(ended), .. }) => {
            let since = ended.finished.unwrap_or(now);
            let worked = ended.started.is_some() || began;
            // The log may still be on its way.
            if worked && !read && now.duration_since(since) < LAST_WORDS {
                return None;
            }
            if let Some(digest) = digest(ended, run) {
                return Some(End::Digest(digest));
            }
            if !worked && run.stop_wish().is_some() {
                return untold(Reason::Stopped, BEFORE_IT_BEGAN.to_owned(), false);
            }
            match &ended.trouble {
                Some(Trouble { reason, message, .. }) => untold(*reason, message.clone(), worked),
                None => {
                    let code =
                        ended.exit_code.map_or(String::new(), |code| format!(" with exit code {code}"));
                    untold(Reason::Lost, format!("the supervisor ended{code} without an outcome"), worked)
                }
            }
        }
        // No node will have it any more.
        Some(PodSeen { state: PodState::Starting { .. }, ending: Some(_), node: None, .. })
            if run.stop_wish().is_some() =>
        {
            untold(Reason::Stopped, BEFORE_IT_BEGAN.to_owned(), false)
        }
        Some(PodSeen { state: PodState::Starting { hindrance: Some(trouble) }, .. }) if trouble.hopeless => {
            untold(trouble.reason, trouble.message.clone(), false)
        }
        Some(PodSeen { state: PodState::Running { trouble: Some(trouble), .. }, .. }) if trouble.hopeless => {
            untold(trouble.reason, trouble.message.clone(), true)
        }
        Some(_) => late(status, now).then(|| End::Untold {
            reason: Reason::Lost,
            message: "it did not end in the time that it was given".to_owned(),
            worked: began,
        }),
        None => gone(status, run, seen, read || late(status, now)),
    }
}

/// What to make of a run without a pod.
fn gone<'a>(status: &TaskRunStatus, run: &TaskRun, seen: &Seen, heard_out: bool) -> Option<End<'a>> {
    let began = status.started_at.is_some();
    let untold = |reason, message: String| Some(End::Untold { reason, message, worked: began });
    let stopped = BEFORE_IT_BEGAN.to_owned();
    // As long as the stream is open its end may bring the outcome.
    if began && !heard_out && !matches!(seen.stream, Stream::Unread) {
        return None;
    }
    match &seen.job {
        None if !began && run.stop_wish().is_some() => untold(Reason::Stopped, stopped),
        None => untold(Reason::Lost, "its Job was deleted, and its pod with it".to_owned()),
        Some(job) if began && (job.suspended || job.failed.is_some()) => {
            untold(Reason::Lost, "its pod was deleted before it had told its outcome".to_owned())
        }
        Some(job) if job.suspended && run.stop_wish().is_some() => untold(Reason::Stopped, stopped),
        Some(JobSeen { failed: Some(why), .. }) => untold(Reason::Lost, format!("its Job failed: {why}")),
        Some(_) => None,
    }
}

fn told_outcome(stream: &Stream) -> Option<&Outcome> {
    match stream {
        Stream::Unread => None,
        Stream::Open(told) | Stream::Closed(told) => told.outcome.as_deref(),
    }
}

fn digest(ended: &Ended, run: &TaskRun) -> Option<Digest> {
    let digest: Digest = serde_json::from_str(ended.message.as_deref()?).ok()?;
    (digest.run == run.name()).then_some(digest)
}

/// Whether a run that was asked to stop has had all its time.
fn late(status: &TaskRunStatus, now: Timestamp) -> bool {
    status.stop_asked_at.is_some_and(|asked| {
        now.duration_since(asked) >= SignedDuration::from_secs(GRACE_SECONDS + PATIENCE_SECONDS)
    })
}

fn follow(decision: &mut Decision, run: &TaskRun, seen: &Seen, now: Timestamp) {
    let Decision { actions, status, again } = decision;
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
        Stream::Unread => {
            if matches!(
                seen.pod.as_ref().map(|pod| &pod.state),
                Some(PodState::Running { .. } | PodState::Ended(_))
            ) {
                actions.push(Action::Follow);
            }
        }
        Stream::Open(told) | Stream::Closed(told) => {
            if let Some(rest) = take_over(status, told, now).and_then(|rest| Duration::try_from(rest).ok()) {
                look_again(rest);
            }
        }
    }
    status.phase = status.phase.or(Some(Phase::Pending));
    let waits = seen.job.as_ref().is_some_and(|job| seen.pod.is_none() && job.seconds > PATIENCE_SECONDS);
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
        if phase == Some(Phase::Pending) { STARTING } else { "it is at work" }.to_owned()
    });
    condition(status, run, "Admitted", "True", "Turn", "it has its turn", now);
    condition(status, run, "Succeeded", "Unknown", reason, &text, now);
}

fn stop_if_asked(decision: &mut Decision, run: &TaskRun, seen: &Seen, now: Timestamp) {
    let Some(wish) = run.stop_wish() else { return };
    let Decision { actions, status, again } = decision;
    status.stop_asked_at = status.stop_asked_at.or(Some(now));
    if seen.job.as_ref().is_some_and(|job| !job.suspended) {
        actions.push(Action::Suspend);
    }
    if let (StopWish::Now, Some(pod)) = (wish, &seen.pod)
        && pod.ending.is_none_or(|seconds| seconds > NOW_SECONDS)
        && !matches!(pod.state, PodState::Ended(_))
    {
        actions.push(Action::EndPod { seconds: NOW_SECONDS });
    }
    let rest = Duration::from_secs(5);
    *again = Some(again.map_or(rest, |again| again.min(rest)));
}

/// Tells people what has changed.
fn tell(decision: &mut Decision, run: &TaskRun) {
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
    let mut say = |warning, reason, note: String| told.push(Action::Tell { warning, reason, note });
    if let (Some(reason), None) = (new.reason, old.reason) {
        say(reason.phase() == Phase::Failed, reason.name(), message);
    } else if new.job.is_some() && old.job.is_none() {
        say(false, "Started", format!("Job {} performs it", run.name()));
    } else if new.stop_asked_at.is_some() && old.stop_asked_at.is_none() {
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
