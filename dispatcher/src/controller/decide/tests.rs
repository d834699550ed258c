use super::super::pod::Restart;
use super::*;
use crate::task::event_fold::RunSnapshot;
use crate::taskrun::definition::TaskRunSpec;
use orchestrator_contract::event::Progress;
use orchestrator_contract::{Step, TaskSpec};
use proptest::prelude::*;

const TASK: &str = include_str!("../../../../supervisor/contract/samples/task-v1.json");
const OUTCOME: &str = include_str!("../../../../supervisor/contract/samples/outcome-v1.json");

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A run with finalizer, submitted at second 0.
fn run() -> TaskRun {
    let task = TaskSpec::from_json(TASK).unwrap();
    let mut run = TaskRun::new(task.run.as_str(), TaskRunSpec::from_task(&task, None, None));
    run.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    run.metadata.finalizers = Some(vec![TASKRUN_FINALIZER.to_owned()]);
    run.metadata.generation = Some(1);
    run
}

fn with_job(mut run: TaskRun) -> TaskRun {
    let name = run.name().to_owned();
    run.status.get_or_insert_default().job_name = Some(name);
    run
}

fn outcome() -> Box<Outcome> {
    let mut outcome: Outcome = serde_json::from_str(OUTCOME).unwrap();
    outcome.run = TaskSpec::from_json(TASK).unwrap().run;
    Box::new(outcome)
}

fn snapshot(seq: u64, phase: Phase, outcome: Option<Box<Outcome>>) -> Box<RunSnapshot> {
    let progress = Progress {
        phase,
        step: Step::Agent,
        turns: 3,
        cost_usd: 0.5,
        activity: format!("step {seq}"),
        activity_since: at(0),
        branch: Some("feature/x".to_owned()),
        waiting_for: None,
    };
    Box::new(RunSnapshot {
        phase,
        step: Some(Step::Agent),
        reason: outcome.as_ref().map(|outcome| outcome.reason),
        progress: Some(progress),
        outcome,
        last_event_seq: seq,
        last_time: Some(at(0)),
        garbage: 0,
    })
}

fn pod(state: PodState) -> PodInfo {
    PodInfo {
        name: "pod".to_owned(),
        node: Some("node".to_owned()),
        state,
        restarts: Vec::new(),
        has_finalizer: true,
        deletion_grace_seconds: None,
        disruption: None,
    }
}

fn running() -> PodInfo {
    pod(PodState::Running { since: Some(at(1)), problem: None })
}

fn ended(message: Option<&str>, problem: Option<PodProblem>) -> PodInfo {
    pod(PodState::Ended(PodEnd {
        started: Some(at(1)),
        finished: Some(at(10)),
        message: message.map(str::to_owned),
        problem,
        exit_code: Some(1),
    }))
}

fn job() -> Option<JobState> {
    Some(JobState::default())
}

fn actions(decision: &Decision) -> Vec<&Action> {
    decision.actions.iter().filter(|action| !matches!(action, Action::RecordEvent { .. })).collect()
}

fn end_of(decision: &Decision) -> Option<(Phase, Reason)> {
    decision.status.phase.zip(decision.status.reason)
}

#[test]
fn restarted_sidecar_is_condition_of_active_run() {
    let restart = |count| Restart {
        container: "agent".to_owned(),
        reason: "OOMKilled".to_owned(),
        exit_code: Some(137),
        count,
    };
    let seen = |count| {
        let pod = PodInfo { restarts: vec![restart(count)], ..running() };
        ClusterState { job: job(), pod: Some(pod), ..ClusterState::default() }
    };
    let events = |decision: &Decision| {
        let all = decision.actions.iter();
        all.filter(|action| matches!(action, Action::RecordEvent { reason: "Restarted", .. })).count()
    };
    let mut run = with_job(run());
    for (count, expected) in [(1, 1), (1, 0), (2, 1)] {
        let decision = decide(&run, &seen(count), at(9));
        assert_eq!(decision.status.reason, None, "the run goes on");
        let condition = decision.status.conditions.iter().find(|condition| condition.type_ == "Restarted");
        let condition = condition.unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "OOMKilled"));
        let times = if count == 1 { "once" } else { "2 times" };
        assert_eq!(
            condition.message,
            format!("container `agent` was restarted {times}: OOMKilled, exit code 137")
        );
        assert_eq!(events(&decision), expected, "one event for each change");
        run.status = Some(decision.status);
    }
}

