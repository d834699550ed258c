//! What goes wrong between us and the git host, and what people do there meanwhile.
//!
//! A host that is silent for ever is not here: the watchdog that ends it waits for two
//! minutes and cannot be set; the supervisor's own tests have it.

use std::sync::{Arc, Mutex};

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::git_server::{Access, Fault, GitServer, Operation};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

const BRANCH: &str = "feature/task-1-implementation";

/// A model that changes a file.
fn works() -> Script {
    Script::new().turn(edits(1)).turn(Turn::verdict("done", "It is done."))
}

fn edits(nth: u32) -> Turn {
    Turn::bash(format!("echo '{nth}' >> notes.txt"))
}

#[track_caller]
fn assert_completes(world: &TestEnv) {
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 0);
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    assert_eq!(world.git.tips("acme/trader").len(), 2);
    world.assert_invariants(&outcome);
}

/// The log says that the fault was met.
#[track_caller]
fn assert_tried_again(world: &TestEnv) {
    let run = world.last_outcome("trader", "1").run;
    let log = world.dispatcher(&["logs", run.as_str()]);
    assert!(log.stdout.contains("retrying in"), "{log:#?}");
}

#[test]
fn clone_cut_at_any_point_is_retried() {
    for share in [0, 50, 99] {
        let world = TestEnv::start(works());
        // The first answer says how deep the history is; a later one is the pack.
        world.git.fail(Operation::Fetch, 1, Fault::CutAtPercent(share));
        world.git.fail(Operation::Fetch, 3, Fault::CutAtPercent(share));
        assert_completes(&world);
        assert_tried_again(&world);
    }
}

#[test]
fn truncated_pack_is_fetched_again() {
    let world = TestEnv::start(works());
    // What is said before the pack is shorter, and so is not met.
    for nth in 1..=3 {
        world.git.fail(Operation::Fetch, nth, Fault::Truncate(200));
    }
    assert_completes(&world);
    assert_tried_again(&world);
}

#[test]
fn temporary_host_error_is_retried() {
    for fault in [Fault::Status(429, Some(1)), Fault::Status(500, None), Fault::Status(503, None)] {
        let world = TestEnv::start(works());
        for operation in [Operation::AdvertiseFetch, Operation::AdvertisePush, Operation::Fetch] {
            world.git.fail(operation, 1, fault.clone());
        }
        assert_completes(&world);
        assert_tried_again(&world);
    }
}

#[test]
fn persistent_host_error_ends_run_before_model_request() {
    let world = TestEnv::start(Script::new());
    for nth in 1..20 {
        world.git.fail(Operation::AdvertiseFetch, nth, Fault::Status(500, None));
    }
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::RemoteUnavailable, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 75);
    assert!(outcome.message.contains("acme/"), "{}", outcome.message);
    assert_eq!(world.model.requests().len(), 0);
    world.assert_invariants(&outcome);
}

#[test]
fn cross_host_redirect_is_refused_without_contact() {
    for operation in [Operation::AdvertiseFetch, Operation::Fetch] {
        let world = TestEnv::start(Script::new());
        let other = GitServer::start();
        for nth in 1..10 {
            world.git.fail(operation, nth, Fault::Redirect(other.origin()));
        }
        let (ran, outcome) = world.submit(&[]);
        assert_ne!(ran.code, 0, "{ran:#?}");
        assert!(outcome.message.contains("redirect"), "{}", outcome.message);
        assert_eq!(other.requests().len(), 0);
        assert_eq!(world.model.requests().len(), 0);
        world.assert_invariants(&outcome);
    }
}

#[test]
fn push_with_lost_response_is_found_on_remote() {
    let world = TestEnv::start(works());
    world.git.fail(Operation::Push, 1, Fault::ResetAfter);
    assert_completes(&world);
}

#[test]
fn push_during_temporary_host_error_is_retried() {
    let world = TestEnv::start(works());
    // The first advertisement is that of the check.
    world.git.fail(Operation::AdvertisePush, 2, Fault::Status(503, None));
    world.git.fail(Operation::Push, 1, Fault::Status(500, None));
    assert_completes(&world);
    assert_tried_again(&world);
}

#[test]
fn push_declined_by_hook_leaves_bundle() {
    let world = TestEnv::start(works());
    world.git.decline_pushes("acme/trader", "no pushes on Sundays");
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::PushRejected, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 76);
    assert!(outcome.message.contains("no pushes on Sundays"), "{}", outcome.message);
    assert_eq!(outcome.work.location, WorkLocation::Workspace);
    let (bundle, oid) = (outcome.work.path.clone().unwrap(), outcome.work.oid.clone().unwrap());
    world.git.ask("acme/trader", &["bundle", "verify", &bundle]);
    let heads = world.git.ask("acme/trader", &["bundle", "list-heads", &bundle]);
    assert!(heads.contains(&oid) && heads.contains(BRANCH), "{heads}");
    assert_eq!(world.github.pulls().len(), 0);
    world.assert_invariants(&outcome);
}

#[test]
fn rejected_workflow_file_becomes_patch_while_rest_is_pushed() {
    let file = ".github/workflows/ci.yml";
    let script = Script::new()
        .turn(Turn::bash(format!(
            "mkdir -p .github/workflows && echo 'on: push' > {file} && echo 1 >> notes.txt"
        )))
        .turn(Turn::verdict("done", "It is done."));
    let world = TestEnv::start(script);
    let message = format!(
        "refusing to allow a Personal Access Token to create or update workflow `{file}` without `workflow` scope"
    );
    world.git.decline_path("acme/trader", file, &message);
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::PushRejected, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 76);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n"));
    assert_eq!(world.git.read("acme/trader", BRANCH, file), None);
    let patch = std::fs::read_to_string(outcome.work.path.as_ref().unwrap()).unwrap();
    assert!(patch.contains(file) && patch.contains("+on: push"), "{patch}");
    world.assert_invariants(&outcome);
}

