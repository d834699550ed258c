//! Commands without a run name.

use crate::bench::{Bench, eventually};

#[test]
fn command_without_run_selects_only_active_run() {
    let bench = Bench::new();
    let ended = bench.submit_and_wait("failed");
    let live = bench.run_ending("held", "submit --task 2 --service trader -o json").json();
    let live = live["run"].as_str().unwrap().to_owned();
    eventually("the run to start", || {
        bench.run(&format!("status {live} -o json")).json()["phase"] == "Running"
    });
    assert_eq!(bench.run("wait --timeout 0.05 -o json").json()["run"], *live);
    assert_eq!(bench.run("stop -o json").json()["run"], *live);
    // Tasks 1 and 2 have ended: the latest run is selected, unless the task is given.
    assert_eq!(bench.run("wait").code, 143);
    assert_eq!(bench.run("wait --task 1").code, 1);
    let retried = bench.run("retry --task 1 --guidance again -o json").json();
    assert_eq!(retried["run"], ended.replace("attempt1", "attempt2"));
}

#[test]
fn several_active_runs_are_listed_not_guessed() {
    let bench = Bench::new();
    let submit = |service: &str| {
        let line = format!("submit --task 1 --service {service} --repository-url /srv/git/x.git -o json");
        bench.run_ending("held", &line).json()["run"].as_str().unwrap().to_owned()
    };
    let runs = [submit("trader"), submit("auth")];
    for verb in ["stop", "wait", "stop --task 1"] {
        let done = bench.run(verb);
        assert_eq!(done.code, 64, "{done:?}");
        assert!(runs.iter().all(|run| done.stderr.contains(run)), "{done:?}");
    }
    assert_eq!(bench.run("stop --service auth -o json").json()["run"], *runs[1]);
    assert_eq!(bench.run("retry --service trader").code, 64, "it has not ended");
}

#[test]
fn submit_goes_on_after_attempt_that_never_reached_agent() {
    let bench = Bench::new();
    let first = bench.submit_and_wait("refused");
    let second = bench.submit_and_wait("failed");
    assert_eq!(second, first.replace("attempt1", "attempt2"));
    let third = bench.run("submit --task 1 --service trader");
    assert_eq!(third.code, 64, "{third:?}");
    assert!(third.stderr.contains(&second) && third.stderr.contains("--retry"), "{third:?}");
}

#[test]
fn selection_without_match_fails_with_explanation() {
    let bench = Bench::new();
    for (verb, words) in [
        ("wait", "no run found"),
        ("stop --service auth", "no run of service `auth` found"),
        ("retry --task 7", "no finished run for task 7 found"),
    ] {
        let done = bench.run(verb);
        assert_eq!(done.code, 64);
        assert!(done.stderr.contains(words), "{done:?}");
    }
}

#[test]
fn either_guidance_file_flag_works_unless_repeated() {
    let bench = Bench::new();
    std::fs::write(bench.path("open/notes.md"), "Use reqwest.\n").unwrap();
    for flag in ["--guidance-file", "--guidance-file"] {
        let line = format!("submit --task 1 --service trader {flag} notes.md --dry-run -o json");
        let guidance = bench.run(&line).json()["task"]["guidance"].clone();
        assert!(guidance.as_str().unwrap().contains("Use reqwest."), "{flag}: {guidance}");
    }
    let done = bench.run("submit --task 1 --service trader --guidance-file notes.md --guidance x");
    assert_eq!(done.code, 64);
    assert!(done.stderr.contains("--guidance-file") && done.stderr.contains("--guidance"), "{done:?}");
}

#[test]
fn logs_filter_by_time_list_by_several_phases() {
    let bench = Bench::new();
    // All events of the fake supervisor are of 2026-11-22, 12:00.
    bench.submit_and_wait("done");
    let lines = |arguments: &str| bench.run(&format!("logs {arguments} -o json")).stdout.lines().count();
    let all = lines("");
    assert!(all >= 3);
    assert_eq!(lines("--since 2026-11-22T12:00:00Z"), all);
    assert_eq!(lines("--since 2026-11-22T14:00:00+02:00"), all);
    assert_eq!(lines("--since 2026-11-22T12:00:01Z"), 0);
    assert_eq!(lines("--since 2026-11-22T12:00:01Z --tail 5 --follow"), 0);
    assert_eq!(lines("--since 2026-11-22T12:00:00Z --tail 2 --follow"), 2);
    assert_eq!(lines("--since 1000000h --since-seq 1"), all - 1);
    assert_eq!(bench.run("logs --since yesterday").code, 64);

    let count = |phases: &str| {
        bench.run(&format!("list --phase {phases} -o json")).json()["runs"].as_array().unwrap().len()
    };
    assert_eq!((count("Running,succeeded"), count("Running,Failed")), (1, 0));
}
