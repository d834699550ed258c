use std::time::Duration;

use super::*;
use proptest::prelude::*;

const PREPARED: [RunEvent; 6] = [
    RunEvent::StepDone(Step::Preflight),
    RunEvent::StepDone(Step::FetchPlatform),
    RunEvent::StepDone(Step::FetchTarget),
    RunEvent::StepDone(Step::Branch),
    RunEvent::StepDone(Step::Documents),
    RunEvent::StepDone(Step::Mcp),
];

fn done() -> RunEvent {
    RunEvent::AgentEnded(SessionOutcome::Verdict(VerdictStatus::Done, String::new()))
}

fn failed(reason: Reason) -> Failure {
    Failure::new(reason, "because")
}

/// Creates a run that never waits for a usage limit.
fn new_run(until: Option<Step>) -> (RunMachine, Vec<Effect>) {
    RunMachine::new(until, QuotaBudget::from_minutes(0.0))
}

/// Feeds events to a prepared run; returns its end, the effects after `StartAgent`, and the run.
fn play(events: &[RunEvent]) -> (RunEnd, Vec<Effect>, RunMachine) {
    let (mut run, mut effects) = new_run(None);
    for event in PREPARED.iter().chain(events) {
        effects.extend(run.handle(event.clone()));
    }
    let started = effects.iter().position(|effect| matches!(effect, Effect::StartAgent(..)));
    let after = effects.split_off(started.map_or(effects.len(), |at| at + 1));
    (run.end(), after, run)
}

fn reason(end: &RunEnd) -> Reason {
    match end {
        RunEnd::Outcome(failure) => failure.reason,
        RunEnd::StoppedAfter(_) => panic!("stopped early"),
    }
}

#[test]
fn successful_run_takes_steps_in_order() {
    let (end, effects, run) = play(&[
        done(),
        RunEvent::Saved(1),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Verified(VerifyResult::Passed),
        RunEvent::Pushed(None),
        RunEvent::StepDone(Step::PullRequest),
    ]);
    assert_eq!(reason(&end), Reason::Completed);
    assert!(run.is_done());
    assert_eq!(
        effects,
        [
            Effect::Perform(Step::Commit),
            Effect::Perform(Step::Policy),
            Effect::Verify,
            Effect::Push,
            Effect::PullRequest(PullRequestMode::Open),
            Effect::Report,
        ]
    );
}

#[test]
fn graceful_stop_pushes_work_without_opening_pull_request() {
    let (end, effects, _) = play(&[
        RunEvent::StopRequested(StopMode::Graceful),
        RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed))),
        RunEvent::Saved(2),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Pushed(None),
        RunEvent::StepDone(Step::PullRequest),
    ]);
    assert_eq!(reason(&end), Reason::Stopped);
    assert_eq!(
        effects,
        [
            Effect::TerminateAgent,
            Effect::Perform(Step::Commit),
            Effect::Perform(Step::Policy),
            Effect::Push,
            Effect::PullRequest(PullRequestMode::CommentIfOpen),
            Effect::Report,
        ]
    );
}

#[test]
fn second_stop_kills_agent_without_push() {
    let (_, effects, _) = play(&[
        RunEvent::StopRequested(StopMode::Graceful),
        RunEvent::StopRequested(StopMode::Now),
        RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed))),
        RunEvent::Saved(1),
        RunEvent::StepDone(Step::Policy),
    ]);
    assert_eq!(effects[..2], [Effect::TerminateAgent, Effect::KillAgent]);
    assert!(matches!(effects.last(), Some(Effect::KeepInWorkspace(_))), "{effects:?}");
}

#[test]
fn stop_during_publish_cancels_only_when_repeated() {
    let published = [
        done(),
        RunEvent::Saved(1),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Verified(VerifyResult::Passed),
        RunEvent::StopRequested(StopMode::Graceful),
    ];
    let home = [RunEvent::Pushed(None), RunEvent::StepDone(Step::PullRequest)];
    let (end, ..) = play(&[&published[..], &home[..]].concat());
    assert_eq!(reason(&end), Reason::Completed);
    let (end, effects, _) = play(&[&published[..], &[RunEvent::StopRequested(StopMode::Now)]].concat());
    assert_eq!(reason(&end), Reason::Stopped);
    assert_eq!(effects.last(), Some(&Effect::Cancel));
}

