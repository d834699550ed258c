//! Faults of the git host, and changes that other users push during a run.
//!
//! A host that never answers is tested in the supervisor: the watchdog waits for two minutes and cannot be set.

use std::sync::{Arc, Mutex};

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::git_server::{Access, Fault, GitServer, Operation};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

const BRANCH: &str = "feature/task-1-implementation";

/// A script that changes a file.
fn works() -> Script {
    Script::new().turn(edits(1)).turn(Turn::verdict("done", "It is done."))
}

fn edits(nth: u32) -> Turn {
    Turn::bash(format!("echo '{nth}' >> notes.txt"))
}

#[track_caller]
fn assert_completes(env: &TestEnv) {
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 0);
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    assert_eq!(env.git.tips("acme/trader").len(), 2);
    env.assert_invariants(&outcome);
}

/// Asserts that the log mentions the fault.
#[track_caller]
fn assert_retried(env: &TestEnv) {
    let run = env.last_outcome("trader", "1").run;
    let log = env.dispatcher(&["logs", run.as_str()]);
    assert!(log.stdout.contains("retrying in"), "{log:#?}");
}

#[test]
fn clone_cut_at_any_point_is_retried() {
    for share in [0, 50, 99] {
        let env = TestEnv::start(works());
        // The first response has the depth of the history, a later one the pack.
        env.git.fail(Operation::Fetch, 1, Fault::CutAtPercent(share));
        env.git.fail(Operation::Fetch, 3, Fault::CutAtPercent(share));
        assert_completes(&env);
        assert_retried(&env);
    }
}

#[test]
fn truncated_pack_is_fetched_again() {
    let env = TestEnv::start(works());
    // The responses before the pack are shorter, so the fault does not apply to them.
    for nth in 1..=3 {
        env.git.fail(Operation::Fetch, nth, Fault::Truncate(200));
    }
    assert_completes(&env);
    assert_retried(&env);
}

#[test]
fn temporary_host_error_is_retried() {
    for fault in [Fault::Status(429, Some(1)), Fault::Status(500, None), Fault::Status(503, None)] {
        let env = TestEnv::start(works());
        for operation in [Operation::AdvertiseFetch, Operation::AdvertisePush, Operation::Fetch] {
            env.git.fail(operation, 1, fault.clone());
        }
        assert_completes(&env);
        assert_retried(&env);
    }
}

#[test]
fn persistent_host_error_ends_run_before_model_request() {
    let env = TestEnv::start(Script::new());
    for nth in 1..20 {
        env.git.fail(Operation::AdvertiseFetch, nth, Fault::Status(500, None));
    }
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::RemoteUnavailable, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 75);
    assert!(outcome.message.contains("acme/"), "{}", outcome.message);
    assert_eq!(env.model.requests().len(), 0);
    env.assert_invariants(&outcome);
}

#[test]
fn cross_host_redirect_is_refused_without_contact() {
    for operation in [Operation::AdvertiseFetch, Operation::Fetch] {
        let env = TestEnv::start(Script::new());
        let other = GitServer::start();
        for nth in 1..10 {
            env.git.fail(operation, nth, Fault::Redirect(other.origin()));
        }
        let (output, outcome) = env.submit(&[]);
        assert_ne!(output.code, 0, "{output:#?}");
        assert!(outcome.message.contains("redirect"), "{}", outcome.message);
        assert_eq!(other.requests().len(), 0);
        assert_eq!(env.model.requests().len(), 0);
        env.assert_invariants(&outcome);
    }
}

#[test]
fn push_with_lost_response_is_found_on_remote() {
    let env = TestEnv::start(works());
    env.git.fail(Operation::Push, 1, Fault::ResetAfter);
    assert_completes(&env);
}

