//! Cluster runs with faults of the controller, the API server, and the pod.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use orchestrator_contract::Reason;
use orchestrator_tests::git_server::{Fault as GitFault, Operation};
use orchestrator_tests::kubernetes::kubelet::OnNodeLoss;
use orchestrator_tests::kubernetes::test_cluster::{CONTROLLER, NAMESPACE, TestCluster};
use orchestrator_tests::kubernetes::{Fault, HookPoint};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use serde_json::{Value, json};

/// An agent that is active for a while.
fn slow() -> Script {
    Script::new()
        .turn(Turn::bash("echo half > half-done.txt; sleep 5"))
        .turn(projects::fix())
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."))
}

fn pod(cluster: &TestCluster) -> String {
    cluster.wait_for("pod", || cluster.pods().pop())
}

fn is_active(run: &Value) -> bool {
    run["status"]["step"] == "agent"
}

fn reason(status: &Value) -> &str {
    status["reason"].as_str().expect("a reason")
}

/// Kills the controller at each of its mutations, in turn, and lets another one continue.
/// / Without the long tests, only at every third mutation.
#[test]
fn controller_crash_after_each_write_is_idempotent() {
    let cluster = TestCluster::start(projects::fixes().for_each_session());
    let mut deaths = 0;
    let long = std::env::var_os("ORCHESTRATOR_LONG_TESTS").is_some();
    for nth in (1..).step_by(if long { 1 } else { 3 }) {
        let service = format!("service{nth}");
        let mut controller = cluster.controller();
        let process = controller.process();
        cluster.wait_for("leader", || controller.leads().then_some(()));
        let (reported, died) = std::sync::mpsc::channel();
        cluster.plane.on_mutation(CONTROLLER, nth, HookPoint::CarriedOut, move || {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).ok();
            reported.send(()).ok();
        });
        let repository = format!("acme/{service}");
        let files = projects::order_book();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        cluster.env.git.create(&repository, "main", &files);
        let url = cluster.env.git.url(&repository);
        let run = cluster.submit(&service, "1", &["--repository-url", &url]);
        let ended = |run: &Value| run["status"]["resultConfigMapName"].is_string();
        // The controller is killed, or the run has fewer mutations than that.
        let killed = cluster.wait_for("kill or end", || match died.try_recv() {
            Ok(()) => Some(true),
            Err(_) => cluster.run(&run).is_some_and(|run| ended(&run)).then_some(false),
        });
        if !killed {
            break;
        }
        deaths += 1;
        controller.kill();
        cluster.expire_lease();
        let _next = cluster.controller();
        let status = cluster.until(&run, "finished and saved", ended)["status"].clone();
        assert_eq!(reason(&status), "Completed", "after {nth} changes: {status:#}");
        let jobs: BTreeSet<String> = cluster.jobs().into_iter().collect();
        assert!(jobs.iter().filter(|job| job.starts_with(&service)).count() <= 1, "{jobs:?}");
    }
    assert!(deaths >= if long { 9 } else { 3 }, "only {deaths} mutations were requested");
}

#[test]
fn api_server_outage_only_delays_run() {
    let cluster = TestCluster::start(slow());
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.until(&run, "active", is_active);
    cluster.plane.disconnect();
    let since = Instant::now();
    // The run continues meanwhile: the node does not need the controller.
    cluster.wait_for("pull request", || cluster.env.github.pulls().pop());
    // Twice the lease duration.
    cluster.wait_for("half a minute", || (since.elapsed() > Duration::from_secs(30)).then_some(()));
    cluster.plane.reconnect();
    let status = cluster.end(&run);
    assert_eq!(reason(&status), "Completed", "{status:#}");
    assert_eq!(cluster.env.github.pulls().len(), 1);
    let log = cluster.dispatcher(&["logs", &run]);
    assert!(log.stdout.contains("pull request"), "{log:?}");
}

#[test]
fn expired_watches_are_restarted() {
    let cluster = TestCluster::start(slow().for_each_session());
    let _controller = cluster.controller();
    let first = cluster.submit("trader", "1", &[]);
    cluster.until(&first, "active", is_active);
    cluster.expire();
    assert_eq!(reason(&cluster.end(&first)), "Completed");
    let second = cluster.submit("auth", "1", &[]);
    let status = cluster.end(&second);
    assert_eq!(reason(&status), "Completed", "{}", cluster.dispatcher(&["logs", &second]).stdout);
}