#[test]
fn refused_run_fails_before_anything_is_created() {
    let refusal = Some("image `evil/x` is not allowed".to_owned());
    for admission in [None, Some(Admission::Admitted)] {
        let seen = ClusterState { admission, refusal: refusal.clone(), ..ClusterState::default() };
        let decision = decide(&run(), &seen, at(1));
        assert_eq!(decision.status.reason, Some(Reason::InvalidConfiguration));
        assert_eq!(decision.status.phase, Some(Phase::Failed));
        assert!(decision.status.message.as_ref().unwrap().contains("image `evil/x` is not allowed"));
        assert_eq!(decision.status.job_name, None);
        let events_only = |action: &Action| matches!(action, Action::RecordEvent { warning: true, .. });
        assert!(decision.actions.iter().all(events_only), "{:?}", decision.actions);
    }
    // A new configuration does not end runs that started under an earlier one.
    let seen = ClusterState { job: job(), pod: Some(running()), refusal, ..ClusterState::default() };
    assert_eq!(decide(&with_job(run()), &seen, at(60)).status.reason, None);
}

#[test]
fn finalizer_is_added_before_any_other_action() {
    let mut run = run();
    run.metadata.finalizers = None;
    let decision = decide(
        &run,
        &ClusterState { admission: Some(Admission::Admitted), ..ClusterState::default() },
        at(0),
    );
    assert_eq!(actions(&decision), [&Action::AddFinalizer]);
}

#[test]
fn admitted_run_acquires_volume_then_creates_job() {
    let decision = decide(
        &run(),
        &ClusterState { admission: Some(Admission::Admitted), ..ClusterState::default() },
        at(0),
    );
    assert_eq!(actions(&decision), [&Action::AcquireVolume, &Action::CreateJob]);
    assert_eq!(decision.status.job_name.as_deref(), Some(run().name()));
}

#[test]
fn queued_run_reports_blocking_run_until_timeout() {
    let admission = Some(Admission::Queued { position: 2, waiting_for: "other".to_owned() });
    let decision =
        decide(&run(), &ClusterState { admission: admission.clone(), ..ClusterState::default() }, at(60));
    assert_eq!(actions(&decision), [] as [&Action; 0]);
    assert_eq!(decision.status.queue_position, Some(2));
    assert_eq!(decision.status.waiting_for.as_deref(), Some("other"));
    let longest = run().spec.limits.queue_minutes * 60.0;
    #[expect(clippy::cast_possible_truncation, reason = "minutes of a sample")]
    let late = decide(&run(), &ClusterState { admission, ..ClusterState::default() }, at(longest as i64 + 1));
    assert_eq!(end_of(&late), Some((Phase::Failed, Reason::WorkspaceBusy)));
}

#[test]
fn invalid_task_fails_before_job_creation() {
    let mut run = run();
    run.spec.model = "--evil".to_owned();
    let decision = decide(
        &run,
        &ClusterState { admission: Some(Admission::Admitted), ..ClusterState::default() },
        at(0),
    );
    assert_eq!(end_of(&decision), Some((Phase::Failed, Reason::InvalidTask)));
    assert_eq!(actions(&decision), [] as [&Action; 0]);
}

#[test]
fn log_stream_is_followed_once_pod_runs() {
    let seen = ClusterState { job: job(), pod: Some(running()), ..ClusterState::default() };
    let decision = decide(&with_job(run()), &seen, at(2));
    assert_eq!(actions(&decision), [&Action::FollowLogs]);
    assert_eq!(decision.status.start_time, Some(at(1)));
}

