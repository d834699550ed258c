//! Every run ends: by its limits, by a person, by the model's refusal. Its work is never lost.

use std::time::Duration;

use orchestrator_contract::outcome::{VerdictStatus, WorkLocation};
use orchestrator_contract::{Outcome, Phase, Reason};
use orchestrator_tests::git_server::{Fault as GitFault, Operation};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{mend, mends};
use orchestrator_tests::test_env::{CommandOutput, TestEnv};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(60);

/// A model that changes something and then says nothing any more.
fn stalls() -> Script {
    Script::new().turn(mend()).turn(Turn::never(Fault::stalls_mid_stream()))
}

/// A model that never ends by itself.
fn goes_on(turns: usize) -> Script {
    (0..turns).fold(Script::new().turn(mend()), |script, number| {
        script.turn(Turn::bash(format!("echo {number} >> notes.txt")))
    })
}

fn assert_pushed_without_pull_request(world: &TestEnv, outcome: &Outcome) {
    assert_eq!(outcome.work.location, WorkLocation::Remote, "{outcome:#?}");
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-1-implementation"));
    let lib = world.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("max()"), "{lib}");
    assert!(world.github.pulls().is_empty());
    world.assert_invariants(outcome);
}

fn assert_ended(ran: &CommandOutput, outcome: &Outcome, code: i32, reason: Reason) {
    assert_eq!((ran.code, outcome.reason), (code, reason), "{ran:#?}\n{outcome:#?}");
}

