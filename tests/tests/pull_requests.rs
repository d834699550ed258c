//! Pull requests on a host that fails, limits, renames and repeats: one of them, and the right one.

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::Place;
use orchestrator_tests::github::{Call, Fault};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::world::World;
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
fn assert_one_pull_request(world: &World) {
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
fn an_answer_that_is_lost_after_the_pull_request_was_made_makes_no_second_one() {
    for status in [500, 502] {
        let world = World::start(works());
        world.github.fail(Call::Create, 1, Fault::StatusAfter(status));
        assert_one_pull_request(&world);
    }
}

#[test]
fn a_host_that_limits_requests_is_waited_for() {
    let world = World::start(works());
    world.github.fail(Call::Create, 1, Fault::SecondaryLimit(1));
    world.github.fail(Call::List, 1, Fault::Status(429, Some(1)));
    world.github.fail(Call::Read, 1, Fault::Status(503, None));
    assert_one_pull_request(&world);
}

#[test]
fn a_slow_host_is_waited_for() {
    let world = World::start(works());
    world.github.fail(Call::Create, 1, Fault::Late(std::time::Duration::from_secs(3)));
    assert_one_pull_request(&world);
}

#[test]
fn a_renamed_repository_gets_its_pull_request_under_its_new_name() {
    let world = World::start(works());
    std::os::unix::fs::symlink(world.git.path("acme/trader"), world.git.path("acme/broker")).unwrap();
    world.github.rename("acme/trader", "acme/broker");
    assert_one_pull_request(&world);
    assert_eq!(world.github.pulls()[0]["repository"], "acme/broker");
}

#[test]
fn github_enterprise_has_its_interface_under_a_path() {
    let mut world = World::start(works());
    let url = format!("{}/api/v3", world.github.url());
    world.set("GITHUB_API_URL", &url);
    assert_one_pull_request(&world);
    let requests = world.github.requests();
    assert!(requests.iter().all(|request| request.line.contains(" /api/v3/repos/")), "{requests:#?}");
}

#[test]
fn a_pull_request_that_is_refused_leaves_the_pushed_branch_and_says_so() {
    let world = World::start(works());
    world.github.fail(Call::Create, 1, Fault::Status(422, None));
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::PullRequestFailed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(ran.code, 69);
    assert_eq!(outcome.work.place, Place::Remote);
    assert_eq!(outcome.pull_request, None);
    world.assert_invariants(&outcome);
}

#[test]
fn a_retry_updates_the_one_pull_request() {
    let script = works().turn(edits(2)).turn(Turn::verdict("done", "Now it is really done."));
    let mut world = World::start(script);
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
fn a_failed_attempt_adds_one_comment_to_the_open_pull_request() {
    let blocked = json!({ "status": "blocked", "summary": "It cannot be.", "question": "Which market?" });
    let script = works().turn(edits(2)).turn(Turn::verdict_with(blocked));
    let mut world = World::start(script);
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
fn a_failed_first_attempt_pushes_its_branch_and_opens_nothing() {
    let blocked = json!({ "status": "blocked", "summary": "It cannot be.", "question": "Which market?" });
    let world = World::start(Script::new().turn(edits(1)).turn(Turn::verdict_with(blocked)));
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::AgentBlocked, "{ran:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("Which market?"), "{}", outcome.message);
    assert_eq!(outcome.work.place, Place::Remote);
    assert_eq!((world.github.pulls().len(), world.github.comments().len()), (0, 0));
    world.assert_invariants(&outcome);
}

#[test]
fn a_target_on_another_host_ends_with_the_pushed_branch_and_says_so() {
    let mut world = World::start(works());
    world.set("ORCHESTRATOR_GIT_HOSTS", "localhost");
    let url = world.git.url("acme/trader").replace("127.0.0.1", "localhost");
    let (ran, outcome) = world.submit(&["--repository-url", &url]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.pull_request, None);
    assert_eq!(outcome.work.place, Place::Remote);
    let log = world.dispatcher(&["logs", outcome.run.as_str()]);
    assert!(log.stdout.contains("no GitHub host"), "{log:#?}");
    assert_eq!(world.github.requests().len(), 0);
    world.assert_invariants(&outcome);
}