#[test]
fn history_before_fetched_commit_is_not_needed() {
    let mut world = TestEnv::start(works());
    for nth in 1..4 {
        world.git.commit("acme/trader", "main", "More", &[("more.txt", &nth.to_string())]);
    }
    world.remember_refs();
    assert_completes(&world);
}

type Deed = Box<dyn FnOnce() + Send>;

/// What happens elsewhere while the model is asked.
#[derive(Clone, Default)]
struct Meanwhile(Arc<Mutex<Option<Deed>>>);

impl Meanwhile {
    /// A turn in whose time it happens.
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
fn assert_beside(world: &TestEnv) {
    let (ran, outcome) = world.submit(&["--retry"]);
    assert_eq!(outcome.reason, Reason::BranchDiverged, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 76);
    let sibling = format!("{BRANCH}--trader-claude-agent-1-task1-attempt2");
    assert_eq!(outcome.work.branch.as_deref(), Some(sibling.as_str()));
    assert_eq!(world.git.read("acme/trader", &sibling, "notes.txt").as_deref(), Some("1\n2\n"));
    assert!(outcome.message.contains(BRANCH), "{}", outcome.message);
    world.assert_invariants(&outcome);
}

#[test]
fn branch_created_concurrently_is_left_unchanged() {
    let meanwhile = Meanwhile::default();
    let script =
        Script::new().turn(meanwhile.turn("echo 1 >> notes.txt")).turn(Turn::verdict("done", "It is done."));
    let mut world = TestEnv::start(script);
    let oid = Arc::new(Mutex::new(String::new()));
    let (git, made) = (Arc::clone(&world.git), Arc::clone(&oid));
    meanwhile.happens(move || {
        *made.lock().unwrap() = git.commit("acme/trader", BRANCH, "By hand", &[("hand.txt", "1\n")]);
    });
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::BranchDiverged, "{ran:#?}\n{outcome:#?}");
    let oid = oid.lock().unwrap().clone();
    assert_eq!(world.git.tips("acme/trader")[BRANCH], oid);
    world.somebody_moved(BRANCH, Some(&oid));
    let sibling = format!("{BRANCH}--trader-claude-agent-1-task1-attempt1");
    assert_eq!(world.git.read("acme/trader", &sibling, "notes.txt").as_deref(), Some("1\n"));
    world.assert_invariants(&outcome);
}

/// Two attempts, with something happening to the branch in the second.
fn two_attempts(meanwhile: &Meanwhile) -> TestEnv {
    let script = Script::new()
        .turn(edits(1))
        .turn(Turn::verdict("done", "It is done."))
        .turn(meanwhile.turn("echo 2 >> notes.txt"))
        .turn(Turn::verdict("done", "It is done again."));
    let mut world = TestEnv::start(script);
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    world.remember_refs();
    world
}

#[test]
fn branch_moved_concurrently_is_left_unchanged() {
    let meanwhile = Meanwhile::default();
    let mut world = two_attempts(&meanwhile);
    let (git, hand) = (Arc::clone(&world.git), [("hand.txt", "1\n")]);
    // Made beforehand under another name, so that its oid is known.
    let tip = world.git.tips("acme/trader")[BRANCH].clone();
    world.git.ask("acme/trader", &["update-ref", "refs/heads/hand", &tip]);
    let oid = world.git.commit("acme/trader", "hand", "By hand", &hand);
    world.git.delete("acme/trader", "hand");
    world.somebody_moved(BRANCH, Some(&oid));
    let moved = oid.clone();
    meanwhile.happens(move || {
        git.ask("acme/trader", &["update-ref", &format!("refs/heads/{BRANCH}"), &moved]);
    });
    assert_beside(&world);
    assert_eq!(world.git.tips("acme/trader")[BRANCH], oid);
}

#[test]
fn branch_deleted_concurrently_is_not_recreated() {
    let meanwhile = Meanwhile::default();
    let mut world = two_attempts(&meanwhile);
    let git = Arc::clone(&world.git);
    world.somebody_moved(BRANCH, None);
    meanwhile.happens(move || git.delete("acme/trader", BRANCH));
    assert_beside(&world);
    assert_eq!(world.git.tips("acme/trader").get(BRANCH), None);
}

#[test]
fn token_rotated_during_agent_step_is_reread() {
    let meanwhile = Meanwhile::default();
    let script =
        Script::new().turn(meanwhile.turn("echo 1 >> notes.txt")).turn(Turn::verdict("done", "It is done."));
    let mut world = TestEnv::start(script);
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("token");
    std::fs::write(&file, &world.token).unwrap();
    world.set("GITHUB_TOKEN", "");
    world.set("ORCHESTRATOR_GITHUB_TOKEN_FILE", file.to_str().unwrap());
    let (git, old, new) = (Arc::clone(&world.git), world.token.clone(), format!("ghp_{}", "n3w".repeat(12)));
    let rotated = new.clone();
    meanwhile.happens(move || {
        git.forget(&old);
        git.allow(&new, Access::Write);
        std::fs::write(&file, &new).unwrap();
    });
    assert_completes(&world);
    // The new token is as secret as the old one.
    world.token = rotated;
    let outcome = world.last_outcome("trader", "1");
    world.assert_invariants(&outcome);
}
