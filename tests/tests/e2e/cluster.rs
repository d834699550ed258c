//! Cluster runs from submission to pull request.
//! / They use a control plane (real if `KUBEBUILDER_ASSETS` is set), the controller with the permissions of
//! `dispatcher/deploy`, and the real supervisor as the program of a pod.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
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
    let cluster = TestCluster::with(projects::fixes(), "ttl_minutes_after_finished = 0.02");
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &["--verify", "cargo test --offline"]);
    assert_eq!(run, "trader-claude-agent-1-task1-attempt1");

    let waited = cluster.dispatcher(&["wait", &run]);
    assert_eq!(waited.code, 0, "{waited:?}");
    let status = cluster.end(&run);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Succeeded"), &json!("Completed")));
    assert_eq!(condition(&status, "Succeeded")["status"], "True");
    assert_eq!(condition(&status, "Complete")["reason"], "Completed");
    assert_eq!(status["pullRequest"], cluster.env.github.pulls()[0]["html_url"]);
    cluster.env.assert_invariants(&outcome(&status));
    cluster.env.model.assert_played();

    // Job and pod are removed only after log and outcome are saved.
    cluster.wait_for("end of the Job", || cluster.jobs().is_empty().then_some(()));
    cluster.wait_for("end of the pod", || cluster.pods().is_empty().then_some(()));
    let log = cluster.dispatcher(&["logs", &run]);
    assert!(log.stdout.contains("pull request"), "{log:?}");
    assert!(log.stdout.lines().count() > 10, "{log:?}");
    let reported: Value =
        serde_json::from_str(&cluster.dispatcher(&["status", &run, "-o", "json"]).stdout).expect("JSON");
    assert_eq!(reported["outcome"]["reason"], "Completed");
    assert_eq!(reported["workspace"], "workspace-trader");
    let diff = cluster.dispatcher(&["diff", &run]);
    let page = cluster.env.github.pulls()[0]["html_url"].clone();
    assert!(diff.code == 64 && diff.stderr.contains(page.as_str().unwrap_or_default()), "{diff:?}");

    let visible = cluster.everything_visible();
    for secret in [&cluster.env.token, &cluster.env.key] {
        assert!(!visible.contains(secret.as_str()), "a secret can be seen");
    }
    let claims = cluster.all::<PersistentVolumeClaim>();
    assert_eq!(claims[0].metadata.name.as_deref(), Some("workspace-trader"));
    let words: Vec<String> = cluster.all::<Event>().into_iter().filter_map(|event| event.reason).collect();
    assert!(words.contains(&"Started".to_owned()) && words.contains(&"Completed".to_owned()), "{words:?}");
}

#[test]
fn retry_continues_branch_without_reusing_deleted_number() {
    let done = || Turn::verdict("done", "best_bid now returns the highest bid.");
    let script = Script::new().turn(projects::fix()).turn(done());
    let script = script.turn(Turn::bash("echo folded >> README.md")).turn(done());
    let cluster = TestCluster::start(script.turn(projects::fix()).turn(done()));
    let _controller = cluster.controller();
    let first = cluster.submit("trader", "1", &[]);
    let status = cluster.end(&first);
    assert_eq!(status["reason"], "Completed", "{status:#}");
    let again = cluster.dispatcher(&["submit", "--service", "trader", "--task", "1"]);
    assert_eq!(again.code, 64, "{again:?}");

    let second = cluster.submit("trader", "1", &["--retry", "--guidance", "Use a fold."]);
    assert_eq!(second, "trader-claude-agent-1-task1-attempt2");
    let retried = cluster.end(&second);
    assert_eq!(retried["reason"], "Completed", "{retried:#}");
    assert_eq!(retried["branch"], status["branch"]);
    assert_eq!(cluster.env.github.pulls().len(), 1);
    let task = cluster
        .all::<ConfigMap>()
        .into_iter()
        .find(|map| map.metadata.name.as_deref() == Some("trader-claude-agent-1-task1-attempt2-task"));
    let task = task.expect("the task's ConfigMap");
    assert_eq!(task.immutable, Some(true));
    assert!(task.data.expect("data")["task.json"].contains("Use a fold."));

    for run in [&first, &second] {
        cluster.delete(run);
        cluster.wait_for("end of the TaskRun", || cluster.run(run).is_none().then_some(()));
    }
    let third = cluster.submit("trader", "1", &["--fresh"]);
    assert_eq!(third, "trader-claude-agent-1-task1-attempt3");
    assert_eq!(cluster.end(&third)["reason"], "Completed");
}