#[test]
fn stop_now_cancels_commit_and_skips_policy() {
    let committing = [
        done(),
        RunEvent::Verified(VerifyResult::Passed),
        RunEvent::StopRequested(StopMode::Graceful),
        RunEvent::StopRequested(StopMode::Now),
    ];
    let (_, effects, _) = play(&committing);
    assert_eq!(effects.last(), Some(&Effect::Cancel), "{effects:?}");
    let saved = [RunEvent::Saved(1)];
    let (_, effects, _) = play(&[&committing[..], &saved[..]].concat());
    assert!(matches!(effects.last(), Some(Effect::KeepInWorkspace(_))), "{effects:?}");
    assert!(!effects.contains(&Effect::Perform(Step::Policy)), "{effects:?}");
    let left = [RunEvent::StepFailed(Step::Commit, failed(Reason::Stopped))];
    let (end, effects, _) = play(&[&committing[..], &left[..]].concat());
    assert_eq!(reason(&end), Reason::Stopped);
    assert_eq!(effects.last(), Some(&Effect::Report));
}

#[test]
fn stop_now_during_policy_keeps_work_without_push() {
    let checking = [
        done(),
        RunEvent::Verified(VerifyResult::Passed),
        RunEvent::Saved(1),
        RunEvent::StopRequested(StopMode::Graceful),
        RunEvent::StopRequested(StopMode::Now),
    ];
    // The result of the cancelled check arrives late.
    let late = [RunEvent::StepDone(Step::Policy)];
    let (_, effects, _) = play(&[&checking[..], &late[..]].concat());
    let [.., Effect::Cancel, Effect::KeepInWorkspace(why)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(why.reason, Reason::Stopped);
    assert!(!effects.contains(&Effect::Push), "{effects:?}");
}

#[test]
fn stop_now_skips_pull_request() {
    let saving =
        [done(), RunEvent::StopRequested(StopMode::Graceful), RunEvent::StopRequested(StopMode::Now)];
    let (end, effects, _) = play(&[&saving[..], &[RunEvent::Saved(0)]].concat());
    assert_eq!(reason(&end), Reason::Stopped);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::PullRequest(_))), "{effects:?}");
}

#[test]
fn failed_verification_returns_to_agent_once() {
    let (end, effects, _) = play(&[
        done(),
        RunEvent::Saved(1),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Verified(VerifyResult::Failed("`cargo test` failed".to_owned())),
        done(),
        RunEvent::Saved(1),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Verified(VerifyResult::Failed("`cargo test` failed again".to_owned())),
        RunEvent::Pushed(None),
    ]);
    assert_eq!(reason(&end), Reason::VerificationFailed);
    let starts = effects.iter().filter(|effect| matches!(effect, Effect::StartAgent(..))).count();
    assert_eq!(starts, 1, "{effects:?}");
    assert_eq!(effects.last(), Some(&Effect::PullRequest(PullRequestMode::CommentIfOpen)));
}

#[test]
fn done_without_changes_ends_as_no_changes() {
    let (end, ..) = play(&[done(), RunEvent::Saved(0), RunEvent::Verified(VerifyResult::Passed)]);
    assert_eq!(reason(&end), Reason::NoChanges);
}

#[test]
fn already_done_requires_verdict_with_unchanged_branch() {
    let nothing = RunEvent::AgentEnded(SessionOutcome::Verdict(VerdictStatus::AlreadyDone, String::new()));
    let (end, ..) = play(&[nothing.clone(), RunEvent::Saved(0), RunEvent::Verified(VerifyResult::Passed)]);
    assert_eq!(reason(&end), Reason::AlreadyDone);
    let (end, effects, _) = play(&[nothing, RunEvent::Saved(1), RunEvent::StepDone(Step::Policy)]);
    assert_eq!(reason(&end), Reason::Completed);
    assert_eq!(effects.last(), Some(&Effect::Verify));
}

