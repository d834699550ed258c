//! The dispatcher with its own state directory and a scripted supervisor.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

mod bench;
mod checkout;
mod completions;
mod configuration;
mod docs;
mod lenient_names;
mod listing;
mod results;
mod run_selection;
mod terminal;
mod watch;
mod workspaces;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use bench::{Bench, eventually, read_until};

#[test]
fn fifty_identical_submissions_create_one_run() {
    let bench = Bench::new();
    let submit = || {
        let mut command = bench.command("submit --task 1 --service trader -o json");
        command.env("ORCHESTRATOR_TEST_END", "held");
        command
    };
    let all = bench.concurrently((0..50).map(|_| submit()));
    let started: Vec<String> = all.iter().map(|done| done.json()["result"].to_string()).collect();
    assert_eq!(started.iter().filter(|started| *started == "\"created\"").count(), 1, "{started:?}");
    assert!(
        all.iter().all(|done| done.code == 0 && done.json()["run"] == "trader-claude-agent-1-task1-attempt1")
    );
    assert_eq!(bench.runs().len(), 1);
}

#[test]
fn fifty_different_tasks_create_fifty_runs() {
    let bench = Bench::new();
    let all = bench.concurrently(
        (1..=50).map(|task| bench.command(&format!("submit --task {task} --service trader -o json"))),
    );
    assert!(all.iter().all(|done| done.code == 0 && done.json()["result"] == "created"), "{all:?}");
    let names: BTreeSet<String> = bench.runs().iter().map(|run| run["run"].to_string()).collect();
    assert_eq!(names.len(), 50);
}

#[test]
fn concurrent_retries_get_unique_attempt_numbers() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    let all = bench.concurrently((0..20).map(|number| {
        bench.command(&format!("submit --task 1 --service trader --retry --guidance {number} -o json"))
    }));
    let mut attempts = BTreeSet::new();
    for done in &all {
        match done.code {
            0 => assert!(attempts.insert(done.json()["task"]["attempt"].as_u64().unwrap()), "{done:?}"),
            // Rejected because the attempt before was active.
            code => assert_eq!(code, 75, "{done:?}"),
        }
    }
    assert!(!attempts.is_empty());
    assert_eq!(bench.runs().len(), attempts.len() + 1);
}

#[test]
fn run_continues_after_dispatcher_is_killed() {
    let bench = Bench::new();
    let mut waiting = bench.command("submit --task 1 --service trader --wait");
    let mut waiting = waiting.env("ORCHESTRATOR_TEST_END", "held").spawn().unwrap();
    eventually("the run to start", || bench.runs().first().is_some_and(|run| run["phase"] == "Running"));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    let run = "trader-claude-agent-1-task1-attempt1";
    assert_eq!(bench.run(&format!("status {run} -o json")).json()["phase"], "Running");
    bench.release(run);
    assert_eq!(bench.run(&format!("wait {run}")).code, 0);
}

#[test]
fn supervisor_exit_without_outcome_is_supervisor_lost() {
    let bench = Bench::new();
    let run = bench.submit("lost");
    let done = bench.run(&format!("wait {run} -o json"));
    assert_eq!(done.code, 70);
    let status = done.json();
    assert_eq!(
        (status["phase"].as_str(), status["reason"].as_str()),
        (Some("Failed"), Some("SupervisorLost"))
    );
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("out of cheese") && message.contains("workspace-trader"), "{message}");
    let found_at = status["finished_at"].clone();
    assert_eq!(bench.run(&format!("status {run} -o json")).json()["finished_at"], found_at);
}

#[test]
fn wait_exits_with_exit_code_of_run() {
    let bench = Bench::new();
    assert_eq!(bench.run_ending("failed", "submit --task 1 --service trader --wait").code, 1);
    assert_eq!(bench.run_ending("done", "submit --task 2 --service trader --wait").code, 0);
    let run = bench.run_ending("held", "submit --task 3 --service trader -o json").json();
    let done = bench.run(&format!("wait {} --timeout 0.05", run["run"].as_str().unwrap()));
    assert_eq!(done.code, 124);
    assert!(done.stderr.contains("timed out waiting for"), "{done:?}");
}

