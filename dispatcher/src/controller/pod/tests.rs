use super::*;
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Summarizes the state of a pod that was created `age` seconds ago.
fn seen(status: Value, age: i64) -> String {
    let created = at(0).to_string();
    let pod = json!({"metadata": {"name": "p", "creationTimestamp": created}, "status": status});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let short = |problem: &Option<PodProblem>| match problem {
        Some(problem) => format!("{}{}", problem.reason, if problem.terminal { "!" } else { "" }),
        None => "fine".to_owned(),
    };
    match observe(&pod, 15.0, at(age)) {
        PodState::Starting { problem } => format!("starting {}", short(&problem)),
        PodState::Running { problem, .. } => format!("running {}", short(&problem)),
        PodState::Ended(ended) => format!("ended {:?} {}", ended.exit_code, short(&ended.problem)),
    }
}

fn waiting(reason: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{
        "name": "supervisor", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": "details"}},
    }]})
}

fn terminated(code: i32, reason: &str) -> Value {
    json!({"phase": "Failed", "containerStatuses": [{
        "name": "supervisor", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": reason}},
    }]})
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": at(0).to_string()})
}

#[test]
fn every_pod_problem_gets_reason_within_one_minute() {
    let unschedulable =
        json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable")]});
    let mut unbound = unschedulable.clone();
    unbound["conditions"][0]["message"] =
        json!("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    let cases = [
        (json!({}), 1, "starting fine"),
        (unschedulable.clone(), 1, "starting Unschedulable"),
        (unschedulable, 901, "starting Unschedulable!"),
        (unbound.clone(), 20, "starting fine"),
        (unbound, 50, "starting Unschedulable"),
        (waiting("ErrImagePull"), 5, "starting ImageUnavailable"),
        (waiting("ImagePullBackOff"), 41, "starting ImageUnavailable!"),
        (waiting("InvalidImageName"), 1, "starting ImageUnavailable!"),
        (waiting("CreateContainerConfigError"), 59, "starting InvalidConfiguration!"),
        (waiting("ContainerCreating"), 5, "starting fine"),
        (waiting("ContainerCreating"), 50, "starting Unschedulable"),
        (terminated(137, "OOMKilled"), 9, "ended Some(137) OutOfMemory!"),
        (terminated(143, "Error"), 9, "ended Some(143) fine"),
        (terminated(0, "Completed"), 9, "ended Some(0) fine"),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
            9,
            "ended None Evicted!",
        ),
        (
            json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "PreemptionByScheduler")]}),
            9,
            "ended None Evicted!",
        ),
        (
            json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "DeletionByTaintManager")]}),
            9,
            "ended None NodeLost!",
        ),
        (json!({"phase": "Failed", "reason": "NodeLost"}), 9, "ended None NodeLost!"),
    ];
    for (status, age, expected) in cases {
        assert_eq!(seen(status.clone(), age), expected, "{status}");
    }
}

#[test]
fn unreachable_node_is_reported_before_terminal_error() {
    let running = json!({"phase": "Running", "containerStatuses": [{
        "name": "supervisor", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": at(0).to_string()}},
    }]});
    let with = |conditions: Value| {
        let mut status = running.clone();
        status["conditions"] = conditions;
        status
    };
    let without_reason = |kind: &str, value: &str| {
        let mut condition = condition(kind, value, "");
        condition.as_object_mut().unwrap().remove("reason");
        condition
    };
    let (not_ready, containers) =
        (without_reason("Ready", "False"), without_reason("ContainersReady", "True"));
    let lost = [
        // What Kubernetes 1.36 writes.
        json!([not_ready.clone(), containers]),
        json!([condition("Ready", "False", "NodeNotReady")]),
        json!([condition("Ready", "Unknown", "NodeStatusUnknown")]),
        json!([
            not_ready.clone(),
            containers,
            condition("DisruptionTarget", "True", "DeletionByTaintManager")
        ]),
    ];
    for conditions in lost {
        assert_eq!(seen(with(conditions.clone()), 30), "running NodeLost", "{conditions}");
        assert_eq!(seen(with(conditions.clone()), 301), "running NodeLost!", "{conditions}");
    }
    let fine = [
        json!([
            condition("Ready", "False", "ContainersNotReady"),
            condition("ContainersReady", "False", "ContainersNotReady")
        ]),
        json!([condition("Ready", "False", "ReadinessGatesNotReady"), containers]),
        json!([not_ready, condition("ContainersReady", "False", "ContainersNotReady")]),
        json!([without_reason("Ready", "True"), containers]),
    ];
    for conditions in fine {
        assert_eq!(seen(with(conditions.clone()), 301), "running fine", "{conditions}");
    }
}