#[test]
fn push_during_temporary_host_error_is_retried() {
    let env = TestEnv::start(works());
    // The first advertisement belongs to the preflight step.
    env.git.fail(Operation::AdvertisePush, 2, Fault::Status(503, None));
    env.git.fail(Operation::Push, 1, Fault::Status(500, None));
    assert_completes(&env);
    assert_retried(&env);
}

#[test]
fn push_declined_by_hook_leaves_bundle() {
    let env = TestEnv::start(works());
    env.git.decline_pushes("acme/trader", "no pushes on Sundays");
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::PushRejected, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 76);
    assert!(outcome.message.contains("no pushes on Sundays"), "{}", outcome.message);
    assert_eq!(outcome.work.location, WorkLocation::Workspace);
    let (bundle, oid) = (outcome.work.path.clone().unwrap(), outcome.work.oid.clone().unwrap());
    env.git.ask("acme/trader", &["bundle", "verify", &bundle]);
    let heads = env.git.ask("acme/trader", &["bundle", "list-heads", &bundle]);
    assert!(heads.contains(&oid) && heads.contains(BRANCH), "{heads}");
    assert_eq!(env.github.pulls().len(), 0);
    env.assert_invariants(&outcome);
}

#[test]
fn rejected_workflow_file_becomes_patch_while_rest_is_pushed() {
    let file = ".github/workflows/ci.yml";
    let script = Script::new()
        .turn(Turn::bash(format!(
            "mkdir -p .github/workflows && echo 'on: push' > {file} && echo 1 >> notes.txt"
        )))
        .turn(Turn::verdict("done", "It is done."));
    let env = TestEnv::start(script);
    let config = env.path("allow.toml");
    std::fs::write(&config, "[services.trader]\nprotected_paths_allow = [\".github/workflows/**\"]\n")
        .unwrap();
    let message = format!(
        "refusing to allow a Personal Access Token to create or update workflow `{file}` without `workflow` scope"
    );
    env.git.decline_path("acme/trader", file, &message);
    let (output, outcome) = env.submit(&["--config", config.to_str().unwrap()]);
    assert_eq!(outcome.reason, Reason::PushRejected, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 76);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    assert_eq!(env.git.read("acme/trader", BRANCH, file), None);
    let patch = std::fs::read_to_string(outcome.work.path.as_ref().unwrap()).unwrap();
    assert!(patch.contains(file) && patch.contains("+on: push"), "{patch}");
    env.assert_invariants(&outcome);
}

#[test]
fn history_before_fetched_commit_is_not_needed() {
    let mut env = TestEnv::start(works());
    for nth in 1..4 {
        env.git.commit("acme/trader", "main", "More", &[("more.txt", &nth.to_string())]);
    }
    env.record_refs();
    assert_completes(&env);
}

type Change = Box<dyn FnOnce() + Send>;

/// A change of the repository during a model request.
#[derive(Clone, Default)]
struct ConcurrentChange(Arc<Mutex<Option<Change>>>);

impl ConcurrentChange {
    /// A turn during which the change happens.
    fn turn(&self, command: &str) -> Turn {
        let (deed, command) = (Arc::clone(&self.0), command.to_owned());
        Turn::tool_from("Bash", move |_| {
            if let Some(deed) = deed.lock().unwrap().take() {
                deed();
            }
            json!({ "command": command, "description": "Run a command" })
        })
    }

    fn happens(&self, deed: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(deed));
    }
}

#[track_caller]
fn assert_beside(env: &TestEnv) {
    let (output, outcome) = env.submit(&["--retry"]);
    assert_eq!(outcome.reason, Reason::BranchDiverged, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 76);
    let sibling = format!("{BRANCH}--trader-claude-agent-1-task1-attempt2");
    assert_eq!(outcome.work.branch.as_deref(), Some(sibling.as_str()));
    assert_eq!(env.git.read("acme/trader", &sibling, "notes.txt").as_deref(), Some("1\n2\n"));
    assert!(outcome.message.contains(BRANCH), "{}", outcome.message);
    env.assert_invariants(&outcome);
}

