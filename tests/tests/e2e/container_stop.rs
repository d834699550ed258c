//! The agent image: stopped and killed runs lose no work.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation as WorkPlace;
use orchestrator_tests::engine::{Container, Engine, RunDirs};
use orchestrator_tests::git_server::{Fault as GitFault, Operation};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::test_env::TestEnv;

const BRANCH: &str = "feature/task-1-implementation";

/// A script that fixes the crate and then stalls; the next attempt continues.
fn stalls() -> Script {
    let again = Turn::verdict("done", "It is done.").after(Fault::no_answer());
    Script::new().turn(fix()).turn(again)
}

/// A script that fixes the crate; the next attempt reports that it is done.
fn fixes() -> Script {
    let done = || Turn::verdict("done", "It is done.");
    Script::new().turn(fix()).turn(done()).turn(done())
}

/// Asserts that the next run in the workspace succeeds.
#[track_caller]
fn assert_next_run_succeeds(engine: &Engine, env: &TestEnv, dirs: &RunDirs, more: &[&str]) {
    let (output, outcome) = engine.run_in(env, dirs).start_task(env, more).outcome();
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    let lib = env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    env.assert_invariants(&outcome);
}

#[track_caller]
fn assert_stopped(container: &Container) -> orchestrator_contract::Outcome {
    let (output, outcome) = container.outcome();
    assert_eq!((output.code, outcome.reason), (143, Reason::Stopped), "{output:#?}\n{outcome:#?}");
    outcome
}

#[test]
fn stop_during_fetch_is_immediate_with_clean_retry() {
    let Some(engine) = Engine::get() else { return };
    // Both repositories are fetched concurrently: both or one of them stall.
    for silent in [&[1, 2][..], &[2]] {
        let env = TestEnv::start(fixes());
        let dirs = RunDirs::new(&env);
        for &nth in silent {
            env.git.fail(Operation::Fetch, nth, GitFault::Silence);
        }
        let container = engine.run_in(&env, &dirs).start_task(&env, &[]);
        container.wait_until("fetches", |_| env.git.arrived(Operation::Fetch) >= 2);
        container.stop(30);
        let outcome = assert_stopped(&container);
        assert_eq!(outcome.work.location, WorkPlace::None);
        assert_eq!(env.model.requests().len(), 0);
        assert_next_run_succeeds(&engine, &env, &dirs, &["--retry"]);
    }
}

#[test]
fn stop_during_agent_step_pushes_work_for_next_run() {
    let Some(engine) = Engine::get() else { return };
    let mut env = TestEnv::start(stalls());
    let dirs = RunDirs::new(&env);
    let container = engine.run_in(&env, &dirs).start_task(&env, &[]);
    container.wait_until("second question", |_| env.model.conversation().len() >= 2);
    container.stop(60);
    let outcome = assert_stopped(&container);
    assert_eq!(outcome.work.location, WorkPlace::Remote, "{outcome:#?}");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    assert!(env.github.pulls().is_empty());
    env.assert_invariants(&outcome);
    env.record_refs();
    assert_next_run_succeeds(&engine, &env, &dirs, &["--retry"]);
}

/// Returns whether a directory holds a file of this name, at most `depth` levels below.
fn holds(folder: &std::path::Path, name: &str, depth: usize) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.any(|path| path.ends_with(name) || depth > 0 && holds(&path, name, depth - 1))
}

#[test]
fn stop_during_verify_pushes_work() {
    let Some(engine) = Engine::get() else { return };
    let env = TestEnv::start(fixes());
    let dirs = RunDirs::new(&env);
    let container = engine.run_in(&env, &dirs);
    let container = container.start_task(&env, &["--verify", "touch started; sleep 600"]);
    let exports = dirs.workspace().join("verify");
    container.wait_until("check", |_| holds(&exports, "started", 3));
    container.stop(60);
    let outcome = assert_stopped(&container);
    assert_eq!(outcome.work.location, WorkPlace::Remote, "{outcome:#?}");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    env.assert_invariants(&outcome);
}

#[test]
fn second_stop_during_push_keeps_work_for_next_run() {
    let Some(engine) = Engine::get() else { return };
    let env = TestEnv::start(fixes());
    let dirs = RunDirs::new(&env);
    env.git.fail(Operation::Push, 1, GitFault::Silence);
    let container = engine.run_in(&env, &dirs).start_task(&env, &[]);
    container.wait_until("push", |_| env.git.arrived(Operation::Push) >= 1);
    container.signal("TERM");
    // A second signal that arrives while the first is pending would be lost, see signal(7).
    container.wait_until("first stop", |container| container.logs().stdout.contains("stop requested"));
    container.stop(60);
    let outcome = assert_stopped(&container);
    assert_eq!(outcome.work.location, WorkPlace::Workspace, "{outcome:#?}");
    let path = outcome.work.path.clone().unwrap();
    let here = dirs.workspace().join(path.strip_prefix("/workspace/").unwrap());
    assert!(here.exists(), "{path}");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").is_none(), "{:#?}", container.logs());
    assert_next_run_succeeds(&engine, &env, &dirs, &["--retry"]);
}

#[test]
fn kill_during_agent_step_loses_no_work() {
    let Some(engine) = Engine::get() else { return };
    let env = TestEnv::start(stalls());
    let dirs = RunDirs::new(&env);
    let container = engine.run_in(&env, &dirs).start_task(&env, &[]);
    container.wait_until("second question", |_| env.model.conversation().len() >= 2);
    container.signal("KILL");
    let output = container.end();
    assert_eq!((output.code, output.outcome().is_some()), (137, false), "{output:#?}");
    assert_next_run_succeeds(&engine, &env, &dirs, &["--retry"]);
}