#[test]
fn stop_is_idempotent_with_reason_stopped() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let done = bench.run(&format!("stop {run} -o json"));
    assert_eq!((done.code, done.json()["reason"].as_str()), (0, Some("Stopped")), "{done:?}");
    let again = bench.run(&format!("stop {run}"));
    assert_eq!(again.code, 0);
    assert!(again.stderr.contains("is already finished"), "{again:?}");
    assert_eq!(bench.run(&format!("wait {run}")).code, 143);
}

#[test]
fn stop_now_reaches_supervisor() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let done = bench.run(&format!("stop {run} --now -o json"));
    assert_eq!(done.json()["message"], "stopped now");
}

#[test]
fn followed_log_ends_with_run() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let mut logs = bench.command("logs -f").spawn().unwrap();
    let head = read_until(&mut logs, "edits src/lib.rs\n");
    assert_eq!(head, "12:00:00 agent          edits src/lib.rs\n");
    bench.release(&run);
    let rest = logs.wait_with_output().unwrap();
    assert_eq!(rest.status.code(), Some(0));
    let rest = String::from_utf8(rest.stdout).unwrap();
    assert_eq!(rest, "12:00:00 outcome        pull request 7 is open.\n");
}

#[test]
fn log_is_selected_by_cursor_or_tail() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let lines = |arguments: &str| bench.run(&format!("logs {run} {arguments}")).stdout.lines().count();
    assert_eq!((lines(""), lines("--tail 1"), lines("--since-seq 2"), lines("--tail 0")), (2, 1, 1, 0));
    let raw = bench.run(&format!("logs {run} -o json --since-seq 2")).json();
    assert_eq!(raw["event"], "outcome");
}

#[test]
fn attempted_task_rejection_offers_retry_or_fresh() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    let refused = bench.run("submit --task 1 --service trader");
    assert_eq!(refused.code, 64);
    assert!(refused.stderr.contains("--retry") && refused.stderr.contains("--fresh"), "{refused:?}");
    let retried = bench.run("submit --task 1 --service trader --retry --guidance better -o json");
    assert_eq!(retried.json()["task"]["attempt"], 2);
    bench.run("wait trader-claude-agent-1-task1-attempt2");
    let fresh = bench.run("submit --task 1 --service trader --fresh -o json");
    assert_eq!(fresh.json()["task"]["attempt"], 3);
    assert_eq!(fresh.json()["task"]["guidance"], serde_json::Value::Null);
}

#[test]
fn retry_keeps_earlier_overrides_unless_replaced() {
    let bench = Bench::new();
    let submit = "submit --task 1 --service trader --model opus --minutes 7 --guidance old --wait \
                  --repository-url https://github.com/myorg/other";
    bench.run_ending("failed", submit);
    let mut retry = bench.command("retry trader-claude-agent-1-task1-attempt1 --guidance new -o json");
    // A retry does not depend on the open directory.
    let done: bench::CommandOutput = retry.current_dir(bench.path("home")).output().unwrap().into();
    let task = &done.json()["task"];
    assert_eq!(task["mode"], "retry");
    assert_eq!(task["model"], "opus");
    assert_eq!(task["limits"]["timeout_minutes"], 7.0);
    assert_eq!(task["guidance"], "new");
    assert_eq!(task["target"]["url"], "https://github.com/myorg/other");
    assert_eq!(task["platform"]["url"], "/srv/git/trader.git");
}

#[test]
fn retry_of_active_attempt_is_rejected() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    bench.run_ending("held", "submit --task 1 --service trader --retry");
    let refused = bench.run("retry trader-claude-agent-1-task1-attempt1 --guidance more");
    assert_eq!(refused.code, 75);
    assert!(refused.stderr.contains("dispatcher stop"), "{refused:?}");
}