#[test]
fn progress_is_written_every_15_seconds_or_on_new_phase() {
    let seen = |seq, phase| ClusterState {
        job: job(),
        pod: Some(running()),
        stream: LogStream::Open(snapshot(seq, phase, None)),
        admission: None,
        refusal: None,
    };
    let mut run = with_job(run());
    let first = decide(&run, &seen(1, Phase::Running), at(100));
    assert_eq!(first.status.activity.as_deref(), Some("step 1"));
    run.status = Some(first.status);
    let soon = decide(&run, &seen(2, Phase::Running), at(104));
    assert_eq!(soon.status.activity.as_deref(), Some("step 1"));
    assert_eq!(soon.requeue_after, Some(Duration::from_secs(11)));
    let moved = decide(&run, &seen(3, Phase::Publishing), at(105));
    assert_eq!(moved.status.phase, Some(Phase::Publishing));
    let later = decide(&run, &seen(2, Phase::Running), at(115));
    assert_eq!(later.status.activity.as_deref(), Some("step 2"));
}

#[test]
fn finished_run_saves_result_before_releasing_pod() {
    let seen = ClusterState {
        job: job(),
        pod: Some(running()),
        stream: LogStream::Open(snapshot(9, Phase::Publishing, Some(outcome()))),
        admission: None,
        refusal: None,
    };
    let mut run = with_job(run());
    let decision = decide(&run, &seen, at(50));
    assert_eq!(end_of(&decision), Some((outcome().phase, outcome().reason)));
    assert!(decision.status.outcome.is_some());
    run.status = Some(decision.status);
    // The supervisor gets time to exit.
    let finished = run.status.as_ref().unwrap().completion_time.unwrap();
    assert_eq!(actions(&decide(&run, &seen, finished)), [&Action::SaveResult]);
    let hung = decide(&run, &seen, finished + EXIT_TIMEOUT);
    assert!(hung.actions.contains(&Action::SuspendJob), "{:?}", hung.actions);
    let after = decide(&run, &ClusterState { pod: Some(ended(None, None)), ..seen }, at(51));
    assert_eq!(actions(&after), [&Action::SaveResult, &Action::SetJobTtl, &Action::RemovePodFinalizer]);
    assert_eq!(after.status.result_config_map_name.as_deref(), Some(result_name(run.name()).as_str()));
}

#[test]
fn pod_end_without_outcome_reports_reason_and_volume() {
    let closed = || LogStream::Closed(snapshot(3, Phase::Running, None));
    let problem =
        |reason| Some(PodProblem { reason, message: "details".to_owned(), terminal: true, hint: None });
    for (problem, expected) in [
        (None, Reason::SupervisorLost),
        (problem(Reason::OutOfMemory), Reason::OutOfMemory),
        (problem(Reason::Evicted), Reason::Evicted),
        (problem(Reason::NodeLost), Reason::NodeLost),
    ] {
        let seen = ClusterState {
            job: job(),
            pod: Some(ended(None, problem)),
            stream: closed(),
            ..ClusterState::default()
        };
        let decision = decide(&with_job(run()), &seen, at(11));
        assert_eq!(end_of(&decision), Some((expected.phase(), expected)));
        let work = decision.status.work.unwrap();
        assert_eq!(work.path.as_deref(), Some("workspace-trader"), "{expected}");
        assert!(decision.status.message.unwrap().contains("workspace-trader"));
    }
}

#[test]
fn termination_message_is_used_when_log_is_missing() {
    let message = outcome().termination_message();
    let seen = ClusterState {
        job: job(),
        pod: Some(ended(Some(&message), None)),
        stream: LogStream::Closed(snapshot(3, Phase::Running, None)),
        admission: None,
        refusal: None,
    };
    let decision = decide(&with_job(run()), &seen, at(11));
    assert_eq!(end_of(&decision), Some((outcome().phase, outcome().reason)));
    assert_eq!(decision.status.work, Some(outcome().work));
    // The message of another run is ignored.
    let other = message.replace(run().name(), "other");
    let seen = ClusterState { pod: Some(ended(Some(&other), None)), ..seen };
    let decision = decide(&with_job(run()), &seen, at(11));
    assert_eq!(end_of(&decision), Some((Phase::Failed, Reason::SupervisorLost)));
}