#[test]
fn secret_in_commit_keeps_work_in_workspace() {
    let (end, effects, _) = play(&[
        done(),
        RunEvent::Saved(1),
        RunEvent::StepFailed(Step::Policy, failed(Reason::SecretInCommit)),
        RunEvent::Pushed(Some(failed(Reason::SecretInCommit))),
    ]);
    assert_eq!(reason(&end), Reason::SecretInCommit);
    assert!(!effects.contains(&Effect::Push) && !effects.contains(&Effect::Verify));
    assert_eq!(effects.last(), Some(&Effect::Report));
}

#[test]
fn stop_between_commit_and_verification_skips_verification() {
    for (before, after) in [(1, vec![RunEvent::Saved(1)]), (2, vec![])] {
        let saved = [done(), RunEvent::Saved(1)];
        let stopped = [RunEvent::StopRequested(StopMode::Graceful)];
        let home = [RunEvent::StepDone(Step::Policy), RunEvent::Pushed(None)];
        let (end, effects, _) = play(&[&saved[..before], &stopped[..], &after[..], &home[..]].concat());
        assert_eq!(reason(&end), Reason::Stopped);
        assert!(!effects.contains(&Effect::Verify), "{effects:?}");
        assert_eq!(effects.last(), Some(&Effect::PullRequest(PullRequestMode::CommentIfOpen)));
    }
}

#[test]
fn stop_during_verification_pushes_unverified_work() {
    let verifying = [done(), RunEvent::Saved(1), RunEvent::StepDone(Step::Policy)];
    let cancelled = || RunEvent::Verified(VerifyResult::Error(failed(Reason::Stopped)));
    let graceful = [RunEvent::StopRequested(StopMode::Graceful), cancelled()];
    let (end, effects, _) = play(&[&verifying[..], &graceful[..]].concat());
    assert_eq!(reason(&end), Reason::Stopped);
    assert_eq!(effects[3..], [Effect::Cancel, Effect::Push]);
    let now =
        [RunEvent::StopRequested(StopMode::Graceful), RunEvent::StopRequested(StopMode::Now), cancelled()];
    let (_, effects, _) = play(&[&verifying[..], &now[..]].concat());
    assert!(matches!(effects.last(), Some(Effect::KeepInWorkspace(_))), "{effects:?}");
}

#[test]
fn limits_of_agent_do_not_end_verification() {
    let verifying = [done(), RunEvent::Saved(1), RunEvent::StepDone(Step::Policy)];
    for (limit, expected) in [
        (Limit::Cost, Reason::Completed),
        (Limit::Turns, Reason::Completed),
        (Limit::Time, Reason::TimeLimit),
    ] {
        let end = [RunEvent::LimitReached(limit), RunEvent::Verified(VerifyResult::Passed)];
        let (end, ..) = play(&[&verifying[..], &end[..]].concat());
        assert_eq!(reason(&end), expected, "{limit:?}");
    }
}

#[test]
fn until_verify_stops_before_push() {
    let (mut run, _) = new_run(Some(Step::Verify));
    for event in PREPARED.into_iter().chain([done(), RunEvent::Saved(1)]) {
        run.handle(event);
    }
    assert_eq!(run.handle(RunEvent::StepDone(Step::Policy)), [Effect::Verify]);
    assert_eq!(run.handle(RunEvent::Verified(VerifyResult::Passed)), [Effect::Report]);
    assert_eq!(run.end(), RunEnd::StoppedAfter(Step::Verify));
}

#[test]
fn push_failure_after_agent_failure_is_only_noted() {
    let (end, _, run) = play(&[
        RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed))),
        RunEvent::Saved(1),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Pushed(Some(failed(Reason::PushRejected))),
    ]);
    assert_eq!(reason(&end), Reason::AgentFailed);
    assert_eq!(run.notes(), ["PushRejected: because"]);
}

#[test]
fn stop_during_preflight_starts_no_agent() {
    let (mut run, _) = new_run(None);
    assert_eq!(run.handle(RunEvent::StopRequested(StopMode::Graceful)), [Effect::Cancel, Effect::Report]);
    assert_eq!(run.handle(RunEvent::StepDone(Step::Preflight)), []);
    assert_eq!(reason(&run.end()), Reason::Stopped);
}

