//! Runs in a cluster, from a submission to the pull request: a control plane (real where
//! `KUBEBUILDER_ASSETS` names one), our controller with the rights it ships with, and the real supervisor in
//! what stands for a pod.

use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim};
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::kubernetes::test_cluster::{NAMESPACE, TestCluster};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use serde_json::{Value, json};

fn outcome(status: &Value) -> Outcome {
    serde_json::from_value(status["outcome"].clone()).unwrap_or_else(|_| panic!("no outcome: {status:#}"))
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().expect("conditions");
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or_else(|| panic!("no {kind}: {status:#}"))
}

/// An agent that works until it is stopped.
fn endless() -> Script {
    Script::new().turn(Turn::bash("echo half > half-done.txt; sleep 600"))
}

#[test]
fn task_becomes_pull_request_readable_after_pod_deletion() {
    let team = TestCluster::with(projects::mends(), "ttl_minutes_after_finished = 0.02");
    let _controller = team.controller();
    let run = team.submit("trader", "1", &["--verify", "cargo test --offline"]);
    assert_eq!(run, "trader-claude-agent-1-task1-attempt1");

    let waited = team.lead(&["wait", &run]);
    assert_eq!(waited.code, 0, "{waited:?}");
    let status = team.end(&run);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Succeeded"), &json!("Completed")));
    assert_eq!(condition(&status, "Succeeded")["status"], "True");
    assert_eq!(condition(&status, "Complete")["reason"], "Completed");
    assert_eq!(status["pullRequest"], team.world.github.pulls()[0]["html_url"]);
    team.world.assert_invariants(&outcome(&status));
    team.world.model.assert_played();

    // Job and pod go by themselves, but only when log and outcome are kept.
    team.wait_for("end of the Job", || team.jobs().is_empty().then_some(()));
    team.wait_for("end of the pod", || team.pods().is_empty().then_some(()));
    let log = team.lead(&["logs", &run]);
    assert!(log.stdout.contains("pull request"), "{log:?}");
    assert!(log.stdout.lines().count() > 10, "{log:?}");
    let told: Value = serde_json::from_str(&team.lead(&["status", &run, "-o", "json"]).stdout).expect("JSON");
    assert_eq!(told["outcome"]["reason"], "Completed");
    assert_eq!(told["workspace"], "workspace-trader");

    let visible = team.everything_visible();
    for secret in [&team.world.token, &team.world.key] {
        assert!(!visible.contains(secret.as_str()), "a secret can be seen");
    }
    let claims = team.all::<PersistentVolumeClaim>();
    assert_eq!(claims[0].metadata.name.as_deref(), Some("workspace-trader"));
    let words: Vec<String> = team.all::<Event>().into_iter().filter_map(|event| event.reason).collect();
    assert!(words.contains(&"Started".to_owned()) && words.contains(&"Completed".to_owned()), "{words:?}");
}

#[test]
fn retry_continues_branch_without_reusing_deleted_number() {
    let done = || Turn::verdict("done", "best_bid now returns the highest bid.");
    let script = Script::new().turn(projects::mend()).turn(done());
    let script = script.turn(Turn::bash("echo folded >> README.md")).turn(done());
    let team = TestCluster::start(script.turn(projects::mend()).turn(done()));
    let _controller = team.controller();
    let first = team.submit("trader", "1", &[]);
    let status = team.end(&first);
    assert_eq!(status["reason"], "Completed", "{status:#}");
    let again = team.lead(&["submit", "--service", "trader", "--task", "1"]);
    assert_eq!(again.code, 64, "{again:?}");

    let second = team.submit("trader", "1", &["--retry", "--guidance", "Use a fold."]);
    assert_eq!(second, "trader-claude-agent-1-task1-attempt2");
    let retried = team.end(&second);
    assert_eq!(retried["reason"], "Completed", "{retried:#}");
    assert_eq!(retried["branch"], status["branch"]);
    assert_eq!(team.world.github.pulls().len(), 1);
    let task = team
        .all::<ConfigMap>()
        .into_iter()
        .find(|map| map.metadata.name.as_deref() == Some("trader-claude-agent-1-task1-attempt2-task"));
    let task = task.expect("the task's ConfigMap");
    assert_eq!(task.immutable, Some(true));
    assert!(task.data.expect("data")["task.json"].contains("Use a fold."));

    for run in [&first, &second] {
        team.delete(run);
        team.wait_for("end of the TaskRun", || team.run(run).is_none().then_some(()));
    }
    let third = team.submit("trader", "1", &["--fresh"]);
    assert_eq!(third, "trader-claude-agent-1-task1-attempt3");
    assert_eq!(team.end(&third)["reason"], "Completed");
}

