//! Binds pods to the node and starts a worker for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::status::now;
use super::{Fault, Inner, PAUSE, has_ended, is_going, items, name_of, pod_worker, text};

/// Interval at which unschedulable pods are retried.
const AGAIN: Duration = Duration::from_millis(250);

/// The pods of the node.
#[derive(Default)]
struct Known {
    pods: BTreeMap<String, Value>,
    lives: BTreeMap<String, watch::Sender<Option<Arc<Value>>>>,
}

/// Watches all pods until the runtime ends.
pub(super) async fn run(inner: Arc<Inner>) {
    let pods: Api<Pod> = Api::all(inner.client.clone());
    let mut events = watcher(pods, watcher::Config::default()).boxed();
    let mut known = Known::default();
    let mut seen = Vec::new();
    let mut again = tokio::time::interval(AGAIN);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Init)) => seen.clear(),
                Some(Ok(Event::InitApply(pod))) => {
                    seen.push(pod.metadata.uid.clone().unwrap_or_default());
                    known.update(&inner, json!(pod)).await;
                }
                Some(Ok(Event::InitDone)) => {
                    let deleted: Vec<String> = known.pods.keys().filter(|uid| !seen.contains(uid)).cloned().collect();
                    deleted.iter().for_each(|uid| known.forget(&inner, uid));
                }
                Some(Ok(Event::Apply(pod))) => known.update(&inner, json!(pod)).await,
                Some(Ok(Event::Delete(pod))) => {
                    known.forget(&inner, pod.metadata.uid.as_deref().unwrap_or_default());
                }
                Some(Err(_)) => tokio::time::sleep(PAUSE).await,
                None => return,
            },
            _ = again.tick() => known.schedule_waiting(&inner).await,
        }
    }
}

impl Known {
    async fn update(&mut self, inner: &Arc<Inner>, pod: Value) {
        let uid = text(&pod, "/metadata/uid").to_owned();
        self.pods.insert(uid.clone(), pod.clone());
        if text(&pod, "/spec/nodeName").is_empty() {
            self.schedule(inner, &pod).await;
        } else if text(&pod, "/spec/nodeName") == inner.node {
            let pod = Arc::new(pod);
            let alive = self.lives.get(&uid);
            if let Some(life) = alive {
                life.send_replace(Some(pod));
            } else if !has_ended(&pod) || is_going(&pod) {
                let (life, news) = watch::channel(Some(pod));
                self.lives.insert(uid, life);
                tokio::spawn(pod_worker::run_pod(Arc::clone(inner), news));
            }
        }
    }

    fn forget(&mut self, inner: &Inner, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            inner.logs.forget(&name_of(&pod));
        }
        if let Some(life) = self.lives.remove(uid) {
            life.send_replace(None);
        }
    }

    async fn schedule_waiting(&mut self, inner: &Arc<Inner>) {
        let waiting: Vec<Value> =
            self.pods.values().filter(|pod| text(pod, "/spec/nodeName").is_empty()).cloned().collect();
        for pod in waiting {
            self.schedule(inner, &pod).await;
        }
    }

    /// Binds a pod to the node, or reports why it cannot.
    async fn schedule(&self, inner: &Arc<Inner>, pod: &Value) {
        if *inner.lost.borrow() || is_going(pod) {
            return;
        }
        let (namespace, name) = name_of(pod);
        let pods: Api<Pod> = Api::namespaced(inner.client.clone(), &namespace);
        // An error is retried with the next attempt.
        match self.obstacle(inner, pod).await {
            Ok(None) => {
                let binding = json!({
                    "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": inner.node},
                });
                pods.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding)
                    .await
                    .ok();
            }
            Ok(Some(message)) => {
                let reported = items(pod, "/status/conditions")
                    .any(|it| it["type"] == "PodScheduled" && it["message"] == message.as_str());
                if !reported {
                    let condition = json!({
                        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                        "lastProbeTime": null, "lastTransitionTime": now(),
                    });
                    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
                    pods.patch_status(&name, &PatchParams::default(), &patch).await.ok();
                }
            }
            Err(_) => {}
        }
    }

    /// Returns why a pod cannot be scheduled.
    async fn obstacle(&self, inner: &Arc<Inner>, pod: &Value) -> Result<Option<String>, kube::Error> {
        let unschedulable = |fault: &Fault| matches!(fault, Fault::Unschedulable(_));
        if let Some(Fault::Unschedulable(why)) = inner.fault_of(pod, unschedulable) {
            return Ok(Some(why));
        }
        let namespace = text(pod, "/metadata/namespace");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(inner.client.clone(), namespace);
        for name in claims_of(pod) {
            let Some(claim) = claims.get_opt(name).await? else {
                let why = format!("0/1 nodes are available: persistentvolumeclaim \"{name}\" not found.");
                return Ok(Some(why));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Ok(Some(format!(
                    "0/1 nodes are available: persistentvolumeclaim \"{name}\" is being deleted."
                )));
            }
            let modes = claim.spec.and_then(|spec| spec.access_modes).unwrap_or_default();
            let alone = modes.iter().any(|mode| mode == "ReadWriteOncePod");
            let uses = |other: &&Value| {
                text(other, "/metadata/namespace") == namespace
                    && other["metadata"]["uid"] != pod["metadata"]["uid"]
                    && !text(other, "/spec/nodeName").is_empty()
                    && !has_ended(other)
                    && claims_of(other).any(|it| it == name)
            };
            if alone && self.pods.values().any(|other| uses(&other)) {
                let why = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
                return Ok(Some(why.to_owned()));
            }
        }
        Ok(None)
    }
}

fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    items(pod, "/spec/volumes").filter_map(|it| it.pointer("/persistentVolumeClaim/claimName")?.as_str())
}