#[test]
fn crashed_leader_is_replaced_while_run_continues() {
    let cluster = TestCluster::start(slow());
    let mut one = cluster.controller();
    cluster.wait_for("leader", || one.leads().then_some(()));
    let two = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.until(&run, "active", is_active);
    assert!(!two.leads(), "two leaders");
    one.kill();
    let status = cluster.end(&run);
    assert_eq!(reason(&status), "Completed", "{status:#}");
    assert!(two.leads());
    let log = cluster.dispatcher(&["logs", &run]);
    assert!(
        log.stdout.lines().next().is_some_and(|line| line.contains(&run)),
        "the log begins at its beginning: {log:?}"
    );
}

#[test]
fn terminating_leader_releases_lease_immediately() {
    let cluster = TestCluster::start(Script::new());
    let mut one = cluster.controller();
    cluster.wait_for("leader", || one.leads().then_some(()));
    let two = cluster.controller();
    one.stop();
    let since = std::time::Instant::now();
    cluster.wait_for("other leader", || two.leads().then_some(()));
    assert!(
        since.elapsed() < std::time::Duration::from_secs(12),
        "{:?}: as long as after a death",
        since.elapsed()
    );
}

/// Deletes a run in every phase.
#[test]
fn run_deleted_in_any_phase_leaves_work_for_next_attempt() {
    let half = || Turn::bash("echo half > half-done.txt");
    let rest = |script: Script| {
        script.turn(projects::fix()).turn(Turn::verdict("done", "best_bid now returns the highest bid."))
    };
    for (phase, service, agent) in [
        ("Preparing", "clones", rest(Script::new())),
        ("Running", "works", rest(Script::new().turn(half()).turn(Turn::bash("echo; sleep 600")))),
        ("Publishing", "pushes", rest(Script::new().turn(half()).turn(Turn::verdict("done", "half of it")))),
    ] {
        let cluster = TestCluster::start(agent);
        let _controller = cluster.controller();
        let faulty = match phase {
            "Preparing" => Some(Operation::Fetch),
            "Publishing" => Some(Operation::Push),
            _ => None,
        };
        if let Some(operation) = faulty {
            cluster.env.git.fail(operation, 1, GitFault::Silence);
        }
        let repository = cluster.env.git.url("acme/trader");
        let options = ["--repository-url", repository.as_str(), "--working-directory", "."];
        let run = cluster.submit(service, "1", &options);
        cluster.until(&run, phase, |run| run["status"]["phase"] == phase);
        if let Some(operation) = faulty {
            // Otherwise the next attempt would meet the fault.
            cluster.wait_for("the fault", || (cluster.env.git.arrived(operation) > 0).then_some(()));
        }
        if phase != "Preparing" {
            cluster.wait_for("the agent's file", || {
                let folder = cluster.kubelet.claim_folder(NAMESPACE, &format!("workspace-{service}"))?;
                folder.join("tree/target-repo/half-done.txt").is_file().then_some(())
            });
        }
        cluster.delete(&run);
        cluster.wait_for("end of the TaskRun", || cluster.run(&run).is_none().then_some(()));
        cluster.wait_for("end of the Job and its pod", || {
            (cluster.jobs().is_empty() && cluster.pods().is_empty()).then_some(())
        });
        let again = cluster.submit(service, "1", &[&options[..], &["--retry"]].concat());
        assert!(again.ends_with("-attempt2"), "{again}");
        let status = cluster.end(&again);
        assert_eq!(reason(&status), "Completed", "{phase}: {status:#}");
        let saved = cluster.env.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
        assert_eq!(saved.as_deref(), (phase != "Preparing").then_some("half\n"), "{phase}");
        assert_eq!(cluster.env.github.pulls().len(), 1, "{phase}");
    }
}

