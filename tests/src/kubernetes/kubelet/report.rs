//! What the node knows about a pod, and the task that publishes each change of it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::status::publish_status;
use super::{Inner, items};

/// The role of a container in its pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Init,
    Sidecar,
    Main,
}

/// The state of a container.
#[derive(Clone, Debug)]
pub struct ContainerReport {
    pub name: Value,
    pub image: Value,
    pub kind: Kind,
    /// `ContainerState`, as `lastState` too.
    pub state: Value,
    pub last_state: Value,
    pub restarts: u32,
}

impl ContainerReport {
    pub fn runs(&self) -> bool {
        self.state["running"].is_object()
    }
}

/// The state of a pod.
#[derive(Clone, Debug)]
pub struct Report {
    pub phase: &'static str,
    /// Reason and message, if the pod as a whole failed.
    pub reason: Option<(&'static str, String)>,
    /// Reason of the condition `DisruptionTarget`.
    pub disruption: Option<&'static str>,
    /// Whether the main container may start.
    pub initialized: bool,
    /// Init containers and sidecars, then main containers, in the order of the specification.
    pub containers: Vec<ContainerReport>,
}

impl Report {
    /// Returns the report of a pod whose containers have not started.
    fn of(pod: &Value) -> Self {
        let init = items(pod, "/spec/initContainers").map(|container| {
            (container, if container["restartPolicy"] == "Always" { Kind::Sidecar } else { Kind::Init })
        });
        let all: Vec<(&Value, Kind)> =
            init.chain(items(pod, "/spec/containers").map(|container| (container, Kind::Main))).collect();
        let first = if all.len() > 1 { "PodInitializing" } else { "ContainerCreating" };
        let containers = all.iter().map(|(container, kind)| ContainerReport {
            name: container["name"].clone(),
            image: container["image"].clone(),
            kind: *kind,
            state: waiting(first, ""),
            last_state: json!({}),
            restarts: 0,
        });
        let containers = containers.collect();
        Self { phase: "Pending", reason: None, disruption: None, initialized: false, containers }
    }
}

/// Returns the state of a container that waits.
pub fn waiting(reason: &str, message: &str) -> Value {
    let mut waiting = json!({"reason": reason});
    if !message.is_empty() {
        waiting["message"] = json!(message);
    }
    json!({"waiting": waiting})
}

/// Publishes a pod's report in the background: the API server may be unreachable.
pub struct Publisher {
    report: Arc<watch::Sender<Report>>,
    task: JoinHandle<()>,
}

impl Publisher {
    pub fn start(inner: &Arc<Inner>, pod: &Arc<Value>) -> Self {
        let (report, mut changes) = watch::channel(Report::of(pod));
        let (inner, pod) = (Arc::clone(inner), Arc::clone(pod));
        let task = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let report = changes.borrow_and_update().clone();
                publish_status(&inner, &pod, &report).await;
            }
        });
        Self { report: Arc::new(report), task }
    }

    /// Returns a sender of changes.
    pub fn sender(&self) -> Arc<watch::Sender<Report>> {
        Arc::clone(&self.report)
    }

    /// Publishes a change of the pod.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(change);
    }

    /// Publishes the state of a container.
    pub fn set_state(&self, index: usize, state: Value) {
        self.update(|report| report.containers[index].state = state);
    }

    /// Returns once the last report has been published; every other sender is dropped by then.
    pub async fn finish(self) {
        drop(self.report);
        self.task.await.ok();
    }
}
