//! What a lead does with the result of a run: look at its diff, page and cost.

use std::os::unix::fs::PermissionsExt as _;

use crate::bench::{Bench, eventually};
use crate::terminal::on_a_terminal;

const PATCH: &str = "\
diff --git a/src/lib.rs b/src/lib.rs
--- a/src/lib.rs
+++ b/src/lib.rs
@@ -1 +1,2 @@
 fn old() {}
+fn new() {} // \u{1b}[2J
";

#[test]
fn diff_of_run_is_printed_with_statistics() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let none = bench.run("diff");
    assert!(none.code == 64 && none.stderr.contains("has no diff"), "{none:?}");
    let record = bench.path("state/workspaces/workspace-trader/.orchestrator/runs").join(&run);
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("diff.patch"), PATCH).unwrap();
    let diff = bench.run("diff");
    assert_eq!(diff.stdout, PATCH.replace('\u{1b}', "\u{fffd}"));
    assert_eq!(diff.stderr, format!("diff of {run}: 1 file changed (+1 -0)\n"));
    let stat = bench.run(&format!("diff {run} --stat"));
    assert!(stat.stdout.contains("+1     -0  src/lib.rs\n"), "{stat:?}");
    let json = bench.run("diff --path src/ -o json").json();
    assert_eq!((json["run"].as_str(), json["files"][0]["added"].as_u64()), (Some(&*run), Some(1)));
    assert_eq!(bench.run("diff --path tests/").stdout, "");
}

#[test]
fn newest_run_that_fits_the_command_is_taken() {
    let bench = Bench::new();
    let url = "https://github.com/myorg/trader/pull/7";
    let earlier = submit_with_pull_request(&bench, url);
    let record = bench.path("state/workspaces/workspace-trader/.orchestrator/runs").join(&earlier);
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("diff.patch"), PATCH).unwrap();
    let active = bench.run_ending("held", "submit --task 2 --service trader -o json").json();
    let active = active["run"].as_str().unwrap().to_owned();
    assert_eq!(bench.run("open").stdout, format!("{url}\n"));
    assert_eq!(bench.run("open trader -o json").json()["run"], *earlier);
    assert_eq!(bench.run("diff -o json").json()["run"], *earlier);
    assert_eq!(bench.run("diff latest -o json").json()["run"], *earlier);
    for verb in ["open", "diff", "checkout"] {
        let done = bench.run(&format!("{verb} {active}"));
        assert_eq!(done.code, 64, "{done:?}");
        assert!(done.stderr.contains(&format!("`{active}` has not saved its work yet")), "{done:?}");
        assert!(done.stderr.contains(&format!("dispatcher logs -f {active}")), "{done:?}");
    }
    bench.release(&active);
    bench.run(&format!("wait {active}"));
    let done = bench.run(&format!("open {active}"));
    assert!(done.stderr.contains(&format!("dispatcher checkout {active}")), "{done:?}");
    let done = bench.run(&format!("diff {active}"));
    assert!(done.stderr.contains(&format!("dispatcher status {active}")), "{done:?}");
}

#[test]
fn version_has_commit() {
    let bench = Bench::new();
    let version = bench.run("version");
    assert!(
        version.stdout.starts_with(concat!("dispatcher ", env!("CARGO_PKG_VERSION"), " (commit ")),
        "{version:?}"
    );
    assert_eq!(bench.run("--version").stdout, version.stdout);
    let json = bench.run("version -o json").json();
    assert!(version.stdout.contains(json["commit"].as_str().unwrap()), "{json}");
}

/// Submits task 1 of a repository on GitHub, with a pull request there.
fn submit_with_pull_request(bench: &Bench, url: &str) -> String {
    let submit =
        "submit --task 1 --service trader --repository-url https://github.com/myorg/trader --wait -o json";
    let done = bench.command(submit).env("ORCHESTRATOR_TEST_PULL", url).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    status["run"].as_str().unwrap().to_owned()
}

#[test]
fn open_prints_pull_request_without_terminal() {
    let bench = Bench::new();
    let none = bench.submit_and_wait("done");
    let done = bench.run(&format!("open {none}"));
    assert!(done.code == 64 && done.stderr.contains("has no pull request"), "{done:?}");
    let bench = Bench::new();
    let run = submit_with_pull_request(&bench, "https://github.com/myorg/trader/pull/7");
    let done = bench.run("open");
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("https://github.com/myorg/trader/pull/7\n", "")
    );
    let json = bench.run("open -o json").json();
    assert_eq!((json["run"].as_str(), json["opened"].as_bool()), (Some(&*run), Some(false)));
    // A failed retry shows why it failed, not the pull request of the earlier attempt.
    let retry = bench
        .command("retry --guidance x --wait")
        .env("ORCHESTRATOR_TEST_END", "failed")
        .envs([("ORCHESTRATOR_TEST_PULL", "https://github.com/myorg/trader/pull/7")])
        .output()
        .unwrap();
    assert_eq!(retry.status.code(), Some(1), "{retry:?}");
    let list = bench.run("list").stdout;
    assert!(list.lines().nth(1).unwrap().ends_with("AgentFailed: the agent gave up."), "{list}");
}

#[test]
fn open_starts_browser_for_own_host_only() {
    for (url, opened) in [
        ("https://github.com/myorg/trader/pull/7", true),
        ("https://evil.example/myorg/trader/pull/7", false),
    ] {
        let bench = Bench::new();
        submit_with_pull_request(&bench, url);
        let log = bench.path("opened");
        let opener = bench.path("bin/xdg-open");
        std::fs::create_dir(bench.path("bin")).unwrap();
        std::fs::write(&opener, format!("#!/bin/sh\necho \"$@\" >'{}'\n", log.display())).unwrap();
        std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", bench.path("bin").display());
        let shown = on_a_terminal(&bench, "open", &[("PATH", &path)]);
        assert!(shown.contains(url), "{shown}");
        if opened {
            let is_open = || std::fs::read_to_string(&log).is_ok_and(|text| text == format!("{url}\n"));
            eventually("the browser to start", is_open);
        } else {
            assert!(!log.exists());
        }
    }
}

#[test]
fn costs_are_summed_from_records() {
    let bench = Bench::new();
    for (task, cost) in [(1, "0.1"), (2, "0.2")] {
        let submit = format!("submit --task {task} --service trader --wait");
        bench.command(&submit).env("ORCHESTRATOR_TEST_COST", cost).output().unwrap();
    }
    let costs = bench.run("cost -o json").json();
    assert_eq!(costs["sums"].to_string(), r#"[{"cost_usd":0.3,"key":"trader","runs":2,"turns":6}]"#);
    let table = bench.run("cost --by day").stdout;
    assert!(table.starts_with("DAY ") && table.ends_with("2      6  $0.30\n"), "{table}");
    assert_eq!(bench.run("cost --service auth -o json").json()["total"]["runs"], 0);
    assert_eq!(bench.run("cost --by agent").code, 64);
}