/// The controller stops the pod of a run whose finalizer was removed by a user.
#[test]
fn pod_of_forcibly_removed_run_is_released() {
    let cluster = TestCluster::start(projects::fixes());
    let mut controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.until(&run, "active", is_active);
    controller.kill();
    cluster.patch(&run, &json!({"metadata": {"finalizers": null}})).expect("an allowed patch");
    cluster.delete(&run);
    cluster.wait_for("end of the TaskRun", || cluster.run(&run).is_none().then_some(()));
    cluster.wait_for("end of the Job", || cluster.jobs().is_empty().then_some(()));
    assert_eq!(cluster.pods().len(), 1, "our finalizer keeps it");
    cluster.expire_lease();
    let _next = cluster.controller();
    cluster.wait_for("end of the pod", || cluster.pods().is_empty().then_some(()));
}

#[test]
fn unpullable_image_fails_run_within_one_minute() {
    let cluster = TestCluster::start(projects::fixes());
    let _controller = cluster.controller();
    cluster.kubelet.fail("trader-", Fault::ImagePull);
    let run = cluster.submit("trader", "1", &[]);
    let reported = cluster.until(&run, "reporting the problem", |run| {
        run["status"]["message"].as_str().is_some_and(|text| text.contains("image"))
    });
    assert_eq!(reported["status"]["phase"], "Pending");
    let status = cluster.end(&run);
    assert_eq!(reason(&status), "ImageUnavailable", "{status:#}");
    assert_eq!(status["work"]["location"], "none");
    cluster.wait_for("end of the pod", || cluster.pods().is_empty().then_some(()));
    let waited = cluster.dispatcher(&["wait", &run]);
    assert_eq!(waited.code, i32::from(Reason::ImageUnavailable.exit_code()), "{waited:?}");
    // After the image is available, a retry succeeds.
    cluster.kubelet.clear_faults();
    let again = cluster.submit("trader", "1", &["--retry"]);
    assert_eq!(reason(&cluster.end(&again)), "Completed");
}

/// The service's own image is pulled and started after ours.
#[test]
fn unusable_service_image_fails_run_by_name() {
    let image = "registry.example/team/alpine:3";
    let cluster = TestCluster::with(
        projects::fixes(),
        &format!("allowed_images = [\"registry.example/team/*\"]\n[services.own]\nimage = {image:?}"),
    );
    let _controller = cluster.controller();
    let repository = cluster.env.git.url("acme/trader");
    let submit = |more: &[&str]| {
        let options = ["--repository-url", repository.as_str(), "--working-directory", "."];
        cluster.submit("own", "1", &[&options[..], more].concat())
    };
    let message = |status: &Value| status["message"].as_str().expect("a message").to_owned();
    cluster.kubelet.fail("own-", Fault::ImagePullOf("agent"));
    let status = cluster.end(&submit(&[]));
    assert_eq!(reason(&status), "ImageUnavailable", "{status:#}");
    assert!(message(&status).contains("`agent`") && message(&status).contains(image), "{status:#}");
    assert_eq!(status["work"]["location"], "none");
    cluster.kubelet.clear_faults();

    cluster.kubelet.fail("own-", Fault::StartErrorOf("agent"));
    let status = cluster.end(&submit(&["--retry"]));
    assert_eq!(reason(&status), "InvalidConfiguration", "{status:#}");
    assert!(message(&status).contains("needs glibc") && message(&status).contains(image), "{status:#}");
    cluster.wait_for("end of the pods", || cluster.pods().is_empty().then_some(()));
    cluster.kubelet.clear_faults();
    assert_eq!(reason(&cluster.end(&submit(&["--retry"]))), "Completed");
}

/// An agent that uses up its memory ends its own container, and the run goes on.
#[test]
fn restarted_agent_container_is_condition_of_run() {
    let cluster = TestCluster::start(slow());
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.until(&run, "active", is_active);
    cluster.wait_for("the agent's file", || {
        let folder = cluster.kubelet.claim_folder(NAMESPACE, "workspace-trader")?;
        folder.join("tree/target-repo/half-done.txt").is_file().then_some(())
    });
    cluster.kubelet.container_runs_out_of_memory(NAMESPACE, &pod(&cluster), "agent");
    let status = cluster.end(&run);
    assert_ne!(reason(&status), "OutOfMemory", "the supervisor decides: {status:#}");
    let conditions = status["conditions"].as_array().expect("conditions");
    let restarted = conditions.iter().find(|condition| condition["type"] == "Restarted");
    let restarted = restarted.unwrap_or_else(|| panic!("not restarted: {status:#}"));
    assert_eq!((&restarted["status"], &restarted["reason"]), (&json!("True"), &json!("OOMKilled")));
    assert!(restarted["message"].as_str().is_some_and(|text| text.contains("`agent`")), "{restarted}");
    let saved = cluster.env.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
    assert_eq!(saved.as_deref(), Some("half\n"), "{status:#}");
}

