//! Several tasks, several services, and repositories of every layout.

use std::time::Duration;

use orchestrator_contract::outcome::DocumentSource;
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{fix, fixes, order_book, platform, platform_in, platform_without};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

/// A turn that prints `word`, which the command itself does not contain, if `condition` holds.
fn prints_if(condition: &str, word: &str) -> Turn {
    Turn::bash(format!("{condition} && echo {word}-$((40+2))"))
}

fn pairs(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

#[test]
fn next_task_gets_clean_worktree_fresh_branch_shared_memory() {
    let script = Script::new()
        .turn(fix())
        .turn(Turn::tool(
            "mcp__memory__create_entities",
            json!({"entities": [{"name": "best_bid", "entityType": "function", "observations": ["was wrong once"]}]}),
        ))
        .turn(Turn::verdict("done", "It is the highest now."))
        .turn(prints_if("test -z \"$(git status --porcelain)\" && ! grep -q max src/lib.rs", "clean"))
        .turn(Turn::tool("mcp__memory__read_graph", json!({})).expecting("clean-42").expecting("best_ask"))
        .turn(Turn::bash("echo 'pub fn best_ask() {}' >> src/lib.rs").expecting("was wrong once"))
        .turn(Turn::verdict("done", "There is an ask now."));
    let mut env = TestEnv::start(script);
    let (_, first) = env.submit(&[]);
    assert_eq!(first.reason, Reason::Completed, "{first:#?}");
    env.assert_invariants(&first);
    env.record_refs();

    let (output, outcome) = env.submit_for("trader", "2", &[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-2-implementation"));
    assert_eq!(outcome.commits, 1);
    assert_ne!(outcome.sessions, first.sessions);
    assert_eq!(env.github.pulls().len(), 2);
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

/// Runs tasks of two services with the same IDs in one platform repository.
fn two_services(platform: Vec<(String, String)>) {
    let script =
        |title: &str| Script::when(title).turn(fix()).turn(Turn::verdict("done", format!("{title}: done.")));
    let mut env = TestEnv::with(
        [
            script("Implement task 1 of the service `trader`"),
            script("Implement task 1 of the service `risk`"),
        ],
        platform,
        "main",
    );
    env.git.create("acme/risk", "main", &pairs(&order_book()));
    env.record_refs();
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.task_title.as_deref(), Some("Find the best bid"));
    env.assert_invariants(&outcome);
    env.record_refs();
    let risk = env.git.url("acme/risk");
    let (output, outcome) = env.submit_for("risk", "1", &["--repository-url", &risk]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.task_title.as_deref(), Some("Limit the risk"));
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn two_services_use_folders_of_one_platform() {
    let mut files = platform_in("projects/trader");
    files.extend(
        platform_in("projects/risk")
            .into_iter()
            .map(|(path, text)| (path, text.replace("Find the best bid", "Limit the risk"))),
    );
    two_services(files);
}

#[test]
fn two_services_use_tags_of_one_platform() {
    let task = |title: &str| json!({"tasks": [{"id": 1, "title": title, "description": title, "status": "pending", "dependencies": [], "subtasks": []}]});
    let tasks = json!({"master": task("Unassigned"), "trader": task("Find the best bid"), "risk": task("Limit the risk")});
    let mut files = platform_without(".taskmaster/");
    files.push((".taskmaster/tasks/tasks.json".to_owned(), tasks.to_string()));
    two_services(files);
}

/// Asserts the end of the working directory of the trader's agent, and that all texts name it.
fn works_in(repository: &str, files: &[(&str, &str)], more: &[&str], expected: &str) -> Outcome {
    let script = Script::new()
        .turn(prints_if(&format!("test \"${{PWD##*/target-repo}}\" = \"{expected}\""), "here"))
        .turn(Turn::bash("echo made > made.txt").expecting("here-42"))
        .turn(Turn::verdict("done", "Made."));
    let mut env = TestEnv::start(script);
    env.git.create(repository, "main", files);
    env.record_refs();
    let url = env.git.url(repository);
    let mut arguments = vec!["--repository-url", &url];
    arguments.extend(more);
    let (output, outcome) = env.submit(&arguments);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let made = format!("{expected}/made.txt");
    let made = made.trim_start_matches('/');
    assert!(env.git.read(repository, "feature/task-1-implementation", made).is_some(), "{made}");
    let shown = expected.strip_prefix('/').unwrap_or(".");
    assert_eq!(outcome.working_directory.as_deref(), Some(shown));
    let place = match expected.strip_prefix('/') {
        Some(folder) => format!("in `{folder}/` of {repository}"),
        None => format!("at the root of {repository}"),
    };
    let log = env.dispatcher(&["logs", outcome.run.as_str()]);
    assert!(log.stdout.contains(&place), "{place}: {log:#?}");
    let status = env.dispatcher(&["status", outcome.run.as_str()]);
    assert!(status.stdout.contains(&format!("directory     {shown}\n")), "{status:#?}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
    outcome
}

#[test]
fn requested_working_directory_is_created() {
    works_in(
        "acme/mono",
        &[("README.md", "mono\n")],
        &["--working-directory", "backend/api"],
        "/backend/api",
    );
}

#[test]
fn folder_named_after_service_is_working_directory() {
    works_in("acme/mono", &[("trader/README.md", "trader\n")], &[], "/trader");
    works_in("acme/mono", &[("Trader/README.md", "trader\n")], &[], "/Trader");
}

#[test]
fn repository_without_folder_of_service_uses_root() {
    let outcome = works_in("acme/mono", &[("README.md", "mono\n")], &[], "");
    let expected = "acme/mono has no directory `trader`; the agent worked at the root";
    assert!(outcome.notes.iter().any(|note| note.contains(expected)), "{:?}", outcome.notes);
}

#[test]
fn own_service_repository_uses_root_as_working_directory() {
    for repository in ["acme/the-trader", "acme/Trader"] {
        let outcome = works_in(repository, &[("README.md", "trader\n")], &[], "");
        assert!(!outcome.notes.iter().any(|note| note.contains("has no directory")), "{:?}", outcome.notes);
    }
}

#[test]
fn default_branch_with_any_name_is_found() {
    let env = TestEnv::with(fixes(), platform(), "master");
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.base.as_ref().unwrap().branch, "master");
    assert_eq!(env.github.pulls()[0]["base"]["ref"], "master");
    env.assert_invariants(&outcome);
}

#[test]
fn documents_and_code_may_share_one_repository() {
    let mut env = TestEnv::start(
        Script::new()
            .turn(fix().expecting("Do not change the test."))
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    env.git.commit("acme/trader", "main", "Documents", &pairs(&platform()));
    env.record_refs();
    let own = env.git.url("acme/trader");
    let (output, outcome) = env.submit(&["--platform-repository-url", &own]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.document_sources.as_ref().unwrap().source, DocumentSource::Files);
    let changed =
        env.git.ask("acme/trader", &["diff", "--name-only", "main", "feature/task-1-implementation"]);
    assert_eq!(changed.trim(), "src/lib.rs");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn missing_documents_fall_back_to_tasks_entry() {
    let script = Script::new()
        .turn(fix().expecting("best_bid returns the first bid, not the highest."))
        .turn(Turn::verdict("done", "It is the highest now."));
    let env = TestEnv::with(script, platform_without(".taskmaster/docs/task-1/"), "main");
    let (output, outcome) = env.submit(&[]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.document_sources.as_ref().unwrap().source, DocumentSource::TaskEntry);
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn undescribed_task_ends_before_model_request() {
    let env = TestEnv::start(Script::new());
    let (output, outcome) = env.submit_for("trader", "99", &[]);
    assert_eq!((output.code, outcome.reason), (64, Reason::TaskNotFound), "{output:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("tasks.json"), "{}", outcome.message);
    assert!(env.model.conversation().is_empty());
    env.assert_invariants(&outcome);
}

#[test]
fn run_on_busy_service_waits_naming_active_run() {
    let first = Script::when("Implement task 1 of").turn(fix().thinking(Duration::from_secs(3)));
    let second = Script::when("Implement task 2 of").turn(Turn::bash("echo two > two.txt"));
    let mut env = TestEnv::start([
        first.turn(Turn::verdict("done", "One.")),
        second.turn(Turn::verdict("done", "Two.")),
    ]);
    let one = env.start_run("1", &[]);
    env.wait_until(&one, |status| status["phase"] != "Pending");
    let two = env.start_run("2", &[]);
    let waits = env.wait_until(&two, |status| !status["waiting_for"].is_null());
    assert_eq!((&waits["phase"], &waits["waiting_for"]), (&json!("Pending"), &json!(one)), "{waits:#}");
    let (output, outcome) = env.wait(&one);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let (output, outcome) = env.wait(&two);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let branch = outcome.work.branch.clone().unwrap();
    assert_eq!(env.git.ahead("acme/trader", "main", &branch), 1);
    assert_eq!(env.git.read("acme/trader", &branch, "two.txt").unwrap().trim(), "two");
    env.model.assert_played();
    env.record_refs_without(&branch);
    env.assert_invariants(&outcome);
}