#[test]
fn service_runs_serially_beside_other_services() {
    let busy = Script::when("Implement task 1 of the service `trader`")
        .turn(Turn::bash("echo busy > busy.txt; sleep 600"));
    let cluster = TestCluster::start(vec![busy, projects::fixes().for_each_session()]);
    let _controller = cluster.controller();
    let first = cluster.submit("trader", "1", &[]);
    cluster.until(&first, "active", |run| run["status"]["step"] == "agent");
    let second = cluster.submit("trader", "2", &[]);
    let waiting = cluster.until(&second, "in the queue", |run| run["status"]["queuePosition"] == 1);
    assert_eq!(waiting["status"]["waitingFor"], first.as_str());
    assert_eq!(condition(&waiting["status"], "Admitted")["status"], "False");
    let reported = cluster.dispatcher(&["status", &second]);
    assert!(reported.stdout.contains(&first), "{reported:?}");

    let beside = cluster.submit("auth", "1", &[]);
    let beside = cluster.end(&beside);
    assert_eq!(beside["phase"], "Succeeded", "{beside:#}");
    let jobs = cluster.jobs().into_iter().filter(|name| name.starts_with("trader-")).count();
    assert_eq!(jobs, 1, "{:#?}\n{}", cluster.run(&first), cluster.dispatcher(&["logs", &first]).stdout);

    let stopped = cluster.dispatcher(&["stop", &first]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let status = cluster.end(&first);
    assert_eq!(status["reason"], "Stopped", "{status:#}");
    assert_eq!(outcome(&status).work.location, orchestrator_contract::outcome::WorkLocation::Remote);
    assert_eq!(cluster.end(&second)["phase"], "Succeeded");
    let mut claims: Vec<_> =
        cluster.all::<PersistentVolumeClaim>().into_iter().filter_map(|claim| claim.metadata.name).collect();
    claims.sort();
    assert_eq!(claims, ["workspace-auth", "workspace-trader"]);
}

#[test]
fn deleted_run_saves_work_before_removal() {
    let cluster = TestCluster::start(endless());
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.until(&run, "active", |run| run["status"]["step"] == "agent");
    cluster.wait_for("the agent's file", || {
        let folder = cluster.kubelet.claim_folder(NAMESPACE, "workspace-trader")?;
        std::fs::read_to_string(folder.join("tree/target-repo/half-done.txt"))
            .is_ok_and(|text| text == "half\n")
            .then_some(())
    });
    cluster.delete(&run);
    cluster.wait_for("end of the TaskRun", || cluster.run(&run).is_none().then_some(()));
    let pushed = cluster.env.git.read("acme/trader", "feature/task-1-implementation", "half-done.txt");
    assert_eq!(pushed.as_deref(), Some("half\n"));
    cluster.wait_for("end of Job and pod", || {
        (cluster.jobs().is_empty() && cluster.pods().is_empty()).then_some(())
    });
    assert_eq!(cluster.all::<PersistentVolumeClaim>().len(), 1, "the workspace stays");
}

#[test]
fn deleted_run_before_start_is_removed_without_effects() {
    let cluster = TestCluster::start(endless());
    let mut controller = cluster.controller();
    let first = cluster.submit("trader", "1", &[]);
    cluster.until(&first, "active", |run| run["status"]["step"] == "agent");
    let second = cluster.submit("trader", "2", &[]);
    cluster.until(&second, "in the queue", |run| run["status"]["queuePosition"] == 1);
    let stopped = cluster.dispatcher(&["stop", &second]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let status = cluster.end(&second);
    assert_eq!((&status["reason"], &status["work"]["location"]), (&json!("Stopped"), &json!("none")));
    assert_eq!(cluster.jobs(), std::slice::from_ref(&first));
    // The finalizer stays until another controller starts.
    controller.kill();
    cluster.delete(&second);
    assert!(cluster.run(&second).is_some());
    let _next = cluster.controller();
    cluster.wait_for("end of the TaskRun", || cluster.run(&second).is_none().then_some(()));
    cluster.dispatcher(&["stop", &first]);
}

/// The commands that docs/kubernetes.md shows, as the requests that `kubectl` makes for them.
#[test]
fn role_of_users_allows_documented_commands() {
    let cluster = TestCluster::start(projects::fixes());
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    cluster.end(&run);
    let answers = cluster.as_user(async |client: Client| {
        let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let all = ListParams::default();
        let exec = json!({"spec": {"resourceAttributes": {
            "namespace": NAMESPACE, "verb": "create", "resource": "pods", "subresource": "exec",
        }}});
        let exec: SelfSubjectAccessReview = serde_json::from_value(exec).expect("a review");
        let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
        let exec = reviews.create(&PostParams::default(), &exec).await.expect("an answer");
        let answers = [
            jobs.get_opt(&run).await.map(drop),
            pods.list(&all).await.map(drop),
            events.list(&all).await.map(drop),
            secrets.get("anthropic-api-key").await.map(drop),
        ];
        (answers, exec.status.expect("a status").allowed)
    });
    let codes = answers.0.map(|answer| match answer {
        Ok(()) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    });
    assert_eq!(codes, [200, 200, 200, 403], "a Job, pods, events, a Secret");
    assert!(!answers.1, "users have no shell in pods");
}

#[test]
fn cluster_rejections_are_reported_with_cause() {
    let cluster = TestCluster::start(Script::new());
    let local = cluster.dispatcher(&[
        "submit",
        "--service",
        "other",
        "--task",
        "1",
        "--repository-url",
        "/srv/repository",
    ]);
    assert_eq!(local.code, 64, "{local:?}");
    assert!(local.stderr.contains("no pod can reach"), "{local:?}");
    let stranger = cluster.plane.kubeconfig_for("unknown", &[]);
    let output = cluster.command(&stranger, &["list"]).output().expect("the dispatcher");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(Reason::PermissionDenied.exit_code())), "{text}");
    assert!(text.contains("orchestrator-user"), "{text}");

    let run = cluster.submit("trader", "1", &[]);
    let changed = cluster.patch(&run, &json!({"spec": {"attempt": 7}})).expect_err("it cannot be changed");
    assert!(changed.contains("attempt cannot be changed"), "{changed}");
    cluster.patch(&run, &json!({"spec": {"stop": "graceful"}})).expect("it can be stopped");
    let taken_back =
        cluster.patch(&run, &json!({"spec": {"stop": null}})).expect_err("it cannot be taken back");
    assert!(taken_back.contains("cannot be taken back"), "{taken_back}");

    cluster.plane.disconnect();
    let away = cluster.dispatcher(&["list"]);
    assert_eq!(away.code, i32::from(Reason::RemoteUnavailable.exit_code()), "{away:?}");
    cluster.plane.reconnect();
}

