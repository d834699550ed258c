//! The main case: a submitted task becomes a branch with a pull request.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpStatus, VerificationStatus};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

/// A script that fixes the crate.
fn fixes() -> Script {
    Script::new()
        .turn(Turn::bash("cat src/lib.rs && git status --short && git log --oneline | head -3"))
        .turn(Turn::tool(
            "mcp__memory__create_entities",
            json!({"entities": [{"name": "best_bid", "entityType": "function", "observations": ["returned the first bid"]}]}),
        ))
        .turn(fix())
        .turn(Turn::bash("cargo test --offline 2>&1 | tail -5"))
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

#[test]
fn first_attempt_opens_pull_request_with_passing_test() {
    let env = TestEnv::start(fixes());
    let (output, outcome) = env.submit(&["--verify", "cargo test --offline"]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 0);
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    assert_eq!(outcome.commits, 1);
    let memory = outcome.mcp_servers.iter().find(|server| server.name == "memory").unwrap();
    assert_eq!((memory.status, memory.tools), (McpStatus::Connected, 9));
    let pull = outcome.pull_request.as_ref().unwrap();
    assert!(pull.created);
    let lib = env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    let patch = std::fs::read_to_string(env.layout("trader").run_dir(&outcome.run).diff()).unwrap();
    assert!(patch.contains("+++ b/src/lib.rs") && patch.contains(RIGHT), "{patch}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn branch_of_other_author_is_left_unchanged() {
    let mut env = TestEnv::start(Script::new());
    env.git.commit(
        "acme/trader",
        "feature/task-1-implementation",
        "By hand",
        &[("by-hand.txt", "by hand\n")],
    );
    env.record_refs();
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (64, Reason::BranchExists), "{output:#?}\n{outcome:#?}");
    assert!(env.model.conversation().is_empty());
    env.assert_invariants(&outcome);
}
