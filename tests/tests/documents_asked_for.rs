//! Documents of tasks are asked for from an open clone of the platform repository.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::DocsStatus;
use orchestrator_tests::documents::{platform_of, write_good, writes};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::mend;
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

fn git(folder: &Path, arguments: &[&str]) {
    let git = Command::new("git")
        .args(["-c", "user.name=Lead", "-c", "user.email=lead@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git");
    assert!(git.status.success(), "git {arguments:?}: {git:?}");
}

/// Every file below a folder with its bytes, and when it was changed last.
fn bytes(folder: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder").flatten() {
            let (path, about) = (entry.path(), entry.metadata().expect("an entry"));
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read(&path).unwrap_or_default();
            found.insert(path.display().to_string(), (text, about.modified().expect("a time")));
        }
    }
    found
}

#[test]
fn docs_run_for_open_branch_leaves_checkout_unchanged() {
    let writing = Script::new().turn(write_good()).turn(Turn::verdict("done", "Written."));
    let implementation = Script::when("Implement task 1 of the service")
        .turn(mend().expecting("Part 1 finds the best bid"))
        .turn(Turn::verdict("done", "It is the highest now."));
    let mut world = TestEnv::with([implementation, writing], platform_of(2), "main");
    world.git.commit("acme/platform", "drafts", "Plan more", &[("notes.md", "More.\n")]);
    let clone = world.path("open/trader");
    std::fs::create_dir_all(&clone).unwrap();
    git(
        &clone,
        &["clone", "--quiet", "--branch", "drafts", world.git.path("acme/platform").to_str().unwrap(), "."],
    );
    git(&clone, &["remote", "set-url", "origin", &world.git.url("acme/platform")]);
    git(&clone, &["config", "user.name", "The lead"]);
    std::fs::write(clone.join("mine.md"), "mine\n").unwrap();
    git(&clone, &["add", "mine.md"]);
    git(&clone, &["commit", "--quiet", "-m", "Not pushed"]);
    std::fs::write(clone.join(".taskmaster/idea.md"), "not committed\n").unwrap();
    world.set("CLAUDE_PROJECT_DIR", clone.to_str().unwrap());
    world.remember_refs();
    let before = bytes(&clone);

    let ran = world.dispatcher(&["docs", "--task", "1", "--service", "trader", "--wait"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("a commit of `drafts` is not pushed"), "{}", ran.stderr);
    assert!(ran.stderr.contains(".taskmaster/idea.md"), "{}", ran.stderr);
    assert!(ran.stdout.contains("task 1 (Part 1 of the order book): written"), "{}", ran.stdout);
    assert!(bytes(&clone) == before, "something in the checkout has changed");

    let outcome = world.outcome_of("trader-claude-agent-1-docs-task1-attempt1");
    assert_eq!(outcome.reason, Reason::Completed);
    let pull = world.github.pulls()[0].clone();
    assert_eq!(
        (pull["base"]["ref"].as_str(), pull["head"]["ref"].as_str()),
        (Some("drafts"), Some("docs/task-1-1"))
    );
    world.assert_invariants(&outcome);

    // Merged, it is what an implementation reads.
    let merged = world.git.refs("acme/platform")["refs/heads/docs/task-1-1"].clone();
    world.git.ask("acme/platform", &["update-ref", "refs/heads/main", &merged]);
    world.remember_refs();
    let (ran, outcome) = world.submit(&[]);
    assert_eq!(outcome.reason, Reason::Completed, "{ran:#?}");
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

#[test]
fn ide_session_requests_all_docs_then_existing_ones_again() {
    let world = TestEnv::with(writes(), platform_of(2), "main");
    let run = "platform-claude-agent-1-docs-attempt1";
    let asks = |script: Script, tool: &str, input: serde_json::Value| {
        script.turn(Turn::tool(format!("mcp__orchestrator__{tool}"), input)).turn(Turn::text("So it is."))
    };
    let script = asks(Script::new(), "init_docs", json!({}));
    let script = asks(script, "wait_for_task", json!({"run": run, "timeout_seconds": 45}));
    let script = asks(script, "init_docs", json!({"task_id": "1"}));
    let mut lead = world.lead(script);
    let said = lead.say("Create docs for all tasks.");
    for fact in
        [run, "documents of all tasks of the platform service", "opus", "kept (force: true", "not modified"]
    {
        assert!(said.answer().contains(fact), "{fact:?} is missing: {}", said.answer());
    }
    let said = lead.say("Tell me when it is done.");
    for fact in [
        "task 1 (Part 1 of the order book): written",
        "task 2 (Part 2 of the order book): written",
        "/pull/1",
    ] {
        assert!(said.answer().contains(fact), "{fact:?} is missing: {}", said.answer());
    }
    let outcome = world.outcome_of(run);
    let states: Vec<_> = outcome.docs_results.iter().map(|task| task.status).collect();
    assert_eq!((outcome.reason, states), (Reason::Completed, vec![DocsStatus::Written; 2]));
    world.assert_invariants(&outcome);
    let said = lead.say("Generate documentation for task 1.");
    assert!(said.answer().contains("platform-claude-agent-1-docs-task1-attempt1"), "{}", said.answer());
    world.wait("platform-claude-agent-1-docs-task1-attempt1");
    lead.model.assert_played();
}