#[test]
fn rejected_or_dry_run_commands_write_nothing() {
    let bench = Bench::new();
    std::fs::write(bench.path("bad.toml"), "color = 1\n").unwrap();
    let bad = bench.path("bad.toml");
    let cases = [
        ("submit --task 0 --service trader".to_owned(), 64),
        ("submit --task 1 --service ../x".to_owned(), 64),
        ("submit --task 1 --service trader --minutes -1".to_owned(), 64),
        ("submit --task 1 --service trader --retry".to_owned(), 64),
        ("submit --task 1 --service auth".to_owned(), 64),
        ("submit --task 1 --service trader --supervisor /does/not/exist".to_owned(), 78),
        (format!("submit --task 1 --service trader --config {}", bad.display()), 78),
        ("status".to_owned(), 64),
        ("submit --task 1 --service trader --dry-run".to_owned(), 0),
        ("list".to_owned(), 0),
        ("gc".to_owned(), 0),
    ];
    for (arguments, code) in cases {
        let done = bench.run(&arguments);
        assert_eq!(done.code, code, "{arguments}: {done:?}");
        let lines = done.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(lines, usize::from(code != 0), "{arguments}: {done:?}");
    }
    assert!(!bench.path("state").exists());
}

#[test]
fn supervisor_receives_allowlisted_environment_only() {
    let bench = Bench::new();
    let mut command = bench.command("submit --task 1 --service trader --wait");
    command.env("AWS_SECRET_ACCESS_KEY", "x").env("GITHUB_TOKEN", "x").output().unwrap();
    let names = bench.run_file("trader-claude-agent-1-task1-attempt1", "environment.txt");
    let names = std::fs::read_to_string(names).unwrap();
    assert!(names.contains("GITHUB_TOKEN") && !names.contains("AWS_SECRET_ACCESS_KEY"), "{names}");
}

#[test]
fn gc_keeps_active_or_unpushed_runs_without_reusing_numbers() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    let control = bench.path("state/workspaces/workspace-trader/.orchestrator");
    let record = control.join("runs/trader-claude-agent-1-task1-attempt1");
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("transcript.jsonl"), "{}\n").unwrap();
    let mut unpushed = bench.command("submit --task 2 --service trader --wait");
    unpushed.env("ORCHESTRATOR_TEST_WORK", "workspace").output().unwrap();
    bench.run_ending("held", "submit --task 3 --service trader");
    let dry = bench.run("gc --keep 0 --dry-run -o json").json();
    let removed = bench.run("gc --keep 0 -o json").json();
    assert_eq!(dry["removed"][0]["run"], removed["removed"][0]["run"]);
    assert_eq!(removed["removed"].as_array().unwrap().len(), 1, "{removed}");
    assert!(!record.exists() && control.join("attempts").is_dir());
    let left: Vec<String> = bench.runs().iter().map(|run| run["task_id"].to_string()).collect();
    assert_eq!(left, ["3", "2"]);
    assert_eq!(bench.submit("done"), "trader-claude-agent-1-task1-attempt2");
}

/// Submits task 1 after a failed run and waits for the run to end.
fn start_over(bench: &Bench) -> String {
    let done = bench.run_ending("failed", "submit --task 1 --service trader --fresh -o json");
    assert_eq!(done.code, 0, "{done:?}");
    let run = done.json()["run"].as_str().unwrap().to_owned();
    bench.run(&format!("wait {run}"));
    run
}

#[test]
fn garbage_in_place_of_attempt_numbers_stops_no_submission() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    let control = bench.path("state/workspaces/workspace-trader/.orchestrator");
    let (agent, file) =
        (control.join("attempts/claude-agent-1"), control.join("attempts/claude-agent-1/task1"));
    let damages: [&dyn Fn(); 5] = [
        &|| std::fs::write(&file, "garbage").unwrap(),
        &|| std::fs::write(&file, [0xff]).unwrap(),
        &|| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o0)).unwrap(),
        &|| {
            std::fs::remove_file(&file).unwrap();
            std::fs::create_dir_all(file.join("folder")).unwrap();
        },
        &|| {
            std::fs::remove_dir_all(&agent).unwrap();
            std::fs::write(&agent, "garbage").unwrap();
        },
    ];
    for (damage, attempt) in damages.into_iter().zip(2..) {
        damage();
        assert_eq!(bench.run("list").code, 0);
        assert_eq!(start_over(&bench), format!("trader-claude-agent-1-task1-attempt{attempt}"));
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), attempt.to_string());
    }
}

