//! Pull requests on a host that fails, limits rates, and renames repositories.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_tests::github::{Call, Fault};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

const BRANCH: &str = "feature/task-1-implementation";

fn edits(nth: u32) -> Turn {
    Turn::bash(format!("echo '{nth}' >> notes.txt"))
}

fn works() -> Script {
    Script::new().turn(edits(1)).turn(Turn::verdict("done", "It is done."))
}

/// Asserts that the run completes with one pull request.
#[track_caller]
fn assert_one_pull_request(env: &TestEnv) {
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 0);
    let pull = outcome.pull_request.as_ref().unwrap();
    assert!(pull.created);
    assert_eq!(Some(&pull.head), outcome.work.oid.as_ref());
    assert_eq!(env.github.pulls().len(), 1);
    env.assert_invariants(&outcome);
}

#[test]
fn lost_create_response_makes_no_second_pull_request() {
    for status in [500, 502] {
        let env = TestEnv::start(works());
        env.github.fail(Call::Create, 1, Fault::StatusAfter(status));
        assert_one_pull_request(&env);
    }
}

#[test]
fn rate_limited_host_is_retried() {
    let env = TestEnv::start(works());
    env.github.fail(Call::Create, 1, Fault::SecondaryLimit(1));
    env.github.fail(Call::List, 1, Fault::Status(429, Some(1)));
    env.github.fail(Call::Read, 1, Fault::Status(503, None));
    assert_one_pull_request(&env);
}

#[test]
fn slow_host_response_is_awaited() {
    let env = TestEnv::start(works());
    env.github.fail(Call::Create, 1, Fault::Late(std::time::Duration::from_secs(3)));
    assert_one_pull_request(&env);
}

#[test]
fn renamed_repository_gets_pull_request_under_new_name() {
    let env = TestEnv::start(works());
    std::os::unix::fs::symlink(env.git.path("acme/trader"), env.git.path("acme/broker")).unwrap();
    env.github.rename("acme/trader", "acme/broker");
    assert_one_pull_request(&env);
    assert_eq!(env.github.pulls()[0]["repository"], "acme/broker");
}

#[test]
fn github_enterprise_api_path_is_used() {
    let mut env = TestEnv::start(works());
    let url = format!("{}/api/v3", env.github.url());
    env.set("GITHUB_API_URL", &url);
    assert_one_pull_request(&env);
    let requests = env.github.requests();
    assert!(requests.iter().all(|request| request.line.contains(" /api/v3/repos/")), "{requests:#?}");
}

#[test]
fn rejected_pull_request_reports_failure_keeping_branch() {
    let env = TestEnv::start(works());
    env.github.fail(Call::Create, 1, Fault::Status(422, None));
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::PullRequestFailed, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 69);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!(outcome.pull_request, None);
    env.assert_invariants(&outcome);
}

#[test]
fn retry_updates_existing_pull_request() {
    let script = works().turn(edits(2)).turn(Turn::verdict("done", "Now it is really done."));
    let mut env = TestEnv::start(script);
    assert_one_pull_request(&env);
    let first = env.github.pulls();
    env.record_refs();
    let (output, outcome) = env.submit(&["--retry", "--guidance", "Once more."]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    let pulls = env.github.pulls();
    assert_eq!(pulls.len(), 1);
    assert_eq!(pulls[0]["number"], first[0]["number"]);
    assert!(pulls[0]["body"].as_str().unwrap().contains("Now it is really done."), "{}", pulls[0]);
    assert!(!outcome.pull_request.as_ref().unwrap().created);
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n2\n"));
    env.assert_invariants(&outcome);
}

#[test]
fn failed_attempt_adds_one_comment_to_open_pull_request() {
    let blocked = json!({ "status": "blocked", "summary": "It cannot be.", "question": "Which market?" });
    let script = works().turn(edits(2)).turn(Turn::verdict_with(blocked));
    let mut env = TestEnv::start(script);
    assert_one_pull_request(&env);
    env.record_refs();
    // The comment exists, but its response was lost: it is not repeated.
    env.github.fail(Call::Comment, 1, Fault::StatusAfter(502));
    let (output, outcome) = env.submit(&["--retry"]);
    assert_eq!(outcome.reason, Reason::AgentBlocked, "{output:#?}\n{outcome:#?}");
    assert_eq!(output.code, 1);
    let comments = env.github.comments();
    assert_eq!(comments.len(), 1, "{comments:#?}");
    let text = comments[0]["body"].as_str().unwrap();
    assert!(text.contains("AgentBlocked") && text.contains("attempt2"), "{text}");
    assert_eq!(env.github.pulls().len(), 1);
    env.assert_invariants(&outcome);
}

#[test]
fn failed_first_attempt_pushes_branch_without_pull_request() {
    let blocked = json!({ "status": "blocked", "summary": "It cannot be.", "question": "Which market?" });
    let env = TestEnv::start(Script::new().turn(edits(1)).turn(Turn::verdict_with(blocked)));
    let (output, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::AgentBlocked, "{output:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("Which market?"), "{}", outcome.message);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!((env.github.pulls().len(), env.github.comments().len()), (0, 0));
    env.assert_invariants(&outcome);
}

#[test]
fn target_on_other_host_is_pushed_without_pull_request() {
    let mut env = TestEnv::start(works());
    env.set("ORCHESTRATOR_GIT_HOSTS", "localhost");
    let url = env.git.url("acme/trader").replace("127.0.0.1", "localhost");
    let (output, outcome) = env.submit(&["--repository-url", &url]);
    assert_eq!(outcome.reason, Reason::Completed, "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.pull_request, None);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    let log = env.dispatcher(&["logs", outcome.run.as_str()]);
    assert!(log.stdout.contains("not on a GitHub host"), "{log:#?}");
    assert_eq!(env.github.requests().len(), 0);
    env.assert_invariants(&outcome);
}
