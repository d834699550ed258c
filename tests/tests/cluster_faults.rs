//! Runs in a cluster when something goes wrong: the controller, the API server, the pod.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use orchestrator_contract::Reason;
use orchestrator_tests::git_server::{Fault as GitFault, Operation};
use orchestrator_tests::kubernetes::test_cluster::{CONTROLLER, NAMESPACE, TestCluster};
use orchestrator_tests::kubernetes::{Fault, HookPoint};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use serde_json::{Value, json};

/// An agent that is at work for a while.
fn slow() -> Script {
    Script::new()
        .turn(Turn::bash("echo half > half-done.txt; sleep 5"))
        .turn(projects::mend())
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

fn pod(team: &TestCluster) -> String {
    team.wait_for("pod", || team.pods().pop())
}

fn at_work(run: &Value) -> bool {
    run["status"]["step"] == "agent"
}

fn reason(status: &Value) -> &str {
    status["reason"].as_str().expect("a reason")
}

/// Kills the controller at each change that it asks for, one after the other, and has another go on; at every
/// third one unless the long tests are asked for.
#[test]
fn controller_crash_after_each_write_is_idempotent() {
    let team = TestCluster::start(projects::mends().for_each_session());
    let mut deaths = 0;
    let long = std::env::var_os("ORCHESTRATOR_LONG_TESTS").is_some();
    for nth in (1..).step_by(if long { 1 } else { 3 }) {
        let service = format!("service{nth}");
        let mut controller = team.controller();
        let process = controller.process();
        team.wait_for("leader", || controller.leads().then_some(()));
        let (told, died) = std::sync::mpsc::channel();
        team.plane.on_mutation(CONTROLLER, nth, HookPoint::CarriedOut, move || {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).ok();
            told.send(()).ok();
        });
        let repository = format!("acme/{service}");
        let files = projects::order_book();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        team.world.git.create(&repository, "main", &files);
        let url = team.world.git.url(&repository);
        let run = team.submit(&service, "1", &["--repository-url", &url]);
        let ended = |run: &Value| run["status"]["result"].is_string();
        // It dies somewhere on the way, or this run has fewer changes than that.
        let killed = team.wait_for("death or end", || match died.try_recv() {
            Ok(()) => Some(true),
            Err(_) => team.run(&run).is_some_and(|run| ended(&run)).then_some(false),
        });
        if !killed {
            break;
        }
        deaths += 1;
        controller.kill();
        team.expire_lease();
        let _next = team.controller();
        let status = team.until(&run, "over and kept", ended)["status"].clone();
        assert_eq!(reason(&status), "Completed", "after {nth} changes: {status:#}");
        let jobs: BTreeSet<String> = team.jobs().into_iter().collect();
        assert!(jobs.iter().filter(|job| job.starts_with(&service)).count() <= 1, "{jobs:?}");
    }
    assert!(deaths >= if long { 9 } else { 3 }, "only {deaths} changes were asked for");
}

#[test]
fn api_server_outage_only_delays_run() {
    let team = TestCluster::start(slow());
    let _controller = team.controller();
    let run = team.submit("trader", "1", &[]);
    team.until(&run, "at work", at_work);
    team.plane.cut();
    let since = Instant::now();
    // The run goes on meanwhile: the node needs nobody for that.
    team.wait_for("pull request", || team.world.github.pulls().pop());
    // Twice as long as a leader may lead without being heard of.
    team.wait_for("half a minute", || (since.elapsed() > Duration::from_secs(30)).then_some(()));
    team.plane.mend();
    let status = team.end(&run);
    assert_eq!(reason(&status), "Completed", "{status:#}");
    assert_eq!(team.world.github.pulls().len(), 1);
    let log = team.lead(&["logs", &run]);
    assert!(log.stdout.contains("pull request"), "{log:?}");
}

