//! What the service's checks say decides whether there is a pull request.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{Place, VerificationStatus};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{mend, mends};
use orchestrator_tests::world::World;

/// A check that says 42 in a way that its command line does not.
const CHECK: &str = "grep -q max src/lib.rs || { echo no maximum $((40+2)); exit 3; }";

#[test]
fn a_failed_check_goes_back_to_the_conversation_and_the_mended_work_is_published() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(mend().expecting("no maximum 42").expecting("a try"))
        .turn(Turn::verdict("done", "Now it is the highest."));
    let world = World::start(script);
    let (ran, outcome) = world.submit(&["--verify", CHECK]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    assert_eq!(outcome.sessions.len(), 1, "one conversation");
    let sessions: std::collections::BTreeSet<_> =
        world.model.conversation().into_iter().map(|request| request.session).collect();
    assert_eq!(sessions.len(), 1);
    assert!(outcome.pull_request.is_some());
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

#[test]
fn work_that_never_passes_is_pushed_without_a_pull_request() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(Turn::bash("echo '// another try' >> src/lib.rs").expecting("no maximum 42"))
        .turn(Turn::verdict("done", "Tried again."));
    let world = World::start(script);
    let (ran, outcome) = world.submit(&["--verify", CHECK]);
    assert_eq!((ran.code, outcome.reason), (1, Reason::VerificationFailed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Failed);
    assert_eq!(outcome.verification.commands[0].exit_code, Some(3));
    assert_eq!(outcome.work.place, Place::Remote);
    assert!(world.github.pulls().is_empty());
    let lib = world.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("another try"), "{lib}");
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

#[test]
fn without_checks_the_pull_request_says_that_nothing_was_verified() {
    let world = World::start(mends());
    let (ran, outcome) = world.submit(&[]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::NotConfigured);
    let body = world.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("Not verified"), "{body}");
    world.assert_invariants(&outcome);
}
