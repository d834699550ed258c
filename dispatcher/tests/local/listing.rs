//! What `list` and `logs` show of several runs, and what a retry says.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::bench::Bench;

/// Copies the record of a run of task 1 for other tasks.
fn copy_run(bench: &Bench, run: &str, tasks: std::ops::RangeInclusive<u32>) {
    for task in tasks {
        let name = run.replace("task1", &format!("task{task}"));
        fs::create_dir(bench.path("state/runs").join(&name)).unwrap();
        for file in ["task.json", "record.json", "events.jsonl", "lock"] {
            let text = fs::read_to_string(bench.run_file(run, file)).unwrap();
            let text = text.replace(run, &name);
            let text = text.replace("\"task_id\": 1,", &format!("\"task_id\": {task},"));
            fs::write(bench.run_file(&name, file), text).unwrap();
        }
    }
}

#[test]
fn damaged_records_are_listed_as_damaged() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let folder = |name: &str| {
        let path = bench.path("state/runs").join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    folder("being-written");
    folder("Not A Run");
    let left = folder("left-over");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(&left).unwrap().set_modified(long_ago).unwrap();
    let damaged = folder("damaged");
    for file in ["record.json", "task.json"] {
        fs::write(damaged.join(file), "{").unwrap();
    }
    let list = bench.run("list -o json").json();
    assert_eq!(list["runs"].as_array().unwrap().len(), 1);
    let names: Vec<&str> =
        list["damaged"].as_array().unwrap().iter().map(|record| record["run"].as_str().unwrap()).collect();
    assert_eq!(names, ["Not A Run", "damaged", "left-over"]);
    let table = bench.run("list").stdout;
    assert!(table.contains(&run) && table.contains("damaged record of run damaged"), "{table}");
    assert!(table.contains("incomplete record"), "{table}");
    assert_eq!(bench.run("list --task 7").stdout, "");
    assert_eq!(bench.run("status damaged").code, 74);
}

#[test]
fn list_shows_newest_twenty_runs_unless_all_are_wanted() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    copy_run(&bench, &run, 2..=23);
    let lines = |arguments: &str| bench.run(arguments).stdout.lines().count();
    let list = bench.run("list");
    assert_eq!(list.stdout.lines().count(), 21);
    assert_eq!(list.stderr, "3 older runs are not shown; --all shows them\n");
    assert_eq!((lines("list --all"), lines("list --limit 22")), (24, 23));
    assert_eq!(bench.runs().len(), 23, "a program gets all");
    assert_eq!(bench.run("list --all --limit 2").code, 64);
}

#[test]
fn list_fits_width_of_terminal() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("failed");
    copy_run(&bench, &run, 2..=3);
    for width in [60, 80, 120] {
        let done = bench.command("list").env("COLUMNS", width.to_string()).output().unwrap();
        let table = String::from_utf8(done.stdout).unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= width), "{width}:\n{table}");
        assert!(table.contains(&run) && table.contains("TITLE"), "{width}:\n{table}");
        assert!(table.contains("AgentFailed: the agent gave up"), "{width}:\n{table}");
    }
}

#[test]
fn log_names_its_run_and_other_active_ones() {
    let bench = Bench::new();
    let first = bench.submit("held");
    assert_eq!(bench.run("logs").stderr, format!("log of {first}\n"));
    let second = bench.run_ending("held", "submit --task 2 --service trader -o json").json();
    let second = second["run"].as_str().unwrap().to_owned();
    let log = bench.run("logs");
    assert_eq!(log.stderr, format!("log of {second}, the newest; also active: {first}\n"));
    let log = bench.run(&format!("logs {first}"));
    assert_eq!(log.stderr, format!("log of {first}\n"));
    assert!(log.stdout.contains("edits src/lib.rs"), "{log:?}");
}

#[test]
fn hints_do_not_lead_to_an_empty_list() {
    let bench = Bench::new();
    for verb in ["wait", "list", "logs", "status", "status some-run", "retry"] {
        let done = bench.run(verb);
        assert!(done.stderr.contains("dispatcher submit --task ID"), "{verb}: {done:?}");
    }
    let run = bench.submit("held");
    for verb in ["wait --task 7", "list --task 7", "status --service auth", "status x-attempt9"] {
        let done = bench.run(verb);
        assert!(done.stderr.contains(&format!("The newest run is {run}.")), "{verb}: {done:?}");
    }
    let retry = bench.run("retry --task 1");
    assert!(retry.stderr.contains(&format!("dispatcher stop {run}")), "{retry:?}");
}

#[test]
fn retry_says_which_attempt_it_continues() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    for preview in ["--dry-run", ""] {
        let done = bench.run(&format!("retry --guidance smaller {preview}"));
        let head = "continues attempt 1 on b, with guidance \"smaller\"";
        assert!(done.stdout.contains(head), "{preview}: {done:?}");
        assert!(done.stdout.contains("resume the session of claude-agent-1"), "{preview}: {done:?}");
    }
}