#[test]
fn unschedulable_pod_is_reported_until_timeout() {
    let cluster = TestCluster::with(Script::new(), "scheduling_timeout_minutes = 0.1");
    let _controller = cluster.controller();
    cluster
        .kubelet
        .fail("trader-", Fault::Unschedulable("0/3 nodes are available: 3 Insufficient memory.".to_owned()));
    let run = cluster.submit("trader", "1", &[]);
    let reported = cluster.until(&run, "reporting the problem", |run| run["status"]["message"].is_string());
    assert!(
        reported["status"]["message"].as_str().is_some_and(|text| text.contains("Insufficient memory")),
        "{reported:#}"
    );
    assert_eq!(reason(&cluster.end(&run)), "Unschedulable");
}

#[test]
fn lost_node_is_reported_while_run_is_active() {
    let cluster = TestCluster::start(slow());
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.until(&run, "active", is_active);
    cluster.lose_node(OnNodeLoss::Kill);
    let reported = cluster.until(&run, "reporting the lost node", |run| run["status"]["message"].is_string());
    let status = &reported["status"];
    assert_eq!(status["message"], "the node is unreachable. Retry when a node is available.", "{status:#}");
    assert!(status["reason"].is_null(), "it may come back: {status:#}");
}

/// The controller is scaled to zero while a run ends, as in an upgrade that takes long.
#[test]
fn outcome_is_read_long_after_end_of_run() {
    let cluster = TestCluster::start(slow());
    let run = {
        let _controller = cluster.controller();
        let run = cluster.submit("trader", "1", &[]);
        cluster.until(&run, "active", is_active);
        run
    };
    let pod = pod(&cluster);
    cluster.wait_for("end of the pod", || (cluster.pod_phase(&pod) == "Succeeded").then_some(()));
    cluster.age_pod_end(&pod, 3600);
    let _controller = cluster.controller();
    let status = cluster.end(&run);
    assert_eq!(reason(&status), "Completed", "{status:#}");
    assert!(status["outcome"]["usage"]["turns"].as_u64().is_some_and(|turns| turns > 0), "{status:#}");
}

#[test]
fn external_pod_end_has_own_reason_without_losing_work() {
    for (disruption, expected) in [
        ("memory", "OutOfMemory"),
        ("evict", "Evicted"),
        ("delete", "PodDeleted"),
        ("kill", "SupervisorLost"),
    ] {
        let cluster = TestCluster::start(slow());
        let _controller = cluster.controller();
        let run = cluster.submit("trader", "1", &[]);
        cluster.until(&run, "active", is_active);
        let folder = cluster.wait_for("the agent's file", || {
            let folder = cluster.kubelet.claim_folder(NAMESPACE, "workspace-trader")?;
            folder.join("tree/target-repo/half-done.txt").is_file().then_some(folder)
        });
        let pod = pod(&cluster);
        match disruption {
            "memory" => cluster.kubelet.run_out_of_memory(NAMESPACE, &pod),
            "evict" => cluster.kubelet.evict(NAMESPACE, &pod),
            "delete" => cluster.delete_pod(&pod),
            _ => cluster.kubelet.kill(NAMESPACE, &pod),
        }
        let status = cluster.end(&run);
        assert_eq!(reason(&status), expected, "{disruption}: {status:#}");
        assert!(folder.join("tree/target-repo/half-done.txt").is_file());
        let again = cluster.submit("trader", "1", &["--retry"]);
        assert_eq!(reason(&cluster.end(&again)), "Completed", "{disruption}");
        let saved = cluster.env.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
        assert_eq!(saved.as_deref(), Some("half\n"), "{disruption}");
    }
}