#[test]
fn log_is_read_long_after_pod_end() {
    let message = outcome().termination_message();
    let seen = |stream| ClusterState {
        job: job(),
        pod: Some(ended(Some(&message), None)),
        stream,
        admission: None,
        refusal: None,
    };
    // No controller ran for an hour after the end.
    let first = decide(&with_job(run()), &seen(LogStream::NotStarted), at(3600));
    assert_eq!(first.status.reason, None);
    assert!(first.actions.contains(&Action::FollowLogs), "{:?}", first.actions);
    let open = LogStream::Open(snapshot(3, Phase::Running, None));
    let reading = decide(&with_job(run()), &seen(open), at(3600));
    assert_eq!(reading.status.reason, None);
    assert!(reading.requeue_after.is_some());
    let read = LogStream::Closed(snapshot(4, Phase::Running, Some(outcome())));
    let read = decide(&with_job(run()), &seen(read), at(3601));
    assert_eq!(end_of(&read), Some((outcome().phase, outcome().reason)));
    assert!(read.status.outcome.is_some());
    // Only a log that cannot be read leaves the digest.
    let gone = LogStream::Closed(snapshot(0, Phase::Pending, None));
    let digest = decide(&with_job(run()), &seen(gone), at(3900));
    assert_eq!(end_of(&digest), Some((outcome().phase, outcome().reason)));
    assert!(digest.status.outcome.is_none());
}

/// An outcome that says that a signal stopped the run.
fn stopped() -> Box<Outcome> {
    let mut outcome = outcome();
    (outcome.reason, outcome.phase) = (Reason::Stopped, Phase::Stopped);
    (outcome.exit_code, outcome.retryable) = (143, Reason::Stopped.retryable());
    outcome.message = "the run was stopped on request. Retry to continue.".to_owned();
    outcome
}

#[test]
fn stop_from_outside_is_attributed_to_its_cause() {
    let evicted = || PodProblem {
        reason: Reason::Evicted,
        message: "Eviction API: evicting".to_owned(),
        terminal: true,
        hint: None,
    };
    let seen = |deletion_grace_seconds, disruption| {
        let pod = ended(Some(&stopped().termination_message()), None);
        let pod = PodInfo { deletion_grace_seconds, disruption, ..pod };
        ClusterState {
            job: job(),
            pod: Some(pod),
            stream: LogStream::Closed(snapshot(4, Phase::Running, Some(stopped()))),
            ..ClusterState::default()
        }
    };
    let cases = [
        (Some(300), None, Reason::PodDeleted, "the pod pod was deleted; the work is on `"),
        (Some(300), Some(evicted()), Reason::Evicted, "Eviction API: evicting; the work is on `"),
        (None, None, Reason::Stopped, "the run was stopped on request"),
    ];
    for (grace, disruption, reason, message) in cases {
        let seen = seen(grace, disruption);
        let decision = decide(&with_job(run()), &seen, at(20));
        assert_eq!(end_of(&decision), Some((reason.phase(), reason)));
        let shown = decision.status.message.clone().unwrap();
        assert!(shown.starts_with(message), "{shown}");
        let saved: Outcome = serde_json::from_value(decision.status.outcome.unwrap()).unwrap();
        assert_eq!((saved.reason, saved.exit_code), (reason, reason.exit_code()));
        // The digest is attributed like the outcome.
        let log_gone = ClusterState { stream: LogStream::Closed(snapshot(0, Phase::Pending, None)), ..seen };
        assert_eq!(end_of(&decide(&with_job(run()), &log_gone, at(20))), Some((reason.phase(), reason)));
    }
    // A stop that was requested is a stop, whatever deletes the pod.
    let mut requested = with_job(run());
    requested.spec.stop = Some(StopMode::Graceful);
    assert_eq!(
        end_of(&decide(&requested, &seen(Some(300), Some(evicted())), at(20))),
        Some((Phase::Stopped, Reason::Stopped))
    );
}

