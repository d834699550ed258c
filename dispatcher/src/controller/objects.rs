//! Builds the objects of a run. Pure: the same TaskRun and settings give the same objects.

mod pod_spec;
mod secrets_volume;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::Resource as _;
use orchestrator_contract::secrets::{KUBECONFIG, KUBERNETES_CA, KUBERNETES_TOKEN};
use orchestrator_contract::{TaskSpec, budget};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::pod_spec::build_pod;
pub use self::pod_spec::{GitHostSettings, TERMINATION_GRACE_PERIOD_SECONDS};
use self::secrets_volume::SECRETS_DIR;
use crate::config::kubernetes::{AccessMode, KubernetesSettings};
use crate::taskrun::container::CONTAINER;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::{WORKSPACE_NAME, labels, pvc_name, run_labels, task_configmap_name};

/// Maximum seconds of the init container `prepare`; it moves directories and copies some hundred megabytes.
pub const PREPARE_TIMEOUT_SECONDS: i64 = 600;

/// Finalizer of a pod; the controller removes it once it has read the outcome.
pub const POD_FINALIZER: &str = "orchestrator.io/outcome";

fn metadata(run: &TaskRun, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": run_labels(run),
        "ownerReferences": [run.controller_owner_ref(&())],
    })
}

/// Builds the workspace PVC of a service. It has no owner reference, since it outlives runs.
///
/// # Errors
/// Returns an error if the object is not valid JSON for its type, which is a bug.
pub fn build_pvc(
    run: &TaskRun,
    settings: &KubernetesSettings,
) -> Result<PersistentVolumeClaim, serde_json::Error> {
    let storage = &settings.storage;
    let mode = match storage.access_mode {
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteMany => "ReadWriteMany",
    };
    typed(json!({
        "metadata": {
            "name": pvc_name(&run.spec.service),
            "namespace": run.metadata.namespace,
            "labels": {
                labels::SERVICE: run.spec.service,
                "app.kubernetes.io/name": WORKSPACE_NAME,
                "app.kubernetes.io/managed-by": "orchestrator",
            },
        },
        "spec": {
            "accessModes": [mode],
            "storageClassName": storage.class,
            "resources": {"requests": {"storage": storage.size}},
        },
    }))
}

/// Builds the ConfigMap with the task spec and, with cluster access, a kubeconfig.
///
/// # Errors
/// Returns an error if the object is not valid JSON for its type, which is a bug.
pub fn build_task_configmap(
    run: &TaskRun,
    task: &TaskSpec,
    settings: &KubernetesSettings,
) -> Result<ConfigMap, serde_json::Error> {
    let mut data = Map::from_iter([("task.json".to_owned(), serde_json::to_string_pretty(task)?.into())]);
    if let Some(account) = settings.cluster_access.get(&run.spec.service) {
        data.insert(KUBECONFIG.to_owned(), kubeconfig(run, account, settings).to_string().into());
    }
    typed(json!({
        "metadata": metadata(run, &task_configmap_name(run.name())),
        "immutable": true,
        "data": data,
    }))
}

/// Renders the kubeconfig of the MCP server `kubernetes`, as JSON, which is valid YAML.
fn kubeconfig(run: &TaskRun, account: &str, settings: &KubernetesSettings) -> Value {
    // Relative paths would resolve against the working directory of the server.
    let absolute = |file: &str| format!("{SECRETS_DIR}/{file}");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": {
            "server": settings.api_server, "certificate-authority": absolute(KUBERNETES_CA),
        }}],
        "users": [{"name": account, "user": {"tokenFile": absolute(KUBERNETES_TOKEN)}}],
        "contexts": [{"name": "cluster", "context": {
            "cluster": "cluster", "user": account, "namespace": run.metadata.namespace,
        }}],
    })
}

/// Builds the Job of a run.
///
/// # Errors
/// Returns an error if the object is not valid JSON for its type, which is a bug.
pub fn build_job(
    run: &TaskRun,
    task: &TaskSpec,
    settings: &KubernetesSettings,
    git: &GitHostSettings,
) -> Result<Job, serde_json::Error> {
    let mut template = run_labels(run);
    template.insert("app.kubernetes.io/component".to_owned(), "agent".to_owned());
    if settings.cluster_access.contains_key(&run.spec.service) {
        template.insert(labels::CLUSTER_ACCESS.to_owned(), "true".to_owned());
    }
    let deadline = deadline_seconds(task, settings);
    typed(json!({
        "metadata": metadata(run, run.name()),
        "spec": {
            // Agent runs cost money, so only users retry them.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": deadline,
            "template": {
                "metadata": {
                    "labels": template,
                    "annotations": {
                        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                        "karpenter.sh/do-not-disrupt": "true",
                        "kubectl.kubernetes.io/default-container": CONTAINER,
                    },
                    "finalizers": [POD_FINALIZER],
                },
                "spec": build_pod(run, settings, git, deadline),
            },
        },
    }))
}

/// Returns the deadline of the Job, above all timeouts of the supervisor, which must expire first.
fn deadline_seconds(task: &TaskSpec, settings: &KubernetesSettings) -> i64 {
    let limits = &task.limits;
    let minutes = limits.timeout_minutes
        + limits.queue_minutes
        + limits.wait_for_quota_minutes
        + settings.scheduling_timeout_minutes;
    // The supervisor's image and that of the service.
    let images = 2 * budget::IMAGE_PULL_SECONDS;
    #[expect(clippy::cast_possible_truncation, reason = "limits are at most a week each")]
    let seconds = (minutes * 60.0).ceil() as i64;
    seconds
        + PREPARE_TIMEOUT_SECONDS
        + i64::from(images + budget::PUBLISH_SECONDS)
        + TERMINATION_GRACE_PERIOD_SECONDS
}

/// Converts JSON to a typed object; null fields are omitted.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests;
