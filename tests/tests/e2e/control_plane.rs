//! The fake API server behaves like the real one: each test runs on the one that `ControlPlane::start` finds.

mod apply;
mod faults;
mod jobs;
mod objects;
mod pods;
mod server;
mod sidecars;
mod watches;

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::{GroupVersionKind, NamespaceResourceScope};
use orchestrator_tests::kubernetes::{ControlPlane, Kubelet};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Timeout of every wait, on a machine under load.
const LIMIT: Duration = Duration::from_secs(60);

/// A control plane with a node.
struct Cluster {
    // Dropped first.
    kubelet: Kubelet,
    plane: ControlPlane,
}

impl Cluster {
    fn start() -> Self {
        let plane = ControlPlane::start();
        Self { kubelet: Kubelet::start(&plane), plane }
    }
}

/// A cluster that concurrent tests share, and a namespace of one test.
struct ClusterEnv {
    cluster: Arc<Cluster>,
    namespace: String,
    client: Client,
}

impl ClusterEnv {
    async fn new() -> Self {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let cluster = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let cluster = Arc::new(Cluster::start());
                *shared = Arc::downgrade(&cluster);
                cluster
            })
        };
        Self::on(cluster).await
    }

    /// Creates a cluster for one test that would disturb others.
    async fn alone() -> Self {
        Self::on(Arc::new(Cluster::start())).await
    }

    async fn on(cluster: Arc<Cluster>) -> Self {
        let client = cluster.plane.client();
        let namespace = format!("test-{}", uuid::Uuid::new_v4().simple());
        cluster.plane.namespace(&namespace).await;
        Self { cluster, namespace, client }
    }

    fn kubelet(&self) -> &Kubelet {
        &self.cluster.kubelet
    }

    fn plane(&self) -> &ControlPlane {
        &self.cluster.plane
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Returns the resource of a definition that every test may install.
    async fn things(&self) -> Api<DynamicObject> {
        self.plane().install(&definition()).await;
        let kind = GroupVersionKind::gvk("example.com", "v1", "Thing");
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }
}

/// Polls until `look` returns a value.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns code, reason and message of an API error.
fn refusal<T: Debug>(result: Result<T, kube::Error>) -> (u16, String, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

/// A kind with a status, defaults, limits and a transition rule.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList", "shortNames": ["th"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["color"],
                            "properties": {
                                "color": {"type": "string", "enum": ["red", "green"], "x-kubernetes-validations": [
                                    {"rule": "self == oldSelf", "message": "color cannot change"}
                                ]},
                                "size": {"type": "integer", "minimum": 1, "default": 3},
                                "note": {"type": "string", "nullable": true, "maxLength": 5},
                                "rest": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                            },
                            "x-kubernetes-validations": [
                                {"rule": "!has(self.note) || self.size > 1", "message": "a note needs a size"}
                            ],
                        },
                        "status": {
                            "type": "object",
                            "properties": {
                                "phase": {"type": "string"},
                                "conditions": {
                                    "type": "array",
                                    "x-kubernetes-list-type": "map",
                                    "x-kubernetes-list-map-keys": ["type"],
                                    "items": {
                                        "type": "object",
                                        "required": ["type", "status"],
                                        "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                                    },
                                },
                            },
                        },
                    },
                }},
            }],
        },
    })
}

fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}
