//! Names, labels and finalizers of the objects of a run.

use std::collections::BTreeMap;

use orchestrator_contract::{Kind, ServiceName};

use super::definition::TaskRun;

/// Label keys that say which run an object belongs to.
pub mod labels {
    /// Name of the run.
    pub const RUN: &str = "orchestrator.io/run";
    /// Service of the run.
    pub const SERVICE: &str = "orchestrator.io/service";
    /// Agent of the run.
    pub const AGENT: &str = "orchestrator.io/agent";
    /// Task of the run; missing on docs runs that cover all tasks.
    pub const TASK: &str = "orchestrator.io/task";
    /// Attempt number of the run.
    pub const ATTEMPT: &str = "orchestrator.io/attempt";
    /// Kind of the run, as [`kind_label`](super::kind_label) returns it.
    pub const KIND: &str = "orchestrator.io/kind";
    /// Set on pods whose agent may read from the cluster.
    pub const CLUSTER_ACCESS: &str = "orchestrator.io/cluster-access";
}

/// Finalizer of a TaskRun; the controller removes it once the work is saved.
pub const TASKRUN_FINALIZER: &str = "orchestrator.io/work";

/// Name of the Lease that the leading controller holds.
pub const LEASE: &str = "orchestrator-controller";

/// Returns the name of the ConfigMap with the task spec of a run.
#[must_use]
pub fn task_configmap_name(run: &str) -> String {
    format!("{run}-task")
}

/// Returns the name of the ConfigMap that keeps outcome and log of a run.
#[must_use]
pub fn result_name(run: &str) -> String {
    format!("{run}-result")
}

/// Returns the name of the PVC that holds the workspace of a service.
#[must_use]
pub fn pvc_name(service: &ServiceName) -> String {
    format!("workspace-{service}")
}

/// Value of the label `app.kubernetes.io/name` of a workspace's PVC.
pub const WORKSPACE_NAME: &str = "orchestrator-workspace";

/// Returns the name of the ConfigMap with the attempt numbers of a service whose workspace was removed.
#[must_use]
pub fn attempts_name(service: &ServiceName) -> String {
    format!("workspace-{service}-attempts")
}

/// Returns the value of the label [`labels::KIND`].
#[must_use]
pub fn kind_label(kind: Kind) -> &'static str {
    kind.name()
}

/// Returns the labels that every object of a run carries.
#[must_use]
pub fn run_labels(run: &TaskRun) -> BTreeMap<String, String> {
    let spec = &run.spec;
    let mut all = BTreeMap::from([
        (labels::RUN.to_owned(), run.name().to_owned()),
        (labels::SERVICE.to_owned(), spec.service.to_string()),
        (labels::AGENT.to_owned(), spec.agent.to_string()),
        (labels::ATTEMPT.to_owned(), spec.attempt.to_string()),
        (labels::KIND.to_owned(), kind_label(spec.kind).to_owned()),
        ("app.kubernetes.io/name".to_owned(), "orchestrator-run".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "orchestrator".to_owned()),
    ]);
    if let Some(task) = spec.task_id {
        all.insert(labels::TASK.to_owned(), task.to_string());
    }
    all
}