#[test]
fn startup_problem_fails_run_only_when_terminal() {
    let seen = |terminal| ClusterState {
        job: job(),
        pod: Some(pod(PodState::Starting {
            problem: Some(PodProblem {
                reason: Reason::ImageUnavailable,
                message: "no such image".to_owned(),
                terminal,
                hint: None,
            }),
        })),
        ..ClusterState::default()
    };
    let waiting = decide(&with_job(run()), &seen(false), at(5));
    assert_eq!(waiting.status.reason, None);
    assert!(waiting.status.message.as_deref().unwrap().contains("no such image"));
    assert!(matches!(
        waiting.actions.last(),
        Some(Action::RecordEvent { warning: true, reason: "ImageUnavailable", .. })
    ));
    let over = decide(&with_job(run()), &seen(true), at(45));
    assert_eq!(end_of(&over), Some((Phase::Failed, Reason::ImageUnavailable)));
    let mut run = with_job(run());
    run.status = Some(over.status);
    let after = decide(&run, &seen(true), at(46));
    assert!(after.actions.contains(&Action::SuspendJob), "{:?}", after.actions);
    assert!(after.actions.contains(&Action::RemovePodFinalizer));
}

#[test]
fn stop_is_graceful_until_escalated_to_now() {
    let seen = ClusterState {
        job: job(),
        pod: Some(running()),
        stream: LogStream::Open(snapshot(3, Phase::Running, None)),
        admission: None,
        refusal: None,
    };
    let mut run = with_job(run());
    run.spec.stop = Some(StopMode::Graceful);
    let decision = decide(&run, &seen, at(20));
    assert_eq!(actions(&decision), [&Action::SuspendJob]);
    run.status = Some(decision.status);
    run.spec.stop = Some(StopMode::Now);
    let suspended =
        ClusterState { job: Some(JobState { suspended: true, ..JobState::default() }), ..seen.clone() };
    assert_eq!(
        actions(&decide(&run, &suspended, at(30))),
        [&Action::DeletePod { grace_seconds: STOP_NOW_GRACE_SECONDS }]
    );
    // A pod that exceeds its grace period is lost.
    let late =
        decide(&run, &suspended, at(20 + TERMINATION_GRACE_PERIOD_SECONDS + POD_DELETION_SLACK_SECONDS));
    assert_eq!(end_of(&late), Some((Phase::Failed, Reason::SupervisorLost)));
}

#[test]
fn deleted_run_is_stopped_before_finalizer_removal() {
    let mut deleted = with_job(run());
    deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
    let seen = ClusterState {
        job: job(),
        pod: Some(running()),
        stream: LogStream::Open(snapshot(3, Phase::Running, None)),
        admission: None,
        refusal: None,
    };
    let decision = decide(&deleted, &seen, at(20));
    assert_eq!(actions(&decision), [&Action::SuspendJob]);
    deleted.status = Some(decision.status);
    let over =
        ClusterState { stream: LogStream::Open(snapshot(9, Phase::Publishing, Some(outcome()))), ..seen };
    deleted.status = Some(decide(&deleted, &over, at(25)).status);
    let over = ClusterState { pod: Some(ended(None, None)), ..over };
    let released = decide(&deleted, &over, at(26));
    assert_eq!(actions(&released).last(), Some(&&Action::RemoveFinalizer));
    assert!(released.actions.contains(&Action::SaveResult));
    // A run that never started is released as well.
    let mut waiting = run();
    waiting.metadata.deletion_timestamp = waiting.metadata.creation_timestamp.clone();
    let decision = decide(&waiting, &ClusterState::default(), at(1));
    assert_eq!(end_of(&decision), Some((Phase::Stopped, Reason::Stopped)));
    waiting.status = Some(decision.status);
    assert_eq!(actions(&decide(&waiting, &ClusterState::default(), at(2))), [&Action::RemoveFinalizer]);
}

/// An external event.
#[derive(Clone, Copy, Debug)]
enum ClusterEvent {
    Admitted,
    PodCreated,
    PodStarted,
    ProgressReported,
    OutcomeReported,
    PodTerminated,
    PodEvicted,
    PodDeleted,
    JobDeleted,
    GracefulStopRequested,
    StopNowRequested,
    RunDeleted,
    ControllerRestarted,
    MinutesPassed,
    DayPassed,
}

