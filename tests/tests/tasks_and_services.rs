//! Several tasks, several services, and repositories of every shape.

use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::DocumentSource;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{mend, mends, order_book, platform, platform_in, platform_without};
use orchestrator_tests::test_env::TestEnv;
use serde_json::json;

/// A turn that makes `secret`, which nothing but its own output contains, if `condition` holds.
fn says_if(condition: &str, word: &str) -> Turn {
    Turn::bash(format!("{condition} && echo {word}-$((40+2))"))
}

fn pairs(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

#[test]
fn next_task_gets_clean_worktree_fresh_branch_shared_memory() {
    let script = Script::new()
        .turn(mend())
        .turn(Turn::tool(
            "mcp__memory__create_entities",
            json!({"entities": [{"name": "best_bid", "entityType": "function", "observations": ["was wrong once"]}]}),
        ))
        .turn(Turn::verdict("done", "It is the highest now."))
        .turn(says_if("test -z \"$(git status --porcelain)\" && ! grep -q max src/lib.rs", "clean"))
        .turn(Turn::tool("mcp__memory__read_graph", json!({})).expecting("clean-42").expecting("best_ask"))
        .turn(Turn::bash("echo 'pub fn best_ask() {}' >> src/lib.rs").expecting("was wrong once"))
        .turn(Turn::verdict("done", "There is an ask now."));
    let mut world = TestEnv::start(script);
    let (_, first) = world.submit(&[]);
    assert_eq!(first.reason, Reason::Completed, "{first:#?}");
    world.assert_invariants(&first);
    world.remember_refs();

    let (ran, outcome) = world.submit_for("trader", "2", &[]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.branch.as_deref(), Some("feature/task-2-implementation"));
    assert_eq!(outcome.commits, 1);
    assert_ne!(outcome.sessions, first.sessions);
    assert_eq!(world.github.pulls().len(), 2);
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

/// Tasks of two services with the same ids in one platform repository.
fn two_services(platform: Vec<(String, String)>) {
    let script =
        |title: &str| Script::when(title).turn(mend()).turn(Turn::verdict("done", format!("{title}: done.")));
    let mut world = TestEnv::with(
        [
            script("Implement task 1 of the service `trader`"),
            script("Implement task 1 of the service `risk`"),
        ],
        platform,
        "main",
    );
    world.git.create("acme/risk", "main", &pairs(&order_book()));
    world.remember_refs();
    let (ran, outcome) = world.submit(&[]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.task_title.as_deref(), Some("Find the best bid"));
    world.assert_invariants(&outcome);
    world.remember_refs();
    let risk = world.git.url("acme/risk");
    let (ran, outcome) = world.submit_for("risk", "1", &["--repository-url", &risk]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.task_title.as_deref(), Some("Limit the risk"));
    world.model.assert_played();
    world.assert_invariants(&outcome);
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
    let tasks = json!({"master": task("Nobody's"), "trader": task("Find the best bid"), "risk": task("Limit the risk")});
    let mut files = platform_without(".taskmaster/");
    files.push((".taskmaster/tasks/tasks.json".to_owned(), tasks.to_string()));
    two_services(files);
}

/// Where the agent of the trader works, by the end of its working directory.
fn works_in(repository: &str, files: &[(&str, &str)], more: &[&str], expected: &str) {
    let script = Script::new()
        .turn(says_if(&format!("test \"${{PWD##*/target-repo}}\" = \"{expected}\""), "here"))
        .turn(Turn::bash("echo made > made.txt").expecting("here-42"))
        .turn(Turn::verdict("done", "Made."));
    let mut world = TestEnv::start(script);
    world.git.create(repository, "main", files);
    world.remember_refs();
    let url = world.git.url(repository);
    let mut arguments = vec!["--repository-url", &url];
    arguments.extend(more);
    let (ran, outcome) = world.submit(&arguments);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    let made = format!("{expected}/made.txt");
    let made = made.trim_start_matches('/');
    assert!(world.git.read(repository, "feature/task-1-implementation", made).is_some(), "{made}");
    world.model.assert_played();
    world.assert_invariants(&outcome);
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
}

#[test]
fn shared_repository_gets_folder_named_after_service() {
    works_in("acme/mono", &[("README.md", "mono\n")], &[], "/trader");
}

#[test]
fn own_service_repository_uses_root_as_working_directory() {
    works_in("acme/the-trader", &[("README.md", "trader\n")], &[], "");
}

#[test]
fn default_branch_with_any_name_is_found() {
    let world = TestEnv::with(mends(), platform(), "master");
    let (ran, outcome) = world.submit(&[]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.base.as_ref().unwrap().branch, "master");
    assert_eq!(world.github.pulls()[0]["base"]["ref"], "master");
    world.assert_invariants(&outcome);
}

#[test]
fn documents_and_code_may_share_one_repository() {
    let mut world = TestEnv::start(
        Script::new()
            .turn(mend().expecting("Do not change the test."))
            .turn(Turn::verdict("done", "It is the highest now.")),
    );
    world.git.commit("acme/trader", "main", "Documents", &pairs(&platform()));
    world.remember_refs();
    let own = world.git.url("acme/trader");
    let (ran, outcome) = world.submit(&["--platform-repository-url", &own]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.document_sources.as_ref().unwrap().source, DocumentSource::Files);
    let changed =
        world.git.ask("acme/trader", &["diff", "--name-only", "main", "feature/task-1-implementation"]);
    assert_eq!(changed.trim(), "src/lib.rs");
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

#[test]
fn missing_documents_fall_back_to_tasks_entry() {
    let script = Script::new()
        .turn(mend().expecting("best_bid returns the first bid, not the highest."))
        .turn(Turn::verdict("done", "It is the highest now."));
    let world = TestEnv::with(script, platform_without(".taskmaster/docs/task-1/"), "main");
    let (ran, outcome) = world.submit(&[]);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    assert_eq!(outcome.document_sources.as_ref().unwrap().source, DocumentSource::TaskEntry);
    world.model.assert_played();
    world.assert_invariants(&outcome);
}

#[test]
fn undescribed_task_ends_before_model_request() {
    let world = TestEnv::start(Script::new());
    let (ran, outcome) = world.submit_for("trader", "99", &[]);
    assert_eq!((ran.code, outcome.reason), (64, Reason::TaskNotFound), "{ran:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("tasks.json"), "{}", outcome.message);
    assert!(world.model.conversation().is_empty());
    world.assert_invariants(&outcome);
}

#[test]
fn run_on_busy_service_waits_naming_active_run() {
    let first = Script::when("Implement task 1 of").turn(mend().thinking(Duration::from_secs(3)));
    let second = Script::when("Implement task 2 of").turn(Turn::bash("echo two > two.txt"));
    let mut world = TestEnv::start([
        first.turn(Turn::verdict("done", "One.")),
        second.turn(Turn::verdict("done", "Two.")),
    ]);
    let one = world.begin("1", &[]);
    world.wait_until(&one, |status| status["phase"] != "Pending");
    let two = world.begin("2", &[]);
    let waits = world.wait_until(&two, |status| !status["waiting_for"].is_null());
    assert_eq!((&waits["phase"], &waits["waiting_for"]), (&json!("Pending"), &json!(one)), "{waits:#}");
    let (ran, outcome) = world.wait(&one);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    let (ran, outcome) = world.wait(&two);
    assert_eq!((ran.code, outcome.reason), (0, Reason::Completed), "{ran:#?}\n{outcome:#?}");
    let branch = outcome.work.branch.clone().unwrap();
    assert_eq!(world.git.ahead("acme/trader", "main", &branch), 1);
    assert_eq!(world.git.read("acme/trader", &branch, "two.txt").unwrap().trim(), "two");
    world.model.assert_played();
    world.remember_refs_before(&branch);
    world.assert_invariants(&outcome);
}