#[test]
fn until_stops_after_step_without_outcome() {
    let (mut run, _) = new_run(Some(Step::FetchPlatform));
    assert_eq!(run.handle(PREPARED[0].clone()), [Effect::Perform(Step::FetchPlatform)]);
    assert_eq!(run.handle(PREPARED[1].clone()), [Effect::Report]);
    assert_eq!(run.end(), RunEnd::StoppedAfter(Step::FetchPlatform));
}

/// Prepares a docs run of `tasks` sessions; returns it with its effects so far.
fn documents(tasks: usize, concurrency: usize) -> (RunMachine, Vec<Effect>) {
    let (mut run, mut effects) = new_run(None);
    let batch = Batch::new((0..tasks).map(|task| format!("task {task}")).collect(), concurrency);
    for event in PREPARED {
        let is_plan = event == RunEvent::StepDone(Step::Documents);
        effects.extend(run.handle(if is_plan { RunEvent::DocsPlanned(batch.clone()) } else { event }));
    }
    (run, effects)
}

#[test]
fn docs_run_publishes_all_sessions_together() {
    let (mut run, mut effects) = documents(2, 1);
    for event in [
        RunEvent::SessionEnded(0, DocsSessionResult::Written),
        RunEvent::SessionEnded(1, DocsSessionResult::Rejected(vec!["a stub".to_owned()])),
        RunEvent::SessionEnded(1, DocsSessionResult::Written),
        RunEvent::Saved(2),
        RunEvent::StepDone(Step::Policy),
        RunEvent::Pushed(None),
        RunEvent::StepDone(Step::PullRequest),
    ] {
        effects.extend(run.handle(event));
    }
    assert_eq!(reason(&run.end()), Reason::Completed);
    let expected = [
        Effect::StartAgent(0, AgentPrompt::Task),
        Effect::StartAgent(1, AgentPrompt::Task),
        Effect::StartAgent(1, AgentPrompt::VerificationFailed("a stub".to_owned())),
        Effect::Perform(Step::Commit),
        Effect::Perform(Step::Policy),
        Effect::Push,
        Effect::PullRequest(PullRequestMode::Open),
        Effect::Report,
    ];
    assert!(effects.ends_with(&expected), "{effects:?}");
}

#[test]
fn stopped_docs_run_pushes_written_documents() {
    let (mut run, _) = documents(3, 2);
    run.handle(RunEvent::SessionEnded(0, DocsSessionResult::Written));
    assert_eq!(run.handle(RunEvent::StopRequested(StopMode::Graceful)), [Effect::TerminateAgent]);
    assert_eq!(run.handle(RunEvent::GracePeriodExpired), [Effect::KillAgent]);
    let killed = || DocsSessionResult::Failed(failed(Reason::AgentFailed));
    assert_eq!(run.handle(RunEvent::SessionEnded(1, killed())), []);
    assert_eq!(run.handle(RunEvent::SessionEnded(2, killed())), [Effect::Perform(Step::Commit)]);
    run.handle(RunEvent::Saved(1));
    assert_eq!(run.handle(RunEvent::StepDone(Step::Policy)), [Effect::Push]);
    assert_eq!(run.handle(RunEvent::Pushed(None)), [Effect::PullRequest(PullRequestMode::CommentIfOpen)]);
    assert_eq!(reason(&run.end()), Reason::Stopped);
}

#[test]
fn docs_run_without_missing_documents_starts_no_agent() {
    let (mut run, effects) = documents(0, 2);
    assert_eq!(effects.last(), Some(&Effect::Perform(Step::Commit)));
    assert!(!effects.contains(&Effect::Perform(Step::Mcp)));
    assert_eq!(run.handle(RunEvent::Saved(0)), [Effect::PullRequest(PullRequestMode::CommentIfOpen)]);
    assert_eq!(reason(&run.end()), Reason::AlreadyDone);
}