#[test]
fn announced_eviction_is_problem_of_running_pod() {
    for (reason, expected) in [
        ("EvictionByEvictionAPI", "running Evicted"),
        ("PreemptionByScheduler", "running Evicted"),
        ("TerminationByKubelet", "running Evicted"),
        ("DeletionByTaintManager", "running NodeLost"),
    ] {
        let running = json!({"phase": "Running", "containerStatuses": [{
            "name": "supervisor", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": at(0).to_string()}},
        }], "conditions": [condition("DisruptionTarget", "True", reason)]});
        // The supervisor saves its work; its end decides.
        assert_eq!(seen(running, 900), expected, "{reason}");
    }
}

/// Returns the status of a pod whose supervisor waits for these init containers.
fn initializing(init: Value) -> Value {
    let mut status = waiting("PodInitializing");
    status["containerStatuses"][0]["state"]["waiting"] = json!({"reason": "PodInitializing"});
    status["initContainerStatuses"] = init;
    status
}

fn init(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "image:1", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn prepared() -> Value {
    let finished = at(10).to_string();
    init("prepare", json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": finished}}))
}

fn sidecar(since: i64) -> Value {
    init("agent", json!({"running": {"startedAt": at(since).to_string()}}))
}

/// A sidecar in the back-off after an end.
fn crashed(end: Value, restarts: i32) -> Value {
    let mut container =
        init("agent", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}));
    container["lastState"] = json!({"terminated": end});
    container["restartCount"] = json!(restarts);
    container
}

#[test]
fn init_container_problem_is_that_of_the_run() {
    let wait =
        |name: &str, reason: &str| init(name, json!({"waiting": {"reason": reason, "message": "why"}}));
    let start_error = json!({"exitCode": 128, "reason": "StartError", "message": "no such file"});
    let exited = json!({"exitCode": 78, "reason": "Error"});
    let out_of_memory = json!({"exitCode": 137, "reason": "OOMKilled"});
    let busy = init("prepare", json!({"running": {"startedAt": at(5).to_string()}}));
    let verify = wait("verify", "ImagePullBackOff");
    for (containers, age, expected) in [
        (json!([wait("prepare", "ErrImagePull")]), 5, "starting ImageUnavailable"),
        (json!([wait("prepare", "ErrImagePull")]), 41, "starting ImageUnavailable!"),
        (json!([busy]), 40, "starting fine"),
        (json!([busy]), 60, "starting IoError"),
        (json!([busy]), 606, "starting IoError!"),
        // The time of the container before does not count.
        (json!([prepared(), wait("agent", "ImagePullBackOff")]), 45, "starting ImageUnavailable"),
        (json!([prepared(), wait("agent", "ImagePullBackOff")]), 51, "starting ImageUnavailable!"),
        (json!([prepared(), wait("agent", "InvalidImageName")]), 11, "starting ImageUnavailable!"),
        (json!([prepared(), wait("agent", "PodInitializing")]), 12, "starting fine"),
        (json!([prepared(), wait("agent", "RunContainerError")]), 51, "starting InvalidConfiguration!"),
        (json!([prepared(), crashed(start_error.clone(), 0)]), 12, "starting InvalidConfiguration"),
        (json!([prepared(), crashed(start_error.clone(), 2)]), 40, "starting InvalidConfiguration!"),
        (
            json!([prepared(), init("agent", json!({"terminated": start_error}))]),
            12,
            "starting InvalidConfiguration",
        ),
        (json!([prepared(), crashed(exited, 3)]), 40, "starting InvalidConfiguration!"),
        (json!([prepared(), crashed(out_of_memory, 2)]), 40, "starting OutOfMemory!"),
        (json!([prepared(), sidecar(20), verify]), 50, "starting ImageUnavailable"),
        (json!([prepared(), sidecar(20), verify]), 61, "starting ImageUnavailable!"),
        (json!([prepared(), sidecar(20)]), 21, "starting fine"),
        (json!([prepared(), sidecar(20)]), 70, "starting Unschedulable"),
    ] {
        assert_eq!(seen(initializing(containers.clone()), age), expected, "{containers} after {age} s");
    }
}

