//! The Node object, and the cluster's reaction to a lost node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::status::now;
use super::{Inner, OnNodeLoss, has_ended, is_going, lock, text};

/// Registers the node, with the address of its log server.
pub(super) async fn register(inner: &Arc<Inner>) {
    let nodes: Api<Node> = Api::all(inner.client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": inner.node, "labels": {"kubernetes.io/hostname": inner.node, "kubernetes.io/os": "linux"}},
    }))
    .expect("a node");
    nodes.create(&PostParams::default(), &node).await.expect("the API server takes a node");
    publish_status(inner, "True", "KubeletReady").await;
}

async fn publish_status(inner: &Inner, ready: &str, reason: &str) {
    let nodes: Api<Node> = Api::all(inner.client.clone());
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": inner.port}},
        "capacity": {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"},
        "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"},
        "conditions": [{
            "type": "Ready", "status": ready, "reason": reason, "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }],
    }});
    let patch = Patch::Merge(status);
    nodes.patch_status(&inner.node, &PatchParams::default(), &patch).await.expect("the node's status");
}

/// Returns the pods of the node that have not terminated.
async fn pods(inner: &Inner) -> Vec<Value> {
    let pods: Api<Pod> = Api::all(inner.client.clone());
    let of_it = ListParams::default().fields(&format!("spec.nodeName={}", inner.node));
    let list = pods.list(&of_it).await.expect("the pods of the node");
    list.items.into_iter().map(|pod| json!(pod)).filter(|pod| !has_ended(pod)).collect()
}

async fn condition(inner: &Inner, pod: &Value, condition: Value, phase: Option<&str>) {
    let pods: Api<Pod> = Api::namespaced(inner.client.clone(), text(pod, "/metadata/namespace"));
    let mut status = json!({"conditions": [condition]});
    if let Some(phase) = phase {
        status["phase"] = json!(phase);
    }
    let patch = Patch::Strategic(json!({"status": status}));
    // The pod may have been deleted.
    pods.patch_status(text(pod, "/metadata/name"), &PatchParams::default(), &patch).await.ok();
}

async fn delete(inner: &Inner, pod: &Value, parameters: &DeleteParams) {
    let pods: Api<Pod> = Api::namespaced(inner.client.clone(), text(pod, "/metadata/namespace"));
    // The pod may have been deleted.
    pods.delete(text(pod, "/metadata/name"), parameters).await.ok();
}

/// Disconnects the kubelet; the node and taint controllers react.
pub(super) async fn lose(inner: &Arc<Inner>, processes: OnNodeLoss) {
    inner.lost.send_replace(true);
    if processes == OnNodeLoss::Kill {
        lock(&inner.running).values().for_each(|running| running.group.kill());
    }
    publish_status(inner, "Unknown", "NodeStatusUnknown").await;
    for pod in pods(inner).await {
        let not_ready = json!({
            // The node controller names no reason, and leaves `ContainersReady` as it is.
            "type": "Ready", "status": "False", "reason": null, "lastProbeTime": null,
            "lastTransitionTime": now(),
        });
        condition(inner, &pod, not_ready, None).await;
        if !is_going(&pod) {
            let message = "Taint manager: deleting due to NoExecute taint";
            condition(inner, &pod, disruption("DeletionByTaintManager", message), None).await;
            delete(inner, &pod, &DeleteParams::default()).await;
        }
    }
}

/// Reconnects the kubelet.
pub(super) async fn recover(inner: &Arc<Inner>) {
    publish_status(inner, "True", "KubeletReady").await;
    inner.lost.send_replace(false);
}

/// Removes the node from the cluster; the pod garbage collector deletes its pods.
pub(super) async fn remove(inner: &Arc<Inner>) {
    let nodes: Api<Node> = Api::all(inner.client.clone());
    let left = pods(inner).await;
    nodes.delete(&inner.node, &DeleteParams::default()).await.expect("the node goes");
    for pod in left {
        let message = "PodGC: node no longer exists";
        condition(inner, &pod, disruption("DeletionByPodGC", message), Some("Failed")).await;
        delete(inner, &pod, &DeleteParams::default().grace_period(0)).await;
    }
}

fn disruption(reason: &str, message: &str) -> Value {
    json!({
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": now(),
    })
}
