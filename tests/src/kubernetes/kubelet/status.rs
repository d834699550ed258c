//! Builds a pod's status and reports it until the API server accepts it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::report::{ContainerReport, Kind, Report};
use super::{Inner, PAUSE, items, text};

/// Returns the current time in the format of objects.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reports the status of a pod; returns once the API server has it or the pod is deleted.
pub async fn publish_status(inner: &Arc<Inner>, pod: &Value, report: &Report) {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let pods: Api<Pod> = Api::namespaced(inner.client.clone(), namespace);
    loop {
        inner.connected().await;
        let current = match pods.get_opt(name).await {
            Ok(Some(current)) => json!(current),
            Ok(None) => return,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if current["metadata"]["uid"] != pod["metadata"]["uid"] {
            return;
        }
        let patch = Patch::Merge(json!({"status": compose(&current, report)}));
        match pods.patch_status(name, &PatchParams::default(), &patch).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(kube::Error::Api(status))
                if status.code < 500 && status.code != 409 && status.code != 429 =>
            {
                panic!("the API server refuses the status of {namespace}/{name}: {status:?}");
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn compose(pod: &Value, report: &Report) -> Value {
    let uid = text(pod, "/metadata/uid");
    let statuses = |is_init: bool| -> Vec<Value> {
        let containers = report.containers.iter().filter(|it| (it.kind != Kind::Main) == is_init);
        containers.map(|container| container_status(uid, container)).collect()
    };
    let running = |container: &&ContainerReport| container.kind != Kind::Init;
    let runs = report.initialized && report.containers.iter().filter(running).all(ContainerReport::runs);
    let ended = matches!(report.phase, "Succeeded" | "Failed");
    let not_ready = if ended { "PodCompleted" } else { "ContainersNotReady" };
    let mut conditions = vec![
        condition(pod, "PodReadyToStartContainers", !ended, ""),
        condition(pod, "Initialized", report.initialized, "ContainersNotInitialized"),
        condition(pod, "Ready", runs, not_ready),
        condition(pod, "ContainersReady", runs, not_ready),
        condition(pod, "PodScheduled", true, ""),
    ];
    if let Some(reason) = report.disruption {
        conditions.push(condition(pod, "DisruptionTarget", true, reason));
        if let Some(last) = conditions.last_mut() {
            last["reason"] = json!(reason);
        }
    }
    // Keeps the conditions of others.
    let ours: Vec<Value> = conditions.iter().map(|it| it["type"].clone()).collect();
    conditions.extend(items(pod, "/status/conditions").filter(|it| !ours.contains(&it["type"])).cloned());
    let mut status = json!({
        "phase": report.phase, "conditions": conditions, "containerStatuses": statuses(false),
        "hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
    });
    let init = statuses(true);
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    if text(pod, "/status/startTime").is_empty() {
        status["startTime"] = json!(now());
    }
    if let Some((reason, message)) = &report.reason {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    }
    status
}

fn container_status(uid: &str, container: &ContainerReport) -> Value {
    let runs = container.runs();
    let ready = match container.kind {
        Kind::Init => container.state["terminated"]["exitCode"] == 0,
        Kind::Sidecar | Kind::Main => runs,
    };
    let mut status = json!({
        "name": container.name, "image": container.image, "imageID": "", "restartCount": container.restarts,
        "ready": ready, "started": runs, "state": container.state, "lastState": container.last_state,
    });
    if container.state["waiting"].is_null() {
        status["containerID"] = json!(format!("process://{uid}-{}", container.restarts));
    }
    status
}

fn condition(pod: &Value, kind: &str, is: bool, reason: &str) -> Value {
    let value = if is { "True" } else { "False" };
    let before = items(pod, "/status/conditions").find(|it| it["type"] == kind);
    let since = before.filter(|it| it["status"] == value).map(|it| it["lastTransitionTime"].clone());
    let mut condition = json!({
        "type": kind, "status": value, "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| json!(now())),
    });
    if !is && !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    condition
}
