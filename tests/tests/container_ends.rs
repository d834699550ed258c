//! The agent image: how runs end that do not end by themselves. Nothing is lost.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation as WorkPlace;
use orchestrator_tests::engine::{Container, Engine, Place};
use orchestrator_tests::git_server::{Fault as GitFault, Operation};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{RIGHT, mend};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// A model that mends the crate and then says nothing any more; asked again, it goes on.
fn stalls() -> Script {
    let again = Turn::verdict("done", "It is done.").after(Fault::no_answer());
    Script::new().turn(mend()).turn(again)
}

/// A model that mends the crate, and asked again says that all is done.
fn mends() -> Script {
    let done = || Turn::verdict("done", "It is done.");
    Script::new().turn(mend()).turn(done()).turn(done())
}

/// The next run in the workspace ends as if nothing had happened.
#[track_caller]
fn assert_goes_on(engine: &Engine, world: &TestEnv, place: &Place, more: &[&str]) {
    let (ran, outcome) = engine.run_in(world, place).start_task(world, more).outcome();
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    let lib = world.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    world.assert_invariants(&outcome);
}

#[track_caller]
fn assert_stopped(container: &Container) -> orchestrator_contract::Outcome {
    let (ran, outcome) = container.outcome();
    assert_eq!((ran.code, outcome.reason), (143, Reason::Stopped), "{ran:#?}\n{outcome:#?}");
    outcome
}

#[test]
fn stop_during_fetch_is_immediate_with_clean_retry() {
    let Some(engine) = Engine::get() else { return };
    // Both repositories are fetched at the same time: neither answers, or one of them does not.
    for silent in [&[1, 2][..], &[2]] {
        let world = TestEnv::start(mends());
        let place = Place::new(&world);
        for &nth in silent {
            world.git.fail(Operation::Fetch, nth, GitFault::Silence);
        }
        let container = engine.run_in(&world, &place).start_task(&world, &[]);
        container.wait_until("fetches", |_| world.git.arrived(Operation::Fetch) >= 2);
        container.stop(30);
        let outcome = assert_stopped(&container);
        assert_eq!(outcome.work.location, WorkPlace::None);
        assert_eq!(world.model.requests().len(), 0);
        assert_goes_on(&engine, &world, &place, &["--retry"]);
    }
}

#[test]
fn stop_during_agent_step_pushes_work_for_next_run() {
    let Some(engine) = Engine::get() else { return };
    let mut world = TestEnv::start(stalls());
    let place = Place::new(&world);
    let container = engine.run_in(&world, &place).start_task(&world, &[]);
    container.wait_until("second question", |_| world.model.conversation().len() >= 2);
    container.stop(60);
    let outcome = assert_stopped(&container);
    assert_eq!(outcome.work.location, WorkPlace::Remote, "{outcome:#?}");
    assert!(world.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    assert!(world.github.pulls().is_empty());
    world.assert_invariants(&outcome);
    world.remember_refs();
    assert_goes_on(&engine, &world, &place, &["--retry"]);
}

#[test]
fn stop_during_verify_pushes_work() {
    let Some(engine) = Engine::get() else { return };
    let world = TestEnv::start(mends());
    let place = Place::new(&world);
    let container = engine.run_in(&world, &place);
    let container = container.start_task(&world, &["--verify", "touch started; sleep 600"]);
    let started = place.layout().target_repo().join("started");
    container.wait_until("check", |_| started.exists());
    container.stop(60);
    let outcome = assert_stopped(&container);
    assert_eq!(outcome.work.location, WorkPlace::Remote, "{outcome:#?}");
    assert!(world.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    world.assert_invariants(&outcome);
}

#[test]
fn second_stop_during_push_keeps_work_for_next_run() {
    let Some(engine) = Engine::get() else { return };
    let world = TestEnv::start(mends());
    let place = Place::new(&world);
    world.git.fail(Operation::Push, 1, GitFault::Silence);
    let container = engine.run_in(&world, &place).start_task(&world, &[]);
    container.wait_until("push", |_| world.git.arrived(Operation::Push) >= 1);
    container.signal("TERM");
    container.stop(60);
    let outcome = assert_stopped(&container);
    assert_eq!(outcome.work.location, WorkPlace::Workspace, "{outcome:#?}");
    let path = outcome.work.path.clone().unwrap();
    let here = place.workspace().join(path.strip_prefix("/workspace/").unwrap());
    assert!(here.exists(), "{path}");
    assert!(world.git.read("acme/trader", BRANCH, "src/lib.rs").is_none(), "{:#?}", container.logs());
    assert_goes_on(&engine, &world, &place, &["--retry"]);
}

#[test]
fn kill_during_agent_step_loses_no_work() {
    let Some(engine) = Engine::get() else { return };
    let world = TestEnv::start(stalls());
    let place = Place::new(&world);
    let container = engine.run_in(&world, &place).start_task(&world, &[]);
    container.wait_until("second question", |_| world.model.conversation().len() >= 2);
    container.signal("KILL");
    let ran = container.end();
    assert_eq!((ran.code, ran.outcome().is_some()), (137, false), "{ran:#?}");
    assert_goes_on(&engine, &world, &place, &["--retry"]);
}
