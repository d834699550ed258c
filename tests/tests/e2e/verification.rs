//! The service's verify commands decide whether a pull request is opened.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{VerificationStatus, WorkLocation};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{fix, fixes};
use orchestrator_tests::test_env::TestEnv;

/// A command that prints 42 without containing it.
const CHECK: &str = "grep -q max src/lib.rs || { echo no maximum $((40+2)); exit 3; }";

#[test]
fn failed_verification_is_fixed_in_session_then_published() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(fix().expecting("no maximum 42").expecting("a try"))
        .turn(Turn::verdict("done", "Now it is the highest."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--verify", CHECK]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    assert_eq!(outcome.sessions.len(), 1, "one conversation");
    let sessions: std::collections::BTreeSet<_> =
        env.model.conversation().into_iter().map(|request| request.session).collect();
    assert_eq!(sessions.len(), 1);
    assert!(outcome.pull_request.is_some());
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn work_failing_verification_is_pushed_without_pull_request() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(Turn::bash("echo '// another try' >> src/lib.rs").expecting("no maximum 42"))
        .turn(Turn::verdict("done", "Tried again."));
    let env = TestEnv::start(script);
    let (output, outcome) = env.submit(&["--verify", CHECK]);
    assert_eq!((output.code, outcome.reason), (1, Reason::VerificationFailed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::Failed);
    assert_eq!(outcome.verification.commands[0].exit_code, Some(3));
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert!(env.github.pulls().is_empty());
    let lib = env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains("another try"), "{lib}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn pull_request_without_verify_commands_says_not_verified() {
    let env = TestEnv::start(fixes());
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.verification.status, VerificationStatus::NotConfigured);
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("Not verified"), "{body}");
    env.assert_invariants(&outcome);
}