#[test]
fn turn_limit_leaves_work_on_branch() {
    let world = TestEnv::start(goes_on(8));
    let (ran, outcome) = world.submit(&["--turns", "3"]);
    assert_ended(&ran, &outcome, 124, Reason::TurnLimit);
    assert_eq!(world.model.conversation().len(), 3);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn cost_limit_leaves_work_on_branch() {
    let script =
        Script::new().turn(mend().using(10, 10)).turn(Turn::bash("echo more").using(1_000_000, 1_000));
    let world = TestEnv::start(script);
    let (ran, outcome) = world.submit(&["--cost", "0.50"]);
    assert_ended(&ran, &outcome, 124, Reason::CostLimit);
    assert!(outcome.usage.cost_usd >= 0.5, "{:?}", outcome.usage);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn time_limit_leaves_work_on_branch() {
    let world = TestEnv::start(stalls());
    let (ran, outcome) = world.submit(&["--minutes", "0.2"]);
    assert_ended(&ran, &outcome, 124, Reason::TimeLimit);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn idle_limit_leaves_work_on_branch() {
    let world = TestEnv::start(stalls());
    std::fs::write(world.path("orchestrator.toml"), "[services.trader]\nlimits = { idle_minutes = 0.1 }\n")
        .unwrap();
    let (ran, outcome) = world.submit(&[]);
    assert_ended(&ran, &outcome, 124, Reason::IdleLimit);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn stopped_run_leaves_work_on_branch() {
    let world = TestEnv::start(stalls());
    let run = world.begin("1", &[]);
    assert!(world.model.wait_for_requests(2, SOON), "{:#}", world.status(&run));
    let stop = world.dispatcher(&["stop", &run]);
    assert_eq!(stop.code, 0, "{stop:?}");
    let (ran, outcome) = world.wait(&run);
    assert_ended(&ran, &outcome, 143, Reason::Stopped);
    assert_eq!(outcome.phase, Phase::Stopped);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn sigterm_stops_run_like_stop_command() {
    let world = TestEnv::start(stalls());
    let run = world.begin("1", &[]);
    assert!(world.model.wait_for_requests(2, SOON), "{:#}", world.status(&run));
    world.signal(&run, Signal::TERM);
    let (ran, outcome) = world.wait(&run);
    assert_ended(&ran, &outcome, 143, Reason::Stopped);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn stop_during_verify_pushes_work() {
    let world = TestEnv::start(mends());
    let run = world.begin("1", &["--verify", "sleep 300"]);
    world.wait_until(&run, |status| status["step"] == "verify");
    world.signal(&run, Signal::TERM);
    let (ran, outcome) = world.wait(&run);
    assert_ended(&ran, &outcome, 143, Reason::Stopped);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn stop_during_fetch_ends_immediately() {
    let world = TestEnv::start(Script::new());
    for number in 1..=2 {
        world.git.fail(Operation::Fetch, number, GitFault::Silence);
    }
    let run = world.begin("1", &[]);
    world.wait_until(&run, |status| status["step"] == "platform");
    world.signal(&run, Signal::TERM);
    let (ran, outcome) = world.wait(&run);
    assert_ended(&ran, &outcome, 143, Reason::Stopped);
    assert_eq!(outcome.work.location, WorkLocation::None);
    world.assert_invariants(&outcome);
}

#[test]
fn stop_now_keeps_work_in_workspace() {
    let world = TestEnv::start(mends());
    world.git.fail(Operation::Push, 1, GitFault::Silence);
    let run = world.begin("1", &[]);
    world.wait_until(&run, |status| status["step"] == "push");
    let stop = world.dispatcher(&["stop", "--now", &run]);
    assert_eq!(stop.code, 0, "{stop:?}");
    let (_, outcome) = world.wait(&run);
    assert_eq!(outcome.work.location, WorkLocation::Workspace, "{outcome:#?}");
    assert_eq!(outcome.phase, Phase::Stopped, "{outcome:#?}");
    assert!(world.github.pulls().is_empty());
    world.assert_invariants(&outcome);
}

fn assert_no_work(world: &TestEnv, outcome: &Outcome) {
    assert_eq!(outcome.work.location, WorkLocation::None, "{outcome:#?}");
    assert_eq!(world.git.tips("acme/trader").len(), 1);
    assert!(world.github.pulls().is_empty());
    world.assert_invariants(outcome);
}

#[test]
fn wrong_model_key_is_model_authentication_failed() {
    let mut world = TestEnv::start(Script::new());
    world.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (ran, outcome) = world.submit(&[]);
    assert_ended(&ran, &outcome, 77, Reason::ModelAuthenticationFailed);
    assert_no_work(&world, &outcome);
}

#[test]
fn unknown_model_is_model_not_found() {
    let world = TestEnv::start(Script::new());
    let (ran, outcome) = world.submit(&["--model", "mistake-9"]);
    assert_ended(&ran, &outcome, 78, Reason::ModelNotFound);
    assert_no_work(&world, &outcome);
}

#[test]
fn overloaded_model_is_model_unavailable() {
    let world = TestEnv::start(Script::new().turn(Turn::never(Fault::status(529))));
    let (ran, outcome) = world.submit(&[]);
    assert_ended(&ran, &outcome, 69, Reason::ModelUnavailable);
    assert_no_work(&world, &outcome);
}

#[test]
fn no_pull_request_option_completes_with_branch() {
    let world = TestEnv::start(mends());
    let (ran, outcome) = world.submit(&["--no-pull-request"]);
    assert_ended(&ran, &outcome, 0, Reason::Completed);
    assert_eq!(outcome.pull_request, None);
    assert_pushed_without_pull_request(&world, &outcome);
}

#[test]
fn already_done_verdict_succeeds_without_branch() {
    let world =
        TestEnv::start(Script::new().turn(Turn::verdict("already_done", "It is the highest already.")));
    let (ran, outcome) = world.submit(&[]);
    assert_ended(&ran, &outcome, 0, Reason::AlreadyDone);
    assert_eq!(outcome.verdict.as_ref().unwrap().status, VerdictStatus::AlreadyDone);
    assert_no_work(&world, &outcome);
}

#[test]
fn done_verdict_without_changes_fails() {
    let world = TestEnv::start(Script::new().turn(Turn::verdict("done", "I did it all.")));
    let (ran, outcome) = world.submit(&[]);
    assert_ended(&ran, &outcome, 1, Reason::NoChanges);
    assert_no_work(&world, &outcome);
}
