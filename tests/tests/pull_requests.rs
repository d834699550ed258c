//! Pull requests on a host that fails, limits, renames and repeats: one of them, and the right one.

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

/// The run completes, and there is this one pull request.
#[track_caller]
fn assert_one_pull_request(world: &TestEnv) {
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 0);
    let pull = outcome.pull_request.as_ref().unwrap();
    assert!(pull.created);
    assert_eq!(Some(&pull.head), outcome.work.oid.as_ref());
    assert_eq!(world.github.pulls().len(), 1);
    world.assert_invariants(&outcome);
}

#[test]
fn lost_create_response_makes_no_second_pull_request() {
    for status in [500, 502] {
        let world = TestEnv::start(works());
        world.github.fail(Call::Create, 1, Fault::StatusAfter(status));
        assert_one_pull_request(&world);
    }
}

#[test]
fn rate_limited_host_is_retried() {
    let world = TestEnv::start(works());
    world.github.fail(Call::Create, 1, Fault::SecondaryLimit(1));
    world.github.fail(Call::List, 1, Fault::Status(429, Some(1)));
    world.github.fail(Call::Read, 1, Fault::Status(503, None));
    assert_one_pull_request(&world);
}

#[test]
fn slow_host_response_is_awaited() {
    let world = TestEnv::start(works());
    world.github.fail(Call::Create, 1, Fault::Late(std::time::Duration::from_secs(3)));
    assert_one_pull_request(&world);
}

#[test]
fn renamed_repository_gets_pull_request_under_new_name() {
    let world = TestEnv::start(works());
    std::os::unix::fs::symlink(world.git.path("acme/trader"), world.git.path("acme/broker")).unwrap();
    world.github.rename("acme/trader", "acme/broker");
    assert_one_pull_request(&world);
    assert_eq!(world.github.pulls()[0]["repository"], "acme/broker");
}

#[test]
fn github_enterprise_api_path_is_used() {
    let mut world = TestEnv::start(works());
    let url = format!("{}/api/v3", world.github.url());
    world.set("GITHUB_API_URL", &url);
    assert_one_pull_request(&world);
    let requests = world.github.requests();
    assert!(requests.iter().all(|request| request.line.contains(" /api/v3/repos/")), "{requests:#?}");
}

#[test]
fn rejected_pull_request_reports_failure_keeping_branch() {
    let world = TestEnv::start(works());
    world.github.fail(Call::Create, 1, Fault::Status(422, None));
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::PullRequestFailed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 69);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!(outcome.pull_request, None);
    world.assert_invariants(&outcome);
}

#[test]
fn retry_updates_existing_pull_request() {
    let script = works().turn(edits(2)).turn(Turn::verdict("done", "Now it is really done."));
    let mut world = TestEnv::start(script);
    assert_one_pull_request(&world);
    let first = world.github.pulls();
    world.remember_refs();
    let (ran, outcome) = world.submit(&["--retry", "--guidance", "Once more."]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    let pulls = world.github.pulls();
    assert_eq!(pulls.len(), 1);
    assert_eq!(pulls[0]["number"], first[0]["number"]);
    assert!(pulls[0]["body"].as_str().unwrap().contains("Now it is really done."), "{}", pulls[0]);
    assert!(!outcome.pull_request.as_ref().unwrap().created);
    assert_eq!(world.git.read("acme/trader", BRANCH, "notes.txt").as_deref(), Some("1\n2\n"));
    world.assert_invariants(&outcome);
}

#[test]
fn failed_attempt_adds_one_comment_to_open_pull_request() {
    let blocked = json!({ "status": "blocked", "summary": "It cannot be.", "question": "Which market?" });
    let script = works().turn(edits(2)).turn(Turn::verdict_with(blocked));
    let mut world = TestEnv::start(script);
    assert_one_pull_request(&world);
    world.remember_refs();
    // The comment is made, the answer is lost: it is not made again.
    world.github.fail(Call::Comment, 1, Fault::StatusAfter(502));
    let (ran, outcome) = world.submit(&["--retry"]);
    assert_eq!(outcome.reason, Reason::AgentBlocked, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 1);
    let comments = world.github.comments();
    assert_eq!(comments.len(), 1, "{comments:#?}");
    let text = comments[0]["body"].as_str().unwrap();
    assert!(text.contains("AgentBlocked") && text.contains("attempt2"), "{text}");
    assert_eq!(world.github.pulls().len(), 1);
    world.assert_invariants(&outcome);
}

#[test]
fn failed_first_attempt_pushes_branch_without_pull_request() {
    let blocked = json!({ "status": "blocked", "summary": "It cannot be.", "question": "Which market?" });
    let world = TestEnv::start(Script::new().turn(edits(1)).turn(Turn::verdict_with(blocked)));
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::AgentBlocked, "{ran:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("Which market?"), "{}", outcome.message);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert_eq!((world.github.pulls().len(), world.github.comments().len()), (0, 0));
    world.assert_invariants(&outcome);
}

#[test]
fn target_on_other_host_is_pushed_without_pull_request() {
    let mut world = TestEnv::start(works());
    world.set("ORCHESTRATOR_GIT_HOSTS", "localhost");
    let url = world.git.url("acme/trader").replace("127.0.0.1", "localhost");
    let (ran, outcome) = world.submit(&["--repository-url", &url]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.pull_request, None);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    let log = world.dispatcher(&["logs", outcome.run.as_str()]);
    assert!(log.stdout.contains("not on a GitHub host"), "{log:#?}");
    assert_eq!(world.github.requests().len(), 0);
    world.assert_invariants(&outcome);
}