#[test]
fn colliding_run_names_get_distinct_names() {
    let settings = "[kubernetes.secret_names]\ngithub = \"github-pat-claude-agent-1\"\n\
         [agents.c]\ngit_hosts = [\"127.0.0.1\"]\n[agents.b-c]\ngit_hosts = [\"127.0.0.1\"]";
    let cluster = TestCluster::with(projects::fixes().for_each_session(), settings);
    let _controller = cluster.controller();
    let submit = |service: &str, agent: &str, repository: &str| {
        let url = cluster.env.git.url(repository);
        cluster.submit(
            service,
            "1",
            &["--agent", agent, "--repository-url", &url, "--working-directory", "."],
        )
    };
    let runs = std::thread::scope(|scope| {
        let one = scope.spawn(|| submit("a-b", "c", "acme/trader"));
        let two = scope.spawn(|| submit("a", "b-c", "acme/auth"));
        [one, two].map(|run| run.join().expect("a submission"))
    });
    assert_ne!(runs[0], runs[1]);
    assert!(runs.contains(&"a-b-c-task1-attempt1".to_owned()), "{runs:?}");
    for (run, service) in runs.iter().zip(["a-b", "a"]) {
        assert_eq!(cluster.end(run)["reason"], "Completed");
        let spec = &cluster.run(run).expect("the run")["spec"];
        assert_eq!(spec["service"], service);
    }
    // A resubmission finds its own run.
    assert_eq!(cluster.dispatcher(&["submit", "--service", "a", "--agent", "b-c", "--task", "1"]).code, 64);
    let again = cluster.submit("a", "1", &["--agent", "b-c", "--retry"]);
    let spec = &cluster.run(&again).expect("the run")["spec"];
    assert_eq!((&spec["service"], &spec["attempt"]), (&json!("a"), &json!(2)), "{runs:?} {again}");
}

#[test]
fn twenty_identical_submissions_create_one_run() {
    let cluster = TestCluster::start(projects::fixes());
    let _controller = cluster.controller();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let submit = || cluster.dispatcher(&["submit", "--service", "trader", "--task", "1", "-o", "json"]);
        let all: Vec<_> = (0..20).map(|_| scope.spawn(submit)).collect();
        all.into_iter().map(|one| one.join().expect("a submission")).collect()
    });
    let created = answers.iter().filter(|output| output.stdout.contains("\"result\": \"created\"")).count();
    for output in &answers {
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.stdout.contains("trader-claude-agent-1-task1-attempt1"), "{output:?}");
    }
    assert_eq!(created, 1, "{answers:?}");
    let status = cluster.end("trader-claude-agent-1-task1-attempt1");
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(cluster.env.github.pulls().len(), 1);
}
