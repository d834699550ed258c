//! Builds a pod's status and reports it until the API server accepts it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Inner, PAUSE, items, text};

/// The state of a pod.
#[derive(Clone, Debug)]
pub struct Report {
    pub phase: &'static str,
    /// Reason and message, if the pod as a whole failed.
    pub reason: Option<(&'static str, String)>,
    /// `ContainerState` of the container.
    pub state: Value,
    /// Reason of the condition `DisruptionTarget`.
    pub disruption: Option<&'static str>,
}

impl Report {
    pub fn waiting(reason: &str, message: &str) -> Self {
        let mut waiting = json!({"reason": reason});
        if !message.is_empty() {
            waiting["message"] = json!(message);
        }
        Self { phase: "Pending", reason: None, state: json!({"waiting": waiting}), disruption: None }
    }

    pub fn running(since: &str) -> Self {
        Self {
            phase: "Running",
            reason: None,
            state: json!({"running": {"startedAt": since}}),
            disruption: None,
        }
    }
}

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
    let runs = report.state["running"].is_object();
    let container = &pod["spec"]["containers"][0];
    let uid = text(pod, "/metadata/uid");
    let mut container_status = json!({
        "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
        "ready": runs, "started": runs, "state": with_absent_states(&report.state), "lastState": {},
    });
    if report.state["waiting"].is_null() {
        container_status["containerID"] = json!(format!("process://{uid}"));
    }
    let ended = matches!(report.phase, "Succeeded" | "Failed");
    let not_ready = if ended { "PodCompleted" } else { "ContainersNotReady" };
    let mut conditions = vec![
        condition(pod, "PodReadyToStartContainers", !ended, ""),
        condition(pod, "Initialized", true, ""),
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
        "phase": report.phase, "conditions": conditions, "containerStatuses": [container_status],
        "hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
    });
    if text(pod, "/status/startTime").is_empty() {
        status["startTime"] = json!(now());
    }
    if let Some((reason, message)) = &report.reason {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    }
    status
}

/// Adds nulls: a merge patch keeps absent fields, and a container has one state.
fn with_absent_states(state: &Value) -> Value {
    let mut state = state.clone();
    if let Some(fields) = state.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    state
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