fn cluster_event() -> impl Strategy<Value = ClusterEvent> {
    use ClusterEvent::*;
    prop::sample::select(vec![
        Admitted,
        PodCreated,
        PodStarted,
        ProgressReported,
        OutcomeReported,
        PodTerminated,
        PodEvicted,
        PodDeleted,
        JobDeleted,
        GracefulStopRequested,
        StopNowRequested,
        RunDeleted,
        ControllerRestarted,
        MinutesPassed,
        DayPassed,
    ])
}

/// The observed state of a cluster with one run.
struct Cluster {
    run: TaskRun,
    seen: ClusterState,
    now: i64,
    jobs_created: u32,
    is_deleted: bool,
    first_end: Option<(Phase, Reason)>,
}

impl Cluster {
    fn apply(&mut self, event: ClusterEvent) {
        let live = matches!(
            self.seen.pod.as_ref().map(|pod| &pod.state),
            Some(PodState::Starting { .. } | PodState::Running { .. })
        );
        match event {
            ClusterEvent::Admitted => self.seen.admission = Some(Admission::Admitted),
            ClusterEvent::PodCreated
                if self.seen.job.as_ref().is_some_and(|job| !job.suspended) && self.seen.pod.is_none() =>
            {
                self.seen.pod = Some(pod(PodState::Starting { problem: None }));
            }
            ClusterEvent::PodStarted if live => self.seen.pod = Some(running()),
            ClusterEvent::ProgressReported if !matches!(self.seen.stream, LogStream::NotStarted) => {
                self.seen.stream =
                    LogStream::Open(snapshot(u64::try_from(self.now).unwrap(), Phase::Running, None));
            }
            ClusterEvent::OutcomeReported if !matches!(self.seen.stream, LogStream::NotStarted) => {
                self.seen.stream = LogStream::Closed(snapshot(999_999, Phase::Publishing, Some(outcome())));
            }
            ClusterEvent::PodTerminated if live => {
                self.seen.pod = Some(PodInfo {
                    state: PodState::Ended(PodEnd { finished: Some(at(self.now)), ..PodEnd::default() }),
                    ..running()
                });
            }
            ClusterEvent::PodEvicted if live => {
                let problem = PodProblem {
                    reason: Reason::Evicted,
                    message: "details".to_owned(),
                    terminal: true,
                    hint: None,
                };
                self.seen.pod = Some(ended(None, Some(problem)));
            }
            ClusterEvent::PodDeleted => self.seen.pod = None,
            ClusterEvent::JobDeleted => {
                self.seen.job = None;
                self.seen.pod = None;
            }
            ClusterEvent::GracefulStopRequested => {
                self.run.spec.stop = self.run.spec.stop.or(Some(StopMode::Graceful));
            }
            ClusterEvent::StopNowRequested => self.run.spec.stop = Some(StopMode::Now),
            ClusterEvent::RunDeleted => {
                self.run.metadata.deletion_timestamp = self.run.metadata.creation_timestamp.clone();
            }
            ClusterEvent::ControllerRestarted => self.seen.stream = LogStream::NotStarted,
            ClusterEvent::MinutesPassed => self.now += 90,
            ClusterEvent::DayPassed => self.now += 86_400,
            // The event is impossible in the current state.
            ClusterEvent::PodCreated
            | ClusterEvent::PodStarted
            | ClusterEvent::ProgressReported
            | ClusterEvent::OutcomeReported
            | ClusterEvent::PodTerminated
            | ClusterEvent::PodEvicted => {}
        }
    }