#[test]
fn expired_watches_are_restarted() {
    let team = TestCluster::start(slow().for_each_session());
    let _controller = team.controller();
    let first = team.submit("trader", "1", &[]);
    team.until(&first, "at work", at_work);
    team.expire();
    assert_eq!(reason(&team.end(&first)), "Completed");
    let second = team.submit("auth", "1", &[]);
    let status = team.end(&second);
    assert_eq!(reason(&status), "Completed", "{}", team.lead(&["logs", &second]).stdout);
}

#[test]
fn crashed_leader_is_replaced_while_run_continues() {
    let team = TestCluster::start(slow());
    let mut one = team.controller();
    team.wait_for("leader", || one.leads().then_some(()));
    let two = team.controller();
    let run = team.submit("trader", "1", &[]);
    team.until(&run, "at work", at_work);
    assert!(!two.leads(), "two lead at once");
    one.kill();
    let status = team.end(&run);
    assert_eq!(reason(&status), "Completed", "{status:#}");
    assert!(two.leads());
    let log = team.lead(&["logs", &run]);
    assert!(
        log.stdout.lines().next().is_some_and(|line| line.contains(&run)),
        "the log begins at its beginning: {log:?}"
    );
}

#[test]
fn terminating_leader_releases_lease_immediately() {
    let team = TestCluster::start(Script::new());
    let mut one = team.controller();
    team.wait_for("leader", || one.leads().then_some(()));
    let two = team.controller();
    one.stop();
    let since = std::time::Instant::now();
    team.wait_for("other leader", || two.leads().then_some(()));
    assert!(
        since.elapsed() < std::time::Duration::from_secs(12),
        "{:?}: as long as after a death",
        since.elapsed()
    );
}

/// In every phase there is a moment that lasts, and the run is deleted in it.
#[test]
fn run_deleted_in_any_phase_leaves_work_for_next_attempt() {
    let half = || Turn::bash("echo half > half-done.txt");
    let rest = |script: Script| {
        script.turn(projects::mend()).turn(Turn::verdict("done", "best_bid now returns the highest bid."))
    };
    for (phase, service, agent) in [
        ("Preparing", "clones", rest(Script::new())),
        ("Running", "works", rest(Script::new().turn(half()).turn(Turn::bash("echo; sleep 600")))),
        ("Publishing", "pushes", rest(Script::new().turn(half()).turn(Turn::verdict("done", "half of it")))),
    ] {
        let team = TestCluster::start(agent);
        let _controller = team.controller();
        match phase {
            "Preparing" => team.world.git.fail(Operation::Fetch, 1, GitFault::Silence),
            "Publishing" => team.world.git.fail(Operation::Push, 1, GitFault::Silence),
            _ => {}
        }
        let repository = team.world.git.url("acme/trader");
        let options = ["--repository-url", repository.as_str(), "--working-directory", "."];
        let run = team.submit(service, "1", &options);
        team.until(&run, phase, |run| run["status"]["phase"] == phase);
        if phase != "Preparing" {
            team.wait_for("the agent's file", || {
                let folder = team.kubelet.claim_folder(NAMESPACE, &format!("workspace-{service}"))?;
                folder.join("target-repo/half-done.txt").is_file().then_some(())
            });
        }
        team.delete(&run);
        team.wait_for("end of the TaskRun", || team.run(&run).is_none().then_some(()));
        team.wait_for("end of the Job and its pod", || {
            (team.jobs().is_empty() && team.pods().is_empty()).then_some(())
        });
        let again = team.submit(service, "1", &[&options[..], &["--retry"]].concat());
        assert!(again.ends_with("-attempt2"), "{again}");
        let status = team.end(&again);
        assert_eq!(reason(&status), "Completed", "{phase}: {status:#}");
        let saved = team.world.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
        assert_eq!(saved.as_deref(), (phase != "Preparing").then_some("half\n"), "{phase}");
        assert_eq!(team.world.github.pulls().len(), 1, "{phase}");
    }
}

