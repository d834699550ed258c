//! `watch` without a terminal.

use crate::bench::{Bench, read_until};

#[test]
fn watch_prints_changes_until_no_run_is_active() {
    let bench = Bench::new();
    let earlier = bench.submit_and_wait("failed");
    let run = bench.run_ending("held", "submit --task 2 --service trader -o json").json();
    let run = run["run"].as_str().unwrap().to_owned();
    for verb in ["watch", "list --watch --service trader"] {
        assert_eq!(bench.run(&format!("{verb} --limit 3")).code, 64, "{verb}");
    }
    let mut watch = bench.command("list --watch").spawn().unwrap();
    let first = read_until(&mut watch, "\n");
    assert!(first.starts_with(&format!("{run} | ")) && !first.contains(&earlier), "{first}");
    bench.release(&run);
    let rest = watch.wait_with_output().unwrap();
    assert_eq!(rest.status.code(), Some(0));
    let rest = String::from_utf8(rest.stdout).unwrap();
    assert!(rest.ends_with(&format!("{run} | Succeeded (Completed) | pull request 7 is open.\n")), "{rest}");
    assert_eq!(bench.run("watch").stdout, "", "no run is active");
}

#[test]
fn watch_ends_normally_when_interrupted() {
    let bench = Bench::new();
    let run = bench.submit("held");
    let mut watch = bench.command("watch -o json").spawn().unwrap();
    let line = read_until(&mut watch, "\n");
    let status: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(status["run"], *run);
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
