//! Docs submissions from an open directory.

use super::bench::Bench;

fn dry(bench: &Bench, arguments: &str) -> serde_json::Value {
    let done = bench.run(&format!("docs {arguments} --dry-run -o json"));
    assert_eq!(done.code, 0, "{done:?}");
    done.json()
}

fn with_tasks(bench: &Bench, folder: &str) {
    std::fs::create_dir_all(bench.path("open").join(folder).join(".taskmaster")).unwrap();
    std::fs::write(bench.path("open/.git/HEAD"), "ref: refs/heads/drafts\n").unwrap();
}

#[test]
fn docs_defaults_come_from_open_clone() {
    let bench = Bench::new();
    with_tasks(&bench, "services/auth");
    let preview = dry(&bench, "--task 5 --working-directory services/auth --force");
    let task = &preview["task"];
    assert_eq!(task["run"], "auth-claude-agent-1-docs-task5-attempt1");
    assert_eq!((&task["kind"], &task["model"]), (&"docs".into(), &"opus".into()));
    assert_eq!(task["target"]["base"], "drafts");
    assert_eq!(task["platform"]["docs_directory"], "services/auth");
    assert_eq!(task["docs"]["force"], true);
    assert_eq!(task["target"]["url"], "/srv/git/trader.git");
    // The directory has no real repository, so that git fails; the preview reports it.
    assert!(preview["warnings"].to_string().contains("only what is on the remote"), "{preview}");
}

#[test]
fn root_tasks_belong_to_service_named_after_repository() {
    let bench = Bench::new();
    with_tasks(&bench, "");
    assert_eq!(dry(&bench, "--all")["task"]["run"], "trader-claude-agent-1-docs-attempt1");
    let named = dry(&bench, "--all --service billing --branch main --model sonnet --concurrency 4");
    assert_eq!(named["task"]["run"], "billing-claude-agent-1-docs-attempt1");
    assert_eq!(named["task"]["docs"]["concurrency"], 4);
    assert_eq!(
        (&named["task"]["target"]["base"], &named["task"]["model"]),
        (&"main".into(), &"sonnet".into())
    );
}