#[test]
fn service_runs_serially_beside_other_services() {
    let busy = Script::when("Implement task 1 of the service `trader`")
        .turn(Turn::bash("echo busy > busy.txt; sleep 600"));
    let team = TestCluster::start(vec![busy, projects::mends().for_each_session()]);
    let _controller = team.controller();
    let first = team.submit("trader", "1", &[]);
    team.until(&first, "at work", |run| run["status"]["step"] == "agent");
    let second = team.submit("trader", "2", &[]);
    let waiting = team.until(&second, "in the queue", |run| run["status"]["queuePosition"] == 1);
    assert_eq!(waiting["status"]["waitingFor"], first.as_str());
    assert_eq!(condition(&waiting["status"], "Admitted")["status"], "False");
    let told = team.lead(&["status", &second]);
    assert!(told.stdout.contains(&first), "{told:?}");

    let beside = team.submit("auth", "1", &[]);
    let beside = team.end(&beside);
    assert_eq!(beside["phase"], "Succeeded", "{beside:#}");
    let jobs = team.jobs().into_iter().filter(|name| name.starts_with("trader-")).count();
    assert_eq!(jobs, 1, "{:#?}\n{}", team.run(&first), team.lead(&["logs", &first]).stdout);

    let stopped = team.lead(&["stop", &first]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let status = team.end(&first);
    assert_eq!(status["reason"], "Stopped", "{status:#}");
    assert_eq!(outcome(&status).work.location, orchestrator_contract::outcome::WorkLocation::Remote);
    assert_eq!(team.end(&second)["phase"], "Succeeded");
    let mut claims: Vec<_> =
        team.all::<PersistentVolumeClaim>().into_iter().filter_map(|claim| claim.metadata.name).collect();
    claims.sort();
    assert_eq!(claims, ["workspace-auth", "workspace-trader"]);
}

#[test]
fn deleted_run_saves_work_before_removal() {
    let team = TestCluster::start(endless());
    let _controller = team.controller();
    let run = team.submit("trader", "1", &[]);
    team.until(&run, "at work", |run| run["status"]["step"] == "agent");
    team.wait_for("the agent's file", || {
        let folder = team.kubelet.claim_folder(NAMESPACE, "workspace-trader")?;
        std::fs::read_to_string(folder.join("target-repo/half-done.txt"))
            .is_ok_and(|text| text == "half\n")
            .then_some(())
    });
    team.delete(&run);
    team.wait_for("end of the TaskRun", || team.run(&run).is_none().then_some(()));
    let pushed = team.world.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
    assert_eq!(pushed.as_deref(), Some("half\n"));
    team.wait_for("end of Job and pod", || (team.jobs().is_empty() && team.pods().is_empty()).then_some(()));
    assert_eq!(team.all::<PersistentVolumeClaim>().len(), 1, "the workspace stays");
}

#[test]
fn deleted_run_before_start_is_removed_without_effects() {
    let team = TestCluster::start(endless());
    let mut controller = team.controller();
    let first = team.submit("trader", "1", &[]);
    team.until(&first, "at work", |run| run["status"]["step"] == "agent");
    let second = team.submit("trader", "2", &[]);
    team.until(&second, "in the queue", |run| run["status"]["queuePosition"] == 1);
    let stopped = team.lead(&["stop", &second]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let status = team.end(&second);
    assert_eq!((&status["reason"], &status["work"]["location"]), (&json!("Stopped"), &json!("none")));
    assert_eq!(team.jobs(), std::slice::from_ref(&first));
    // Nobody is there to let it go; whoever comes next does.
    controller.kill();
    team.delete(&second);
    assert!(team.run(&second).is_some());
    let _next = team.controller();
    team.wait_for("end of the TaskRun", || team.run(&second).is_none().then_some(()));
    team.lead(&["stop", &first]);
}

#[test]
fn cluster_rejections_are_reported_with_cause() {
    let team = TestCluster::start(Script::new());
    let local =
        team.lead(&["submit", "--service", "other", "--task", "1", "--repository-url", "/srv/repository"]);
    assert_eq!(local.code, 64, "{local:?}");
    assert!(local.stderr.contains("no pod can reach"), "{local:?}");
    let stranger = team.plane.kubeconfig_for("stranger", &[]);
    let output = team.command(&stranger, &["list"]).output().expect("the dispatcher");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(Reason::PermissionDenied.exit_code())), "{text}");
    assert!(text.contains("orchestrator-user"), "{text}");

    let run = team.submit("trader", "1", &[]);
    let changed = team.patch(&run, &json!({"spec": {"attempt": 7}})).expect_err("it cannot be changed");
    assert!(changed.contains("attempt cannot be changed"), "{changed}");
    team.patch(&run, &json!({"spec": {"stop": "graceful"}})).expect("it can be stopped");
    let taken_back = team.patch(&run, &json!({"spec": {"stop": null}})).expect_err("it cannot be taken back");
    assert!(taken_back.contains("cannot be taken back"), "{taken_back}");

    team.plane.cut();
    let away = team.lead(&["list"]);
    assert_eq!(away.code, i32::from(Reason::RemoteUnavailable.exit_code()), "{away:?}");
    team.plane.mend();
}