#[test]
fn attempt_follows_damaged_records_and_runs_of_workspace() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    let state = bench.path("state");
    let control = state.join("workspaces/workspace-trader/.orchestrator");
    std::fs::remove_dir_all(control.join("attempts")).unwrap();
    std::fs::create_dir_all(control.join("runs/trader-claude-agent-1-task1-attempt5")).unwrap();
    assert_eq!(start_over(&bench), "trader-claude-agent-1-task1-attempt6");
    std::fs::remove_dir_all(&control).unwrap();
    std::fs::write(state.join("runs/trader-claude-agent-1-task1-attempt6/record.json"), "{").unwrap();
    assert_eq!(start_over(&bench), "trader-claude-agent-1-task1-attempt7");
}

#[test]
fn colliding_run_names_are_made_unique() {
    let bench = Bench::new();
    let url = "--repository-url https://github.com/myorg/trader";
    let submit = |service: &str, agent: &str| {
        let done = bench.run(&format!("submit --task 1 --service {service} --agent {agent} {url} -o json"));
        done.json()["run"].as_str().unwrap().to_owned()
    };
    assert_eq!(submit("a-b", "c"), "a-b-c-task1-attempt1");
    assert_ne!(submit("a", "b-c"), "a-b-c-task1-attempt1");
    assert_eq!(bench.runs().len(), 2);
}

#[test]
fn output_formats_report_same_status() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let json = bench.run(&format!("status {run} -o json")).json();
    let yaml = bench.run(&format!("status {run} -o yaml")).stdout;
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json);
    let table = bench.run(&format!("status {run}")).stdout;
    assert!(table.contains("Succeeded (Completed)") && table.contains(&run), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[test]
fn doctor_reports_missing_parts_with_fix() {
    let bench = Bench::new();
    let done = bench.run("doctor -o json");
    assert_eq!(done.code, 78);
    let checks = done.json()["checks"].as_array().unwrap().clone();
    let status = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap()["status"].clone();
    assert_eq!(status("supervisor"), "ok");
    assert_eq!(status("state directory"), "ok");
    assert_eq!(status("model credential"), "error");
    assert!(checks.iter().all(|check| check["status"] == "ok" || check["fix"].is_string()), "{done:?}");
    let servers: Vec<_> = checks.iter().filter(|check| check["name"] == "mcp server").collect();
    assert!(servers.len() == 3 && servers.iter().all(|check| check["status"] == "warning"), "{done:?}");
}

#[test]
fn supervisor_start_failure_is_reported_immediately() {
    let bench = Bench::new();
    let done = bench.run("submit --task 1 --service trader --supervisor /bin/false");
    assert!(done.stdout.contains("which failed: the supervisor exited before its first event"), "{done:?}");
}

#[test]
fn configuration_reaches_task_and_supervisor() {
    let bench = Bench::new();
    let toml = r#"
        github_api_url = "http://127.0.0.1:9/api"
        [defaults]
        model = "opus"
        [services.trader]
        verify = ["cargo test"]
        pull_request = "none"
        limits = { timeout_minutes = 30 }
        [agents.claude-agent-1]
        github_user = "octocat"
        commit_email = "octo@example.com"
        github_token_file = "token"
    "#;
    let folder = bench.path("home/.config/orchestrator");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("orchestrator.toml"), toml).unwrap();
    let missing = bench.run("submit --task 1 --service trader --dry-run");
    assert_eq!(missing.code, 78);
    assert!(missing.stderr.contains("orchestrator/token, which does not exist"), "{missing:?}");
    assert!(!bench.path("state").exists());

    std::fs::write(folder.join("token"), "x").unwrap();
    let mut command = bench.command("submit --task 1 --service trader --dry-run -o json");
    let done: bench::CommandOutput = command.env("ORCHESTRATOR_MODEL", "haiku").output().unwrap().into();
    let preview = done.json();
    let task = &preview["task"];
    assert_eq!(task["model"], "haiku");
    assert_eq!(task["verify"][0], "cargo test");
    assert_eq!(task["pull_request"], "none");
    assert_eq!(task["limits"]["timeout_minutes"], 30.0);
    assert_eq!(task["github_user"], "octocat");
    assert_eq!(task["commit_identity"]["name"], "octocat");
    let command = preview["command"].as_array().unwrap();
    let at = command.iter().position(|word| word == "--github-token-file").unwrap();
    assert_eq!(command[at + 1], folder.join("token").to_str().unwrap());
}