#[test]
fn branch_created_concurrently_is_left_unchanged() {
    let change = ConcurrentChange::default();
    let script =
        Script::new().turn(change.turn("echo 1 >> notes.txt")).turn(Turn::verdict("done", "It is done."));
    let mut env = TestEnv::start(script);
    let oid = Arc::new(Mutex::new(String::new()));
    let (git, made) = (Arc::clone(&env.git), Arc::clone(&oid));
    change.happens(move || {
        *made.lock().unwrap() = git.commit("acme/trader", BRANCH, "By hand", &[("hand.txt", "1\n")]);
    });
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::BranchDiverged, "{output:#?}\n{outcome:#?}");
    let oid = oid.lock().unwrap().clone();
    assert_eq!(env.git.tips("acme/trader")[BRANCH], oid);
    env.record_external_push(BRANCH, Some(&oid));
    let sibling = format!("{BRANCH}--trader-claude-agent-1-task1-attempt1");
    assert_eq!(env.git.read("acme/trader", &sibling, "notes.txt").as_deref(), Some("1\n"));
    env.assert_invariants(&outcome);
}

/// Runs two attempts; the change happens during the second.
fn two_attempts(change: &ConcurrentChange) -> TestEnv {
    let script = Script::new()
        .turn(edits(1))
        .turn(Turn::verdict("done", "It is done."))
        .turn(change.turn("echo 2 >> notes.txt"))
        .turn(Turn::verdict("done", "It is done again."));
    let mut env = TestEnv::start(script);
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    env.record_refs();
    env
}

#[test]
fn branch_moved_concurrently_is_left_unchanged() {
    let change = ConcurrentChange::default();
    let mut env = two_attempts(&change);
    let (git, hand) = (Arc::clone(&env.git), [("hand.txt", "1\n")]);
    // Committed in advance under another name, so that its oid is known.
    let tip = env.git.tips("acme/trader")[BRANCH].clone();
    env.git.ask("acme/trader", &["update-ref", "refs/heads/hand", &tip]);
    let oid = env.git.commit("acme/trader", "hand", "By hand", &hand);
    env.git.delete("acme/trader", "hand");
    env.record_external_push(BRANCH, Some(&oid));
    let moved = oid.clone();
    change.happens(move || {
        git.ask("acme/trader", &["update-ref", &format!("refs/heads/{BRANCH}"), &moved]);
    });
    assert_beside(&env);
    assert_eq!(env.git.tips("acme/trader")[BRANCH], oid);
}

#[test]
fn branch_deleted_concurrently_is_not_recreated() {
    let change = ConcurrentChange::default();
    let mut env = two_attempts(&change);
    let git = Arc::clone(&env.git);
    env.record_external_push(BRANCH, None);
    change.happens(move || git.delete("acme/trader", BRANCH));
    assert_beside(&env);
    assert_eq!(env.git.tips("acme/trader").get(BRANCH), None);
}

#[test]
fn token_rotated_during_agent_step_is_reread() {
    let change = ConcurrentChange::default();
    let script =
        Script::new().turn(change.turn("echo 1 >> notes.txt")).turn(Turn::verdict("done", "It is done."));
    let mut env = TestEnv::start(script);
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("token");
    std::fs::write(&file, &env.token).unwrap();
    env.set("GITHUB_TOKEN", "");
    env.set("ORCHESTRATOR_GITHUB_TOKEN_FILE", file.to_str().unwrap());
    let (git, old, new) = (Arc::clone(&env.git), env.token.clone(), format!("ghp_{}", "n3w".repeat(12)));
    let rotated = new.clone();
    change.happens(move || {
        git.forget(&old);
        git.allow(&new, Access::Write);
        std::fs::write(&file, &new).unwrap();
    });
    assert_completes(&env);
    // The new token is secret, too.
    env.token = rotated;
    let outcome = env.last_outcome("trader", "1");
    env.assert_invariants(&outcome);
}