#[test]
fn colliding_run_names_get_distinct_names() {
    let settings = "[kubernetes.secret_names]\ngithub = \"github-pat-claude-agent-1\"\n\
         [agents.c]\ngit_hosts = [\"127.0.0.1\"]\n[agents.b-c]\ngit_hosts = [\"127.0.0.1\"]";
    let team = TestCluster::with(projects::mends().for_each_session(), settings);
    let _controller = team.controller();
    let submit = |service: &str, agent: &str, repository: &str| {
        let url = team.world.git.url(repository);
        team.submit(service, "1", &["--agent", agent, "--repository-url", &url, "--working-directory", "."])
    };
    let runs = std::thread::scope(|scope| {
        let one = scope.spawn(|| submit("a-b", "c", "acme/trader"));
        let two = scope.spawn(|| submit("a", "b-c", "acme/auth"));
        [one, two].map(|run| run.join().expect("a submission"))
    });
    assert_ne!(runs[0], runs[1]);
    assert!(runs.contains(&"a-b-c-task1-attempt1".to_owned()), "{runs:?}");
    for (run, service) in runs.iter().zip(["a-b", "a"]) {
        assert_eq!(team.end(run)["reason"], "Completed");
        let spec = &team.run(run).expect("the run")["spec"];
        assert_eq!(spec["service"], service);
    }
    // A repetition finds its own.
    assert_eq!(team.lead(&["submit", "--service", "a", "--agent", "b-c", "--task", "1"]).code, 64);
    let again = team.submit("a", "1", &["--agent", "b-c", "--retry"]);
    let spec = &team.run(&again).expect("the run")["spec"];
    assert_eq!((&spec["service"], &spec["attempt"]), (&json!("a"), &json!(2)), "{runs:?} {again}");
}

#[test]
fn twenty_identical_submissions_create_one_run() {
    let team = TestCluster::start(projects::mends());
    let _controller = team.controller();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let submit = || team.lead(&["submit", "--service", "trader", "--task", "1", "-o", "json"]);
        let all: Vec<_> = (0..20).map(|_| scope.spawn(submit)).collect();
        all.into_iter().map(|one| one.join().expect("a submission")).collect()
    });
    let started = answers.iter().filter(|ran| ran.stdout.contains("\"started\": \"new\"")).count();
    for ran in &answers {
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("trader-claude-agent-1-task1-attempt1"), "{ran:?}");
    }
    assert_eq!(started, 1, "{answers:?}");
    let status = team.end("trader-claude-agent-1-task1-attempt1");
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(team.world.github.pulls().len(), 1);
}