#[test]
fn gh_token_is_passed_but_never_written() {
    let bench = Bench::new();
    let bin = bench.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(bench::source("gh.sh"), bin.join("gh")).unwrap();
    let mut command = bench.command("submit --task 1 --service trader --wait --repository-url https://h/o/r");
    let done: bench::CommandOutput =
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap().into();
    assert_eq!(done.code, 0, "{done:?}");
    let run = "trader-claude-agent-1-task1-attempt1";
    let names = std::fs::read_to_string(bench.run_file(run, "environment.txt")).unwrap();
    assert!(names.lines().any(|name| name == "GITHUB_TOKEN"), "{names}");
    for file in ["task.json", "record.json", "events.jsonl", "stderr.log"] {
        let text = std::fs::read_to_string(bench.run_file(run, file)).unwrap();
        assert!(!text.contains("canary"), "{file}");
    }
}

#[test]
fn outcome_saved_only_in_workspace_is_found() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let events = bench.run_file(&run, "events.jsonl");
    let text = std::fs::read_to_string(&events).unwrap();
    let (head, last) = text.trim_end().rsplit_once('\n').unwrap();
    let outcome = serde_json::from_str::<serde_json::Value>(last).unwrap()["outcome"].clone();
    // As on a full disk: the last line was truncated.
    std::fs::write(&events, format!("{head}\n{}", &last[..last.len() / 2])).unwrap();
    assert_eq!(bench.run(&format!("wait {run}")).code, 70);
    let kept = bench.path("state/workspaces/workspace-trader/.orchestrator/runs").join(&run);
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join("outcome.json"), outcome.to_string()).unwrap();
    assert_eq!(bench.run(&format!("wait {run}")).code, 0);
}

#[test]
fn status_without_name_lists_several_active_runs() {
    let bench = Bench::new();
    bench.run_ending("held", "submit --task 1 --service trader");
    bench.run_ending("held", "submit --task 2 --service trader");
    let done = bench.run("status");
    assert_eq!(done.stdout.lines().count(), 3, "{done:?}");
    assert_eq!(bench.run("status --task 2 -o json").json()["task_id"], 2);
}

#[test]
fn log_follow_exits_when_reader_closes() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let mut logs = bench.command(&format!("logs -f {run}")).spawn().unwrap();
    read_until(&mut logs, "edits src/lib.rs\n");
    drop(logs.stdout.take());
    // Released: the next line has no reader.
    bench.release(&run);
    assert_eq!(logs.wait().unwrap().code(), Some(0));
}

#[test]
fn remote_credentials_warn_only_when_remote_is_used() {
    let bench = Bench::new();
    let config = "[remote \"origin\"]\n\turl = https://me:hunter2@github.com/myorg/trader.git\n";
    std::fs::write(bench.path("open/.git/config"), config).unwrap();
    let used = bench.run("submit --task 1 --service trader --dry-run");
    assert!(used.stderr.starts_with("warning: ") && !used.stderr.contains("hunter2"), "{used:?}");
    assert!(!used.stdout.contains("hunter2"), "{used:?}");
    let other = "--repository-url /srv/a --platform-repository-url /srv/b";
    let unused = bench.run(&format!("submit --task 1 --service trader --dry-run {other}"));
    assert_eq!((unused.code, unused.stderr.as_str()), (0, ""));
}

