//! Retries: on the same branch with guidance, or from the start.

use std::path::Path;
use std::time::Duration;

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::messages_api::{Fault, Script, Turn};
use orchestrator_tests::projects::{RIGHT, blocked, fix, fixes};
use orchestrator_tests::test_env::TestEnv;
use rustix::process::Signal;

const FIRST: &str = "trader-claude-agent-1-task1-attempt1";
const BRANCH: &str = "feature/task-1-implementation";
const GUIDANCE: &str = "Use max, not first.";

/// Runs an agent that changes a file and asks a question; `then` is the script of the retry.
fn start_blocked(then: Script) -> TestEnv {
    let mut env = TestEnv::start(then);
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (1, Reason::AgentBlocked), "{output:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("Which bid?"), "{}", outcome.message);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    assert!(env.github.pulls().is_empty());
    env.assert_invariants(&outcome);
    env.record_refs();
    env
}

fn tries() -> Script {
    Script::new().turn(Turn::bash("echo 'tried first' > notes.txt")).turn(blocked("Which bid?"))
}

fn assert_published(env: &TestEnv, outcome: &Outcome) {
    assert_eq!(outcome.reason, Reason::Completed, "{outcome:#?}");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    assert_eq!(env.github.pulls().len(), 1);
    env.model.assert_played();
    env.assert_invariants(outcome);
}

