//! Docs runs: of one task or all, in several attempts, with accepted and rejected documents.

use std::time::Duration;

use orchestrator_contract::outcome::{DocsStatus, WorkLocation};
use orchestrator_contract::{EventBody, Outcome, Phase, Reason};
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::documents::{about, platform_of, write_good, write_stubs, writes};
use orchestrator_tests::git_server::Access;
use orchestrator_tests::messages_api::{Fault, Script, Scripts, Turn};
use orchestrator_tests::projects::{fix, platform};
use orchestrator_tests::test_env::TestEnv;

const SOON: Duration = Duration::from_secs(90);

/// Runs a docs run of the trader service with the supervisor.
fn document(env: &TestEnv, more: &[&str]) -> (CommandOutput, Outcome) {
    let output = start(env, more);
    let outcome = output.outcome().unwrap_or_else(|| panic!("no outcome: {output:#?}"));
    (output, outcome)
}

fn start(env: &TestEnv, more: &[&str]) -> CommandOutput {
    let (platform, workspace) = (env.git.url("acme/platform"), env.path("workspace"));
    let mut arguments = vec!["run", "--kind", "docs", "--service", "trader"];
    arguments.extend(["--workspace", workspace.to_str().unwrap(), "--platform-repository-url", &platform]);
    arguments.extend(more);
    env.supervisor(&arguments)
}

fn read(env: &TestEnv, branch: &str, task: u32, name: &str) -> Option<String> {
    env.git.read("acme/platform", branch, &format!(".taskmaster/docs/task-{task}/{name}"))
}

fn states(outcome: &Outcome) -> Vec<DocsStatus> {
    outcome.docs_results.iter().map(|task| task.status).collect()
}

/// Returns the activities of the progress events.
fn activities(output: &CommandOutput) -> Vec<String> {
    let doing = |event: orchestrator_contract::Event| match event.body {
        EventBody::Progress(progress) => Some(progress.activity),
        _ => None,
    };
    output.events().into_iter().filter_map(doing).collect()
}