#[test]
fn submit_after_failed_start_needs_no_retry_flag() {
    let bench = Bench::new();
    bench.run("submit --task 1 --service trader --supervisor /bin/false");
    assert_eq!(bench.submit("done"), "trader-claude-agent-1-task1-attempt2");
}

#[test]
fn deleted_workspace_does_not_reset_attempt_numbers() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    std::fs::remove_dir_all(bench.path("state/workspaces")).unwrap();
    let retried = bench.run("submit --task 1 --service trader --retry -o json");
    assert_eq!(retried.json()["task"]["attempt"], 2, "{retried:?}");
}

#[test]
fn slow_stop_is_awaited_only_until_timeout() {
    let bench = Bench::new();
    let run = bench.submit("stubborn");
    let stopping = bench.run(&format!("stop {run} --no-wait"));
    assert_eq!(stopping.code, 0);
    assert!(stopping.stderr.contains("stop requested"), "{stopping:?}");
    let waited = bench.run(&format!("stop {run} --timeout 0.05"));
    assert_eq!(waited.code, 124);
    assert!(waited.stderr.contains("still saving its work"), "{waited:?}");
    bench.release(&run);
    assert_eq!(bench.run(&format!("wait {run}")).code, 0);
}

#[test]
fn run_list_is_filtered_newest_first() {
    let bench = Bench::new();
    bench.run_ending("failed", "submit --task 1 --service trader --wait");
    bench.run_ending("done", "submit --task 2 --service trader --wait");
    let tasks = |arguments: &str| {
        let list = bench.run(&format!("list {arguments} -o json")).json();
        list["runs"].as_array().unwrap().iter().map(|run| run["task_id"].to_string()).collect::<String>()
    };
    assert_eq!(tasks(""), "21");
    assert_eq!(tasks("--phase failed"), "1");
    assert_eq!(tasks("--task 2"), "2");
    assert_eq!(tasks("--service auth"), "");
    assert_eq!(tasks("--limit 1"), "2");
    assert_eq!(bench.run("list --phase tired").code, 64);
}

#[test]
fn gc_removes_leftovers_of_interrupted_removal() {
    let bench = Bench::new();
    bench.submit_and_wait("done");
    let left = bench.path("state/runs/.removed-old");
    std::fs::create_dir(&left).unwrap();
    assert_eq!(bench.run("gc").code, 0);
    assert!(!left.exists());
    assert_eq!(bench.runs().len(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn interrupted_log_follow_leaves_run_active() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let mut logs = bench.command(&format!("logs -f {run}")).spawn().unwrap();
    read_until(&mut logs, "edits src/lib.rs\n");
    // The follower polls: it listens for the signal a moment later.
    eventually("the interrupt to be taken over", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", logs.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(caught, 16).unwrap() & 2 != 0
    });
    let pid = rustix::process::Pid::from_child(&logs);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(logs.wait().unwrap().code(), Some(130));
    assert_eq!(bench.run(&format!("status {run} -o json")).json()["phase"], "Running");
}

#[test]
fn submit_wait_detects_supervisor_lost() {
    let bench = Bench::new();
    assert_eq!(bench.run_ending("lost", "submit --task 1 --service trader --wait").code, 70);
}

#[test]
fn long_log_does_not_change_status() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let before = bench.run(&format!("status {run} -o json")).json();
    let file = bench.run_file(&run, "events.jsonl");
    let events = std::fs::read_to_string(&file).unwrap();
    let (first, rest) = events.split_once('\n').unwrap();
    // The inserted lines are not events, so that only their length matters.
    std::fs::write(&file, format!("{first}\n{}{rest}", "no event\n".repeat(200_000))).unwrap();
    assert_eq!(bench.run(&format!("status {run} -o json")).json(), before);
}