#[test]
fn retry_continues_session_and_branch_with_guidance() {
    let env = start_blocked(
        tries()
            .turn(fix().expecting(GUIDANCE).expecting("tried first").expecting("Which bid?"))
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    let first = env.git.tips("acme/trader")[BRANCH].clone();
    let (output, outcome) = env.retry(FIRST, &["--guidance", GUIDANCE]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.run.as_str(), "trader-claude-agent-1-task1-attempt2");
    assert_eq!(outcome.attempt, 2);
    assert_eq!(outcome.work.branch.as_deref(), Some(BRANCH));
    let sessions: std::collections::BTreeSet<_> =
        env.model.conversation().into_iter().map(|request| request.session).collect();
    assert_eq!(sessions.len(), 1, "the same conversation");
    assert_eq!(outcome.sessions, env.outcome_of(FIRST).sessions);
    // The uncommitted work of the first attempt is a commit below the second one's.
    assert!(env.git.is_ancestor("acme/trader", &first, outcome.work.oid.as_ref().unwrap()));
    assert_eq!(env.git.read("acme/trader", BRANCH, "notes.txt").unwrap().trim(), "tried first");
    assert_eq!(outcome.commits, 2);
    assert!(outcome.pull_request.as_ref().unwrap().created);
    assert_published(&env, &outcome);
}

#[test]
fn retry_without_session_gets_its_summary() {
    let env = start_blocked(
        tries()
            .turn(
                fix()
                    .expecting(GUIDANCE)
                    .expecting("Which bid?")
                    .expecting("<earlier_attempt>")
                    .expecting("Do not change the test."),
            )
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    std::fs::remove_dir_all(env.layout("trader").sessions()).unwrap();
    let (output, outcome) = env.retry(FIRST, &["--guidance", GUIDANCE]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert_ne!(outcome.sessions, env.outcome_of(FIRST).sessions);
    assert!(
        outcome.notes.iter().any(|note| note.contains("session of the earlier attempt is missing")),
        "{:?}",
        outcome.notes
    );
    assert_published(&env, &outcome);
}

/// Conversations with a poisoned tool result are refused; others are answered.
#[test]
fn refused_conversation_is_not_continued() {
    let refusal =
        Fault::error(400, "invalid_request_error", "prompt is too long: 215000 tokens > 200000 maximum");
    let poisoned = Script::new().turn(Turn::bash("echo POISON | tee notes.txt")).turn(Turn::never(refusal));
    let other = Script::when("<earlier_attempt>")
        .turn(fix().expecting(GUIDANCE))
        .turn(Turn::verdict("done", "It is the highest now."));
    let mut env = TestEnv::start(vec![poisoned, other]);
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (1, Reason::AgentFailed), "{output:#?}\n{outcome:#?}");
    let noted = |outcome: &Outcome, text: &str| outcome.notes.iter().any(|note| note.contains(text));
    assert!(noted(&outcome, "a retry starts a new conversation"), "{:?}", outcome.notes);
    assert_eq!(outcome.work.location, WorkLocation::Remote);
    env.record_refs();

    let (output, outcome) = env.retry(FIRST, &["--guidance", GUIDANCE]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert!(noted(&outcome, "refused to continue the conversation"), "{:?}", outcome.notes);
    assert_ne!(outcome.sessions, env.outcome_of(FIRST).sessions);
    assert_eq!(outcome.reason, Reason::Completed, "{outcome:#?}");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    env.assert_invariants(&outcome);
}

#[test]
fn retry_that_ends_before_its_agent_keeps_conversation() {
    let mut env = start_blocked(
        tries()
            .turn(fix().expecting(GUIDANCE).expecting("Which bid?"))
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    let (output, outcome) = env.submit(&["--retry", "--docs-directory", "nowhere"]);
    assert_eq!((output.code, outcome.sessions.len()), (64, 0), "{output:#?}\n{outcome:#?}");
    env.record_refs();
    let (output, outcome) = env.submit(&["--retry", "--docs-directory", ".", "--guidance", GUIDANCE]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.sessions, env.outcome_of(FIRST).sessions);
    assert_published(&env, &outcome);
}

#[test]
fn moved_base_is_merged_when_clean() {
    let mut env = start_blocked(tries().turn(fix()).turn(Turn::verdict("done", "It is the highest now.")));
    let moved = env.git.commit("acme/trader", "main", "Elsewhere", &[("docs/elsewhere.md", "moved\n")]);
    env.record_refs();
    let (output, outcome) = env.retry(FIRST, &[]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert!(env.git.is_ancestor("acme/trader", &moved, outcome.work.oid.as_ref().unwrap()));
    assert!(
        outcome.notes.iter().any(|note| note.contains("merged `main` into the branch")),
        "{:?}",
        outcome.notes
    );
    assert_eq!(outcome.base.as_ref().unwrap().oid, moved);
    assert_published(&env, &outcome);
}

#[test]
fn conflicting_base_is_not_merged_but_reported() {
    let mut env = start_blocked(
        tries()
            .turn(fix().expecting("conflicts with the branch in notes.txt"))
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    let moved = env.git.commit("acme/trader", "main", "Elsewhere", &[("notes.txt", "other notes\n")]);
    env.record_refs();
    let (output, outcome) = env.retry(FIRST, &[]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert!(!env.git.is_ancestor("acme/trader", &moved, outcome.work.oid.as_ref().unwrap()));
    assert!(outcome.notes.iter().any(|note| note.contains("notes.txt")), "{:?}", outcome.notes);
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("was not merged"), "{body}");
    assert_published(&env, &outcome);
}

#[test]
fn branch_with_human_commits_is_continued() {
    let mut env = start_blocked(tries().turn(fix()).turn(Turn::verdict("done", "It is the highest now.")));
    let theirs = env.git.commit("acme/trader", BRANCH, "By hand", &[("by-hand.txt", "by hand\n")]);
    env.record_refs();
    let (output, outcome) = env.retry(FIRST, &[]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert!(env.git.is_ancestor("acme/trader", &theirs, outcome.work.oid.as_ref().unwrap()));
    assert_published(&env, &outcome);
}

/// Returns whether a session file below the directory contains `text`.
fn contains(folder: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| match path.extension() {
        Some(extension) if extension == "jsonl" => {
            std::fs::read_to_string(&path).is_ok_and(|content| content.contains(text))
        }
        _ => path.is_dir() && contains(&path, text),
    })
}

#[test]
fn retry_first_commits_work_of_killed_supervisor() {
    let script = Script::new()
        .turn(Turn::bash("echo 'left behind' > left.txt"))
        .turn(Turn::never(Fault::stalls_mid_stream()));
    let mut env = TestEnv::start(vec![
        script,
        Script::when("This is a new attempt.")
            .turn(fix().expecting("left behind"))
            .turn(Turn::verdict("done", "It is the highest now.")),
    ]);
    let run = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, Duration::from_secs(60)), "{:#}", env.status(&run));
    // The CLI saves its session with a delay.
    let homes = env.layout("trader").agent_dir();
    env.wait_until(&run, |_| contains(&homes, "left behind"));
    env.signal(&run, Signal::KILL);
    let status = env.wait_until(&run, |status| status["phase"] == "Failed");
    assert_eq!(status["reason"], "SupervisorLost", "{status:#}");
    env.record_refs();
    let (output, outcome) = env.retry(&run, &[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(env.git.read("acme/trader", BRANCH, "left.txt").unwrap().trim(), "left behind");
    assert!(env.git.read("acme/trader", BRANCH, "src/lib.rs").unwrap().contains(RIGHT));
    assert!(outcome.notes.iter().any(|note| note.contains(&run)), "{:?}", outcome.notes);
    assert_eq!(outcome.commits, 2);
    assert_eq!(env.github.pulls().len(), 1);
    assert_eq!(env.model.failures(), Vec::<String>::new());
    env.assert_invariants(&outcome);
}

#[test]
fn new_attempt_updates_open_pull_request() {
    let script = fixes()
        .turn(Turn::bash("echo more > more.txt").expecting("Add a note."))
        .turn(Turn::verdict("done", "And a note."));
    let mut env = TestEnv::start(script);
    let (_, first) = env.submit(&[]);
    assert_eq!(first.reason, Reason::Completed, "{first:#?}");
    env.record_refs();
    let (output, outcome) = env.retry(FIRST, &["--guidance", "Add a note."]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    let (before, now) = (first.pull_request.unwrap(), outcome.pull_request.clone().unwrap());
    assert_eq!((before.number, now.created), (now.number, false));
    assert!(env.github.pulls()[0]["body"].as_str().unwrap().contains("And a note."));
    assert_published(&env, &outcome);
}

#[test]
fn fresh_attempt_restarts_beside_first() {
    let script = fixes()
        .turn(Turn::bash("grep -q max src/lib.rs || echo from-the-base-$((40+2))"))
        .turn(fix().expecting("from-the-base-42"))
        .turn(Turn::verdict("done", "Once more."));
    let mut env = TestEnv::start(script);
    let (_, first) = env.submit(&[]);
    assert_eq!(first.reason, Reason::Completed, "{first:#?}");
    env.record_refs();
    let refused = env.submit(&[]).0;
    assert_eq!(refused.code, 64, "{refused:?}");
    assert!(refused.stderr.contains("--retry") && refused.stderr.contains("--fresh"), "{refused:?}");

    let (output, outcome) = env.submit(&["--fresh"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.attempt, 2);
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-1-implementation-2"));
    assert_ne!(outcome.sessions, first.sessions);
    assert_eq!(env.github.pulls().len(), 2);
    let tips = env.git.tips("acme/trader");
    assert_eq!(tips.get(BRANCH), first.work.oid.as_ref(), "the first branch stays as it was");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn retry_after_key_fix_completes_task() {
    let mut env = TestEnv::start(
        Script::new()
            .turn(fix().expecting("Do not change the test."))
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    let key = env.key.clone();
    env.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (_, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::ModelAuthenticationFailed, "{outcome:#?}");
    env.set("ANTHROPIC_API_KEY", &key);
    let (output, outcome) = env.retry(FIRST, &[]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert_published(&env, &outcome);
}

#[test]
fn submit_after_key_fix_goes_on_as_next_attempt() {
    let mut env =
        TestEnv::start(Script::new().turn(fix()).turn(Turn::verdict("done", "It is the highest now.")));
    let key = env.key.clone();
    env.set("ANTHROPIC_API_KEY", "sk-ant-api03-wrong");
    let (_, outcome) = env.submit(&[]);
    assert_eq!(outcome.reason, Reason::ModelAuthenticationFailed, "{outcome:#?}");
    env.set("ANTHROPIC_API_KEY", &key);
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.attempt), (0, 2), "{output:#?}\n{outcome:#?}");
    assert_published(&env, &outcome);
    let refused = env.submit(&[]).0;
    assert_eq!(refused.code, 64, "the agent did work: {refused:?}");
}

#[test]
fn retry_without_workspace_continues_remote_branch() {
    let env = start_blocked(tries().turn(fix()).turn(Turn::verdict("done", "It is the highest now.")));
    let first = env.git.tips("acme/trader")[BRANCH].clone();
    std::fs::remove_dir_all(env.state().join("workspaces")).unwrap();
    let (output, outcome) = env.retry(FIRST, &["--guidance", GUIDANCE]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert!(env.git.is_ancestor("acme/trader", &first, outcome.work.oid.as_ref().unwrap()));
    assert_published(&env, &outcome);
}

#[test]
fn retry_with_distant_merge_base_finds_it() {
    let mut env = start_blocked(tries().turn(fix()).turn(Turn::verdict("done", "It is the highest now.")));
    let mut moved = String::new();
    for number in 0..60 {
        moved = env.git.commit("acme/trader", "main", "On", &[("docs/on.md", &format!("{number}\n"))]);
    }
    env.record_refs();
    let (output, outcome) = env.retry(FIRST, &[]);
    assert_eq!(output.code, 0, "{output:#?}\n{outcome:#?}");
    assert!(env.git.is_ancestor("acme/trader", &moved, outcome.work.oid.as_ref().unwrap()));
    assert_published(&env, &outcome);
}

#[test]
fn next_task_keeps_work_of_killed_run() {
    let first = Script::when("Implement task 1 of")
        .turn(Turn::bash("echo 'left behind' > left.txt"))
        .turn(Turn::never(Fault::stalls_mid_stream()));
    let second = Script::when("Implement task 2 of")
        .turn(Turn::bash("test -e left.txt || echo none-left-$((40+2))"))
        .turn(Turn::bash("echo two > two.txt").expecting("none-left-42"))
        .turn(Turn::verdict("done", "Two."));
    let third = Script::when("This is a new attempt.")
        .turn(fix())
        .turn(Turn::verdict("done", "It is the highest now."));
    let mut env = TestEnv::start([third, second, first]);
    let run = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, Duration::from_secs(60)), "{:#}", env.status(&run));
    env.signal(&run, Signal::KILL);
    env.wait_until(&run, |status| status["phase"] == "Failed");
    let (output, outcome) = env.submit_for("trader", "2", &[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.commits, 1);
    env.assert_invariants(&outcome);
    env.record_refs();
    let (output, outcome) = env.retry(&run, &[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(env.git.read("acme/trader", BRANCH, "left.txt").unwrap().trim(), "left behind");
    assert_eq!(env.model.failures(), Vec::<String>::new());
    env.assert_invariants(&outcome);
}

/// Starts an agent that writes a file and stalls, and kills its supervisor.
fn kill_after_work(env: &TestEnv) -> String {
    let run = env.start_run("1", &[]);
    assert!(env.model.wait_for_requests(2, Duration::from_secs(60)), "{:#}", env.status(&run));
    env.signal(&run, Signal::KILL);
    env.wait_until(&run, |status| status["phase"] == "Failed");
    run
}

fn leaves_work(then: Script) -> Vec<Script> {
    let first = Script::when("Implement task 1 of")
        .turn(Turn::bash("echo 'left behind' > left.txt"))
        .turn(Turn::never(Fault::stalls_mid_stream()));
    vec![then, first]
}

#[test]
fn other_repository_goes_on_with_leftovers_aside() {
    let then = Script::when("Implement task 2 of")
        .turn(Turn::bash("test -e left.txt || echo none-left-$((40+2))"))
        .turn(Turn::bash("echo two > two.txt").expecting("none-left-42"))
        .turn(Turn::verdict("done", "Two."));
    let mut env = TestEnv::start(leaves_work(then));
    env.git.create("acme/ledger", "main", &[("README.md", "# ledger\n")]);
    let run = kill_after_work(&env);
    env.record_refs();
    let other = env.git.url("acme/ledger");
    let (output, outcome) = env.submit_for("trader", "2", &["--repository-url", &other]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let aside = env.layout("trader").aside();
    let note = outcome.notes.iter().find(|note| note.contains(&aside.display().to_string()));
    assert!(note.is_some_and(|note| note.contains(&run)), "{:?}", outcome.notes);
    let trees = std::fs::read_dir(&aside).unwrap().flatten().map(|entry| entry.path());
    let kept: Vec<_> = trees.filter(|path| path.is_dir()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read_to_string(kept[0].join("left.txt")).unwrap().trim(), "left behind");
    assert!(kept[0].file_name().unwrap().to_str().unwrap().starts_with(&run), "{kept:?}");
    env.assert_invariants(&outcome);
}