#[test]
fn failed_preparation_says_exit_code_and_last_output() {
    let failed = |code: i32, reason: &str| {
        let end = json!({"exitCode": code, "reason": reason, "message": "first\nno \u{1b}[31mspace\n"});
        let mut status = initializing(json!([init("prepare", json!({"terminated": end}))]));
        status["phase"] = json!("Failed");
        status
    };
    for (code, reason, expected) in [
        (1, "Error", "ended None InvalidConfiguration!"),
        (73, "Error", "ended None WorkspaceUnwritable!"),
        (74, "Error", "ended None IoError!"),
        (137, "OOMKilled", "ended None OutOfMemory!"),
    ] {
        assert_eq!(seen(failed(code, reason), 9), expected, "{code} {reason}");
    }
    let status: PodStatus = serde_json::from_value(failed(74, "Error")).unwrap();
    let message = startup::preparation_problem(&startup::failed_preparation(&status).unwrap()).message;
    assert!(message.contains("`prepare` failed with exit code 74: first no"), "{message}");
    assert!(!message.contains('\u{1b}') && !message.contains('\n'), "{message:?}");
    // An eviction explains more than the exit code that it caused.
    let mut evicted = failed(143, "Error");
    evicted["reason"] = json!("Evicted");
    assert_eq!(seen(evicted, 9), "ended None Evicted!");
}

#[test]
fn volume_that_ignores_fs_group_is_named_with_cure() {
    let message = |code: i32, output: &str| {
        let end = json!({"exitCode": code, "reason": "Error", "message": output});
        startup::preparation_problem(&serde_json::from_value(end).unwrap()).message
    };
    let denied = message(73, "WorkspaceUnwritable: cannot create `/v/private.new`: Permission denied.\n");
    for word in ["exit code 73", "/v/private.new", "`fsGroup`", "storage class", "`user` in [kubernetes]"] {
        assert!(denied.contains(word), "{denied}");
    }
    // Other problems of the volume have other cures.
    for (code, output) in [(73, "`/v/tree` is not a directory"), (74, "Permission denied"), (73, "")] {
        let other = message(code, output);
        assert!(!other.contains("fsGroup"), "{other}");
    }
}

#[test]
fn supervisor_alone_decides_about_end() {
    let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let with_sidecars = |mut status: Value, agent: Value| {
        status["initContainerStatuses"] = json!([prepared(), init("agent", agent)]);
        status
    };
    // The kubelet reports the phase Running until all containers have terminated.
    let mut stopping = terminated(0, "Completed");
    stopping["phase"] = json!("Running");
    for agent in [json!({"running": {"startedAt": at(9).to_string()}}), killed.clone()] {
        assert_eq!(seen(with_sidecars(stopping.clone(), agent), 20), "ended Some(0) fine");
    }
    assert_eq!(seen(with_sidecars(terminated(1, "Error"), killed.clone()), 20), "ended Some(1) fine");
    let running = json!({"phase": "Running", "containerStatuses": [{
        "name": "supervisor", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": at(0).to_string()}},
    }]});
    assert_eq!(seen(with_sidecars(running, killed), 20), "running fine");
}

#[test]
fn restarts_name_container_cause_and_count() {
    let pod = |containers: Value| -> Vec<String> {
        let pod = json!({"metadata": {"name": "p"}, "status": {"initContainerStatuses": containers}});
        restarts(&serde_json::from_value(pod).unwrap()).iter().map(ToString::to_string).collect()
    };
    assert_eq!(pod(json!([prepared(), sidecar(3)])), [] as [String; 0]);
    let again = |end: Value, count: i32| pod(json!([prepared(), crashed(end, count)]));
    assert_eq!(
        again(json!({"exitCode": 137, "reason": "OOMKilled"}), 1),
        ["container `agent` was restarted once: OOMKilled, exit code 137"]
    );
    assert_eq!(
        again(json!({"exitCode": 1, "reason": "not a reason"}), 3),
        ["container `agent` was restarted 3 times: Error, exit code 1"]
    );
}

#[test]
fn workspace_is_in_use_until_sidecars_ended() {
    let deleted = |seconds: i64| json!({"deletionTimestamp": at(seconds).to_string()});
    let mut stopping = terminated(0, "Completed");
    stopping["phase"] = json!("Running");
    stopping["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!(at(10).to_string());
    let running = json!({"phase": "Running"});
    for (status, metadata, run_ended, now, expected) in [
        (terminated(0, "Completed"), json!({}), Some(9), 11, false),
        (stopping.clone(), json!({}), Some(9), 11, true),
        (stopping.clone(), json!({}), None, 189, true),
        (stopping, json!({}), None, 190, false),
        // The outcome is in the log before the supervisor has exited.
        (running.clone(), json!({}), Some(9), 11, true),
        (running.clone(), json!({}), Some(9), 189, false),
        (running.clone(), deleted(130), None, 300, true),
        (running.clone(), deleted(130), None, 310, false),
        (running, json!({}), None, 11, false),
    ] {
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
        let found = may_still_write(&pod, run_ended.map(at), at(now));
        assert_eq!(found, expected, "{pod:?} {run_ended:?} {now}");
    }
}