#[test]
fn proposed_docs_of_one_task_can_be_implemented() {
    let implementation = Script::when("Implement task 1 of the service")
        .turn(fix().expecting("returns the highest bid of the slice").expecting("Part 1 finds the best bid"))
        .turn(Turn::verdict("done", "It is the highest now."));
    let writing = Script::new()
        .turn(write_good().expecting("Detail 1: sorted by price.").expecting("1.2: Rules of part 1"))
        .turn(Turn::verdict("done", "Written."));
    let mut env = TestEnv::with([implementation, writing], platform_of(3), "main");
    let (output, outcome) = document(&env, &["--task", "1"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.run.as_str(), "trader-claude-agent-1-docs-task1-attempt1");
    assert_eq!(outcome.work.branch.as_deref(), Some("docs/task-1-1"));
    assert_eq!(states(&outcome), [DocsStatus::Written]);
    assert_eq!(outcome.commits, 1);
    let written = &outcome.docs_results[0];
    assert!(written.turns >= 1 && written.cost_usd > 0.0 && written.minutes > 0.0, "{written:?}");
    assert_eq!(written.session_id.as_ref(), outcome.sessions.first());
    let pull = env.github.pulls()[0].clone();
    assert_eq!(pull["repository"], "acme/platform");
    assert_eq!(pull["base"]["ref"], "main");
    assert_eq!(pull["title"], "Documents of task 1: Part 1 of the order book");
    assert!(pull["body"].as_str().unwrap().contains("| 1 | Part 1 of the order book | written |"), "{pull}");
    let changed = env.git.ask("acme/platform", &["diff", "--name-only", "main", "docs/task-1-1"]);
    let files: Vec<&str> = changed.lines().collect();
    let folder = ".taskmaster/docs/task-1";
    assert_eq!(
        files,
        ["acceptance-criteria.md", "prompt.md", "task.md"].map(|name| format!("{folder}/{name}"))
    );
    env.assert_invariants(&outcome);

    env.record_refs();
    let (output, outcome) = env.submit(&["--platform-branch", "docs/task-1-1"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let pulls = env.github.pulls();
    let pull = pulls.iter().find(|pull| pull["repository"] == "acme/trader").unwrap();
    assert!(pull["body"].as_str().unwrap().contains("The highest bid is returned. Check:"), "{pull}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn docs_of_twenty_tasks_use_one_session_each() {
    let env = TestEnv::with(writes(), platform_of(20), "main");
    let (output, outcome) = document(&env, &["--all", "--concurrency", "2"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.branch.as_deref(), Some("docs/all-tasks-1"));
    assert_eq!(states(&outcome), [DocsStatus::Written; 20]);
    let sessions: std::collections::BTreeSet<_> =
        outcome.docs_results.iter().filter_map(|task| task.session_id.clone()).collect();
    assert_eq!(sessions.len(), 20);
    for task in 1..=20 {
        assert!(
            read(&env, "docs/all-tasks-1", task, "task.md").unwrap().contains(&format!("# Task {task}\n"))
        );
        assert!(read(&env, "docs/all-tasks-1", task, "acceptance-criteria.md").is_some());
    }
    // Concurrent memory servers would overwrite each other's file.
    assert!(outcome.mcp_servers.iter().all(|server| server.name != "memory"), "{:?}", outcome.mcp_servers);
    let sum: f64 = outcome.docs_results.iter().map(|task| task.cost_usd).sum();
    assert!((sum - outcome.usage.cost_usd).abs() < 1e-5, "{sum} of {:?}", outcome.usage);
    assert!(
        activities(&output).iter().any(|doing| doing.contains(" of 20 tasks")),
        "{:?}",
        activities(&output)
    );
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert_eq!(body.matches("| written |").count(), 20, "{body}");
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn existing_docs_are_kept_or_rewritten_with_force() {
    let env = TestEnv::with(
        Script::when("An older version exists")
            .for_each_session()
            .turn(write_good())
            .turn(Turn::verdict("done", "Better now.")),
        platform(),
        "main",
    );
    let (output, outcome) = document(&env, &["--all"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::AlreadyDone), "{output:#?}\n{outcome:#?}");
    assert!(outcome.message.contains("force"), "{}", outcome.message);
    assert_eq!(states(&outcome), [DocsStatus::Unchanged; 2]);
    assert!(env.model.conversation().is_empty());
    env.assert_invariants(&outcome);

    let (output, outcome) = document(&env, &["--all", "--force", "--fresh"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.work.branch.as_deref(), Some("docs/all-tasks-2"));
    assert_eq!(states(&outcome), [DocsStatus::Written; 2]);
    let requests: Vec<_> = env.model.conversation();
    assert!(requests.iter().any(|request| request.contains("Fix `best_bid` in `src/lib.rs`")));
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn stub_docs_are_rejected_once_then_reported_others_kept() {
    let stubborn = Script::when(about(2))
        .turn(write_stubs())
        .turn(Turn::verdict("done", "Written."))
        .turn(write_stubs().expecting("- `acceptance-criteria.md` is missing").expecting("is a placeholder"))
        .turn(Turn::verdict("done", "Written again."));
    let learns = Script::when(about(3))
        .turn(write_stubs())
        .turn(Turn::verdict("done", "Written."))
        .turn(write_good().expecting("`task.md` has no section `## Context`"))
        .turn(Turn::verdict("done", "Fixed."));
    let env = TestEnv::with([stubborn, learns, writes()], platform_of(4), "main");
    let (output, outcome) = document(&env, &["--all"]);
    assert_eq!((output.code, outcome.reason), (1, Reason::VerificationFailed), "{output:#?}\n{outcome:#?}");
    use DocsStatus::{Failed, Written};
    assert_eq!(states(&outcome), [Written, Failed, Written, Written]);
    assert!(outcome.message.contains("1 of 4 tasks has no documents: task 2 ("), "{}", outcome.message);
    let findings = &outcome.docs_results[1].findings;
    assert!(
        findings.iter().any(|finding| finding.contains("`acceptance-criteria.md` is missing")),
        "{findings:?}"
    );
    assert_eq!(outcome.work.branch.as_deref(), Some("docs/all-tasks-1"));
    assert_eq!(outcome.commits, 3);
    assert_eq!(read(&env, "docs/all-tasks-1", 2, "task.md"), None);
    assert!(read(&env, "docs/all-tasks-1", 3, "task.md").is_some());
    assert!(outcome.notes.iter().any(|note| note.starts_with("skipped files")), "{:?}", outcome.notes);
    assert!(env.github.pulls().is_empty());
    assert!(
        activities(&output).iter().any(|doing| doing.contains("task 2 in review"))
            || output.stdout.contains("rejected by the review")
    );
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn retry_of_stopped_docs_run_writes_missing_docs_only() {
    let later = |task: u32| {
        Script::when(about(task))
            .turn(write_good().after(Fault::stalls_mid_stream()))
            .turn(Turn::verdict("done", "Written."))
    };
    let scripts: Scripts = [later(3), later(4), writes()].into();
    let mut env = TestEnv::with(scripts, platform_of(5), "main");
    let stop = env.path("stop");
    env.set("ORCHESTRATOR_STOP_FILE", stop.to_str().unwrap());
    let (output, outcome) = std::thread::scope(|scope| {
        let running = scope.spawn(|| document(&env, &["--all", "--concurrency", "2"]));
        // Two requests for each of the first two tasks, and a stalled one for each of the next two.
        assert!(env.model.wait_for_requests(6, SOON));
        std::fs::write(&stop, "").unwrap();
        running.join().unwrap()
    });
    assert_eq!(
        (output.code, outcome.reason, outcome.phase),
        (143, Reason::Stopped, Phase::Stopped),
        "{output:#?}"
    );
    use DocsStatus::{NotWritten, Unchanged, Written};
    assert_eq!(states(&outcome), [Written, Written, NotWritten, NotWritten, NotWritten], "{outcome:#?}");
    assert_eq!((outcome.work.location, outcome.commits), (WorkLocation::Remote, 2));
    assert!(env.github.pulls().is_empty());
    env.assert_invariants(&outcome);

    std::fs::remove_file(&stop).unwrap();
    env.record_refs();
    let (output, outcome) = document(&env, &["--all", "--retry"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(states(&outcome), [Unchanged, Unchanged, Written, Written, Written]);
    assert_eq!(outcome.work.branch.as_deref(), Some("docs/all-tasks-1"));
    assert_eq!(outcome.commits, 5);
    let first = outcome.docs_results[0].written_by_run.as_ref().unwrap();
    assert_eq!(first.as_str(), "trader-claude-agent-1-docs-attempt1");
    assert!(env.github.pulls()[0]["title"].as_str().unwrap().contains("5 tasks"));
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

/// Returns the supervisor of this environment's docs run, found by its command line.
fn supervisor_of(env: &TestEnv) -> rustix::process::Pid {
    let workspace = env.path("workspace").display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        command.contains("--kind\0docs") && command.contains(&workspace)
    });
    rustix::process::Pid::from_raw(pid.expect("a supervisor")).unwrap()
}

#[test]
fn killed_docs_supervisor_loses_no_written_document() {
    let later = Script::when(about(2))
        .turn(write_stubs())
        .turn(write_good().after(Fault::stalls_mid_stream()))
        .turn(Turn::verdict("done", "Written."));
    let env = TestEnv::with([later, writes()], platform_of(3), "main");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| start(&env, &["--all", "--concurrency", "1"]));
        // Two requests for the first task; the second task wrote drafts and stalls.
        assert!(env.model.wait_for_requests(4, SOON));
        let supervisor = supervisor_of(&env);
        rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
        let output = running.join().unwrap();
        assert!(output.outcome().is_none(), "{output:#?}");
    });
    let (output, outcome) = document(&env, &["--all", "--retry"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    use DocsStatus::{Unchanged, Written};
    assert_eq!(states(&outcome), [Unchanged, Written, Written]);
    assert_eq!((outcome.commits, outcome.work.branch.as_deref()), (3, Some("docs/all-tasks-1")));
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn rejecting_model_fails_all_docs_tasks_with_one_message() {
    let env = TestEnv::with(Script::new().turn(Turn::never(Fault::status(403))), platform_of(6), "main");
    let (output, outcome) = document(&env, &["--all"]);
    assert_eq!(
        (output.code, outcome.reason),
        (77, Reason::ModelAuthenticationFailed),
        "{output:#?}\n{outcome:#?}"
    );
    let failed = states(&outcome).iter().filter(|state| **state == DocsStatus::Failed).count();
    assert!((1..=2).contains(&failed), "{outcome:#?}");
    assert_eq!(outcome.work.location, WorkLocation::None);
    env.assert_invariants(&outcome);
}

#[test]
fn docs_agent_can_write_only_documents_of_its_task() {
    let script = Script::new()
        .turn(Turn::bash("echo x > ../../README.md; echo x > README.md; mkdir -p .taskmaster/docs/task-2; echo x > .taskmaster/tasks/tasks.json; true"))
        .turn(write_good())
        .turn(Turn::verdict("done", "Written."));
    let env = TestEnv::with(script, platform_of(2), "main");
    let (output, outcome) = document(&env, &["--task", "1"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let changed = env.git.ask("acme/platform", &["diff", "--name-only", "main", "docs/task-1-1"]);
    assert_eq!(changed.lines().count(), 3, "{changed}");
    assert!(changed.lines().all(|path| path.starts_with(".taskmaster/docs/task-1/")), "{changed}");
    env.assert_invariants(&outcome);
}

#[test]
fn platform_token_is_sufficient_for_docs_run() {
    let script = Script::new().turn(write_good()).turn(Turn::verdict("done", "Written."));
    let env = TestEnv::with(script, platform_of(1), "main");
    let token = format!("ghp_{}", uuid::Uuid::new_v4().simple());
    env.git.allow_in("acme/platform", &token, Access::Write);
    env.git.forget(&env.token);
    let file = env.path("platform-token");
    std::fs::write(&file, &token).unwrap();
    let (output, outcome) = document(&env, &["--task", "1", "--platform-token-file", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(env.github.pulls().len(), 1);
    assert!(!output.stdout.contains(&token));
    env.assert_invariants(&outcome);
}

#[test]
fn unconfined_docs_run_reports_skipped_non_documents() {
    let script = Script::new()
        .turn(Turn::bash(
            "echo x >> README.md; echo x > notes.txt; ln -s /etc/passwd .taskmaster/docs/task-1/extra.md",
        ))
        .turn(write_good())
        .turn(Turn::verdict("done", "Written."));
    let env = TestEnv::with(script, platform_of(2), "main");
    let (output, outcome) = document(&env, &["--task", "1", "--sandbox", "off"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let changed = env.git.ask("acme/platform", &["diff", "--name-only", "main", "docs/task-1-1"]);
    assert_eq!(changed.lines().count(), 3, "{changed}");
    let skipped = outcome.notes.iter().find(|note| note.starts_with("skipped files")).unwrap();
    for name in ["README.md", "notes.txt", "extra.md"] {
        assert!(skipped.contains(name), "{skipped}");
    }
    let body = env.github.pulls()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("notes.txt"), "{body}");
    env.assert_invariants(&outcome);
}

#[test]
fn docs_run_reads_plain_tasks_file_in_named_folder() {
    let tasks = r#"{"tasks": [{"id": "7", "title": "Settle", "dependencies": ["6.2"], "custom": {"jira": "TR-9"}}],
                    "metadata": {"version": "1.0"}}"#;
    let files = [("README.md", "# p\n"), ("teams/a/.taskmaster/tasks/tasks.json", tasks)];
    let files: Vec<(String, String)> = files.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    let script = Script::new()
        .turn(write_good().expecting("TR-9").expecting("task 6.2: (unknown task)"))
        .turn(Turn::verdict("done", "Written."));
    let env = TestEnv::with(script, files, "main");
    let (output, outcome) = document(&env, &["--all", "--no-pull-request"]);
    assert_eq!((output.code, outcome.reason), (64, Reason::DocumentsNotFound), "{output:#?}\n{outcome:#?}");
    for part in ["in `trader/.taskmaster/`", "found in `teams/a`"] {
        assert!(outcome.message.contains(part), "{}", outcome.message);
    }
    let (output, outcome) =
        document(&env, &["--task", "7", "--working-directory", "teams/a", "--no-pull-request"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    let written = env.git.read("acme/platform", "docs/task-7-1", "teams/a/.taskmaster/docs/task-7/prompt.md");
    assert!(written.unwrap().contains("## Steps"));
    env.model.assert_played();
    env.assert_invariants(&outcome);
}

#[test]
fn malformed_tasks_file_error_has_field_with_expected_type() {
    let mut files = platform_of(1);
    for (path, text) in &mut files {
        if path.ends_with("tasks.json") {
            *text = "{\n  \"master\": {\n    \"tasks\": [ { \"id\": true } ]\n  }\n}\n".to_owned();
        }
    }
    let env = TestEnv::with(Script::new(), files, "main");
    let (output, outcome) = document(&env, &["--all"]);
    assert_eq!((output.code, outcome.reason), (64, Reason::InvalidTask), "{output:#?}\n{outcome:#?}");
    for part in [".taskmaster/tasks/tasks.json", "`id` is true, expected a number or a text"] {
        assert!(outcome.message.contains(part), "{}", outcome.message);
    }
}