/// Whoever takes our finalizer off a TaskRun by hand leaves a pod that nobody asks for.
#[test]
fn pod_of_forcibly_removed_run_is_released() {
    let team = TestCluster::start(projects::mends());
    let mut controller = team.controller();
    let run = team.submit("trader", "1", &[]);
    team.until(&run, "at work", at_work);
    controller.kill();
    team.patch(&run, &json!({"metadata": {"finalizers": null}})).expect("anybody with the right may do it");
    team.delete(&run);
    team.wait_for("end of the TaskRun", || team.run(&run).is_none().then_some(()));
    team.wait_for("end of the Job", || team.jobs().is_empty().then_some(()));
    assert_eq!(team.pods().len(), 1, "our finalizer keeps it");
    team.expire_lease();
    let _next = team.controller();
    team.wait_for("end of the pod", || team.pods().is_empty().then_some(()));
}

#[test]
fn unpullable_image_fails_run_within_one_minute() {
    let team = TestCluster::start(projects::mends());
    let _controller = team.controller();
    team.kubelet.fail("trader-", Fault::ImagePull);
    let run = team.submit("trader", "1", &[]);
    let told = team.until(&run, "in trouble", |run| {
        run["status"]["message"].as_str().is_some_and(|text| text.contains("image"))
    });
    assert_eq!(told["status"]["phase"], "Pending");
    let status = team.end(&run);
    assert_eq!(reason(&status), "ImageUnavailable", "{status:#}");
    assert_eq!(status["work"]["location"], "none");
    team.wait_for("end of the pod", || team.pods().is_empty().then_some(()));
    let waited = team.lead(&["wait", &run]);
    assert_eq!(waited.code, i32::from(Reason::ImageUnavailable.exit_code()), "{waited:?}");
    // Once it is mended, another try is all that is needed.
    team.kubelet.clear_faults();
    let again = team.submit("trader", "1", &["--retry"]);
    assert_eq!(reason(&team.end(&again)), "Completed");
}

#[test]
fn unschedulable_pod_is_reported_until_timeout() {
    let team = TestCluster::with(Script::new(), "scheduling_timeout_minutes = 0.1");
    let _controller = team.controller();
    team.kubelet
        .fail("trader-", Fault::Unschedulable("0/3 nodes are available: 3 Insufficient memory.".to_owned()));
    let run = team.submit("trader", "1", &[]);
    let told = team.until(&run, "in trouble", |run| run["status"]["message"].is_string());
    assert!(
        told["status"]["message"].as_str().is_some_and(|text| text.contains("Insufficient memory")),
        "{told:#}"
    );
    assert_eq!(reason(&team.end(&run)), "Unschedulable");
}

#[test]
fn external_pod_end_has_own_reason_without_losing_work() {
    for (blow, expected) in [("memory", "OutOfMemory"), ("evict", "Evicted"), ("kill", "SupervisorLost")] {
        let team = TestCluster::start(slow());
        let _controller = team.controller();
        let run = team.submit("trader", "1", &[]);
        team.until(&run, "at work", at_work);
        let folder = team.wait_for("the agent's file", || {
            let folder = team.kubelet.claim_folder(NAMESPACE, "workspace-trader")?;
            folder.join("target-repo/half-done.txt").is_file().then_some(folder)
        });
        let pod = pod(&team);
        match blow {
            "memory" => team.kubelet.run_out_of_memory(NAMESPACE, &pod),
            "evict" => team.kubelet.evict(NAMESPACE, &pod),
            _ => team.kubelet.kill(NAMESPACE, &pod),
        }
        let status = team.end(&run);
        // A pod that is evicted in order has time to save; its own word counts then.
        let fits = reason(&status) == expected || (blow == "evict" && reason(&status) == "Stopped");
        assert!(fits, "{blow}: {status:#}");
        assert!(folder.join("target-repo/half-done.txt").is_file());
        let again = team.submit("trader", "1", &["--retry"]);
        assert_eq!(reason(&team.end(&again)), "Completed", "{blow}");
        let saved = team.world.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
        assert_eq!(saved.as_deref(), Some("half\n"), "{blow}");
    }
}