#[test]
fn docs_of_unknown_task_are_refused_with_known_ones() {
    let bench = Bench::new();
    with_tasks(&bench, "services/auth");
    let tasks = bench.path("open/services/auth/.taskmaster/tasks");
    std::fs::create_dir_all(&tasks).unwrap();
    std::fs::write(tasks.join("tasks.json"), r#"{"master":{"tasks":[{"id":1},{"id":5}]}}"#).unwrap();
    let arguments = "--working-directory services/auth";
    assert_eq!(dry(&bench, &format!("--task 5 {arguments}"))["task"]["task_id"], 5);
    let done = bench.run(&format!("docs --task 6 {arguments} --dry-run"));
    assert_eq!(done.code, 64, "{done:?}");
    let words = ["task 6 is not in services/auth/.taskmaster/tasks/tasks.json", "Its tasks are 1, 5."];
    assert!(words.iter().all(|word| done.stderr.contains(word)), "{done:?}");
    // Another branch may have more tasks.
    assert_eq!(dry(&bench, &format!("--task 6 --branch main {arguments}"))["task"]["task_id"], 6);
}

#[test]
fn submit_warns_about_documents_that_are_not_pushed() {
    let bench = Bench::new();
    let open = bench.path("open");
    std::fs::remove_dir_all(open.join(".git")).unwrap();
    let git = |arguments: &str| {
        #[expect(clippy::disallowed_methods, reason = "prepares the user's clone")]
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=Lead", "-c", "user.email=lead@example.com"]).args(arguments.split(' '));
        git.current_dir(&open).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let done = git.output().unwrap();
        assert!(done.status.success(), "git {arguments}: {done:?}");
    };
    git("init --quiet --initial-branch main");
    git("remote add origin /srv/git/trader.git");
    let write = |path: &str| {
        let path = open.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "text").unwrap();
    };
    write(".taskmaster/docs/task-1/task.md");
    git("add .");
    git("commit --quiet --message Documents");
    git("update-ref refs/remotes/origin/main HEAD");
    let warnings = || {
        let done = bench.run("submit --task 1 --service trader --dry-run -o json");
        assert_eq!(done.code, 0, "{done:?}");
        done.json()["warnings"].clone()
    };
    assert_eq!(warnings(), serde_json::json!([]));
    write(".taskmaster/docs/task-2/task.md");
    write("src/lib.rs");
    assert_eq!(warnings(), serde_json::json!([]), "it concerns another task");
    write("trader/.taskmaster/docs/task-1/prompt.md");
    write(".taskmaster/tasks/tasks.json");
    let text = warnings()[0].as_str().unwrap().to_owned();
    let words = ["uncommitted documents of task 1", "task-1/prompt.md", "tasks.json", "commit and push them"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    git("add .");
    git("commit --quiet --message More");
    assert_eq!(
        warnings(),
        serde_json::json!(["1 commit with documents of task 1 is not pushed: the run does not see it"])
    );
}

#[test]
fn docs_without_task_selection_is_rejected() {
    let bench = Bench::new();
    for arguments in ["docs", "docs --task 1 --all"] {
        let done = bench.run(arguments);
        assert_eq!(done.code, 64, "{done:?}");
        assert!(done.stderr.contains("--all"), "{done:?}");
    }
}

#[test]
fn resubmitted_docs_run_starts_new_branch() {
    let bench = Bench::new();
    with_tasks(&bench, "");
    let first = bench.run_ending("done", "docs --all -o json").json();
    assert_eq!(first["run"], "trader-claude-agent-1-docs-attempt1");
    bench.run("wait trader-claude-agent-1-docs-attempt1");
    let second = bench.run_ending("done", "docs --all -o json").json();
    assert_eq!((&second["task"]["attempt"], &second["task"]["mode"]), (&2.into(), &"fresh".into()));
    bench.run("wait trader-claude-agent-1-docs-attempt2");
    let third = bench.run_ending("done", "retry trader-claude-agent-1-docs-attempt2 -o json").json();
    assert_eq!((&third["task"]["kind"], &third["task"]["mode"]), (&"docs".into(), &"retry".into()));
    // Docs and implementation are different task keys: the task itself has no attempt yet.
    let task = bench.run_ending("done", "submit --task 1 --service trader -o json").json();
    assert_eq!(task["run"], "trader-claude-agent-1-task1-attempt1");
}

#[test]
fn docs_warn_about_documents_in_open_pull_request() {
    let bench = Bench::new();
    with_tasks(&bench, "");
    let url = "https://github.com/myorg/trader/pull/7";
    let mut first = bench.command("docs --all --wait");
    first.env("ORCHESTRATOR_TEST_DOCS", "5 6").env("ORCHESTRATOR_TEST_PULL", url);
    assert!(first.output().unwrap().status.success());
    let waiting = |arguments: &str| {
        let warnings = dry(&bench, arguments)["warnings"].clone();
        let texts = warnings.as_array().unwrap().iter().filter_map(|text| text.as_str());
        texts.filter(|text| text.contains(" wait in ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let run = "trader-claude-agent-1-docs-attempt1";
    let expected = |tasks: &str| {
        let what = format!("documents of {tasks} wait in {url} of `{run}`");
        vec![format!("{what}: this run writes them again unless that pull request is merged")]
    };
    assert_eq!(waiting("--all"), expected("tasks 5 and 6"));
    assert_eq!(waiting("--task 5"), expected("task 5"));
    assert_eq!(waiting("--task 7"), [""; 0]);
    assert_eq!(waiting("--all --retry"), [""; 0], "it continues on the same branch");
    assert_eq!(waiting("--all --service trader --platform-repository-url /srv/git/other.git"), [""; 0]);
    // Merged and pulled.
    let documents = bench.path("open/.taskmaster/docs/task-5");
    std::fs::create_dir_all(&documents).unwrap();
    std::fs::write(documents.join("task.md"), "text").unwrap();
    assert_eq!(waiting("--all"), expected("task 6"));
}