fn any_event() -> impl Strategy<Value = RunEvent> {
    let step = prop::sample::select(Step::ALL.to_vec());
    prop_oneof![
        step.clone().prop_map(RunEvent::StepDone),
        step.prop_map(|step| RunEvent::StepFailed(step, failed(Reason::InternalError))),
        prop::sample::select(vec![VerdictStatus::Done, VerdictStatus::AlreadyDone, VerdictStatus::Blocked])
            .prop_map(|status| RunEvent::AgentEnded(SessionOutcome::Verdict(status, String::new()))),
        Just(RunEvent::AgentEnded(SessionOutcome::Failed(failed(Reason::AgentFailed)))),
        (0_usize..3).prop_map(|index| RunEvent::SessionEnded(index, DocsSessionResult::Written)),
        (0_usize..3).prop_map(|index| RunEvent::SessionEnded(index, DocsSessionResult::Rejected(Vec::new()))),
        (0_usize..3).prop_map(|index| {
            RunEvent::SessionEnded(index, DocsSessionResult::Failed(failed(Reason::AgentFailed)))
        }),
        Just(RunEvent::Verified(VerifyResult::Passed)),
        Just(RunEvent::Verified(VerifyResult::Failed(String::new()))),
        (0u32..2).prop_map(RunEvent::Saved),
        Just(RunEvent::Pushed(None)),
        Just(RunEvent::Pushed(Some(failed(Reason::PushRejected)))),
        Just(RunEvent::StopRequested(StopMode::Graceful)),
        Just(RunEvent::StopRequested(StopMode::Now)),
        Just(RunEvent::LimitReached(Limit::Time)),
        Just(RunEvent::GracePeriodExpired),
        prop::option::of(0_u64..7200).prop_map(|seconds| {
            let wait = seconds.map(Duration::from_secs);
            RunEvent::UsageLimitReached(failed(Reason::ModelQuotaExceeded), wait)
        }),
        Just(RunEvent::QuotaWaitOver),
    ]
}

proptest! {
    /// Checks that the report is the only and last one, that `Completed` implies an opened pull
    /// request and a verification of the last commit, and that no agent starts after a stop or while the
    /// run waits for a usage limit, which it does within its budget.
    #[test]
    fn run_machine_invariants_hold_for_any_event_order(
        tasks in prop::option::of(0_usize..3), events in prop::collection::vec(any_event(), 0..40),
    ) {
        let (mut run, mut effects) = match tasks {
            None => RunMachine::new(None, QuotaBudget::from_minutes(120.0)),
            Some(tasks) => documents(tasks, 2),
        };
        let mut stopped = false;
        for event in events {
            let stop = matches!(event, RunEvent::StopRequested(_));
            let before = effects.len();
            let waited = matches!(run.state, State::WaitingForQuota { .. });
            let resumes = waited && event == RunEvent::QuotaWaitOver;
            effects.extend(run.handle(event));
            if waited && stop {
                prop_assert_eq!(effects.get(before), Some(&Effect::Perform(Step::Commit)));
            } else if waited {
                let resumed = effects[before..] == [Effect::StartAgent(0, AgentPrompt::Continue)];
                prop_assert_eq!(resumed, resumes);
            }
            if stopped {
                let starts = effects[before..].iter().any(|e| matches!(e, Effect::StartAgent(..)));
                prop_assert!(!starts);
            }
            stopped |= stop;
        }
        let wait = |effect: &Effect| if let Effect::WaitForQuota(wait) = effect { Some(*wait) } else { None };
        let total: Duration = effects.iter().filter_map(wait).sum();
        prop_assert!(total <= Duration::from_secs(2 * 3600));
        prop_assert!(tasks.is_none() || total.is_zero());
        let reports = effects.iter().filter(|effect| **effect == Effect::Report).count();
        prop_assert!(reports <= 1);
        prop_assert_eq!(run.is_done(), reports == 1);
        if reports == 1 {
            prop_assert_eq!(effects.last(), Some(&Effect::Report));
            if reason(&run.end()) == Reason::Completed {
                prop_assert!(effects.contains(&Effect::PullRequest(PullRequestMode::Open)));
                let last = |wanted: &Effect| effects.iter().rposition(|effect| effect == wanted);
                let verified = last(&Effect::Verify) > last(&Effect::Perform(Step::Commit));
                prop_assert!(verified || tasks.is_some());
                prop_assert!(last(&Effect::Push) > last(&Effect::Verify));
            }
        }
    }
}