    /// Reconciles until nothing changes, and checks the invariants.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            if self.is_deleted {
                return Ok(());
            }
            let decision = decide(&self.run, &self.seen, at(self.now));
            let was_final = self.run.phase().is_final();
            for action in &decision.actions {
                match action {
                    Action::CreateJob => {
                        prop_assert!(
                            self.run.requested_stop().is_none(),
                            "a Job was created despite a stop request"
                        );
                        prop_assert!(!was_final, "a Job was created for a finished run");
                        self.jobs_created += 1;
                        self.seen.job = Some(JobState::default());
                    }
                    Action::FollowLogs => {
                        let empty = snapshot(0, Phase::Pending, None);
                        self.seen.stream = LogStream::Open(empty);
                    }
                    Action::SuspendJob => {
                        let job = self.seen.job.as_mut();
                        prop_assert!(job.is_some(), "a missing Job was suspended");
                        if let Some(job) = job {
                            job.suspended = true;
                        }
                    }
                    Action::RemovePodFinalizer => {
                        prop_assert!(was_final, "the pod was released before the final status was written");
                        self.seen.pod = None;
                    }
                    Action::DeleteJob => {
                        prop_assert!(was_final);
                        self.seen.job = None;
                    }
                    Action::SetJobTtl => self.seen.job.as_mut().unwrap().has_ttl = true,
                    Action::SaveResult => prop_assert!(was_final),
                    Action::RemoveFinalizer => {
                        prop_assert!(was_final, "the run was released before the final status was written");
                        prop_assert!(self.run.metadata.deletion_timestamp.is_some());
                        self.is_deleted = true;
                    }
                    Action::DeletePod { grace_seconds } => {
                        self.seen.pod.as_mut().unwrap().deletion_grace_seconds = Some(*grace_seconds);
                    }
                    Action::AddFinalizer | Action::AcquireVolume | Action::RecordEvent { .. } => {}
                }
            }
            prop_assert!(self.jobs_created <= 1, "a second Job was created");
            let end = end_of(&decision);
            prop_assert_eq!(end.is_some(), decision.status.phase.is_some_and(Phase::is_final));
            if let Some(first) = self.first_end {
                prop_assert_eq!(end, Some(first), "the final reason changed");
            }
            self.first_end = self.first_end.or(end);
            let same = self.run.status.as_ref() == Some(&decision.status);
            self.run.status = Some(decision.status);
            if same && decision.actions.is_empty() {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("the controller does not settle"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// In any order of events, a run has at most one Job and exactly one final reason.
    #[test]
    fn any_event_order_reaches_single_final_state(events in prop::collection::vec(cluster_event(), 0..40)) {
        let seen = ClusterState { admission: Some(Admission::Queued { position: 1, waiting_for: "other".to_owned() }), ..ClusterState::default() };
        let mut cluster = Cluster { run: run(), seen, now: 0, jobs_created: 0, is_deleted: false, first_end: None };
        cluster.settle()?;
        for event in events {
            cluster.apply(event);
            cluster.settle()?;
        }
        // The run is deleted, and the cluster terminates its pod.
        cluster.apply(ClusterEvent::RunDeleted);
        cluster.settle()?;
        cluster.apply(ClusterEvent::PodTerminated);
        cluster.apply(ClusterEvent::DayPassed);
        cluster.settle()?;
        cluster.apply(ClusterEvent::PodDeleted);
        cluster.settle()?;
        prop_assert!(cluster.is_deleted, "a deleted run remains: {:?} {:?}", cluster.run.status, cluster.seen);
    }
}

#[test]
fn failed_preparation_ends_run_as_workspace_unwritable() {
    let output = "WorkspaceUnwritable: cannot create `/v/private.new`: Permission denied.";
    let terminated = serde_json::json!({"exitCode": 73, "reason": "Error", "message": output});
    let failed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "pod", "creationTimestamp": at(0).to_string()},
        "status": {"phase": "Failed", "initContainerStatuses": [{
            "name": "prepare", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated},
        }]},
    }))
    .unwrap();
    let state = super::super::pod::observe(&failed, 15.0, at(9));
    // The log of a container that never ran cannot be read.
    let seen = ClusterState { job: job(), pod: Some(pod(state)), ..ClusterState::default() };
    let decision = decide(&with_job(run()), &seen, at(9));
    assert_eq!(end_of(&decision), Some((Phase::Failed, Reason::WorkspaceUnwritable)));
    assert_eq!(decision.status.exit_code, Some(73));
    let message = decision.status.message.clone().unwrap_or_default();
    assert!(message.contains("Permission denied") && message.contains("storage class"), "{message}");
    let location = decision.status.work.as_ref().map(|work| work.location);
    assert_eq!(location, Some(orchestrator_contract::outcome::WorkLocation::None));
    let complete = decision.status.conditions.iter().find(|condition| condition.type_ == "Complete").unwrap();
    assert_eq!((complete.status.as_str(), complete.reason.as_str()), ("True", "WorkspaceUnwritable"));
}
