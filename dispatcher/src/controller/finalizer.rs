//! Adds and removes the finalizers of TaskRuns and pods.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::Patch;
use serde_json::{Value, json};

use super::api::{ClusterApi, ReconcileError, call, patch_params};
use super::objects::POD_FINALIZER;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::TASKRUN_FINALIZER;

/// Returns a merge patch that replaces the finalizers. It conflicts if the object has changed since.
fn patch(finalizers: &[&str], resource_version: Option<&String>) -> Value {
    json!({"metadata": {"finalizers": finalizers, "resourceVersion": resource_version}})
}

fn without<'a>(finalizers: &'a [String], removed: &str) -> Vec<&'a str> {
    finalizers.iter().map(String::as_str).filter(|name| *name != removed).collect()
}

/// Adds the finalizer of a TaskRun.
///
/// # Errors
/// Returns an error if the call fails or times out, or if the TaskRun has changed.
pub async fn add(api: &ClusterApi, run: &TaskRun) -> Result<(), ReconcileError> {
    let finalizers: Vec<&str> =
        run.finalizers().iter().map(String::as_str).chain([TASKRUN_FINALIZER]).collect();
    let patch = patch(&finalizers, run.metadata.resource_version.as_ref());
    let runs = api.api::<TaskRun>();
    call("add the finalizer of the TaskRun", runs.patch(run.name(), &patch_params(), &Patch::Merge(&patch)))
        .await
        .map(drop)
}

/// Removes the finalizer of a TaskRun, if it exists.
///
/// # Errors
/// Returns an error if the call fails or times out, or if the TaskRun has changed.
pub async fn remove(api: &ClusterApi, run: &TaskRun) -> Result<(), ReconcileError> {
    let finalizers = without(run.finalizers(), TASKRUN_FINALIZER);
    let patch = patch(&finalizers, run.metadata.resource_version.as_ref());
    api.merge_patch::<TaskRun>("remove the finalizer of the TaskRun", run.name(), &patch).await
}

/// Removes the finalizer of a pod, if it exists.
///
/// # Errors
/// Returns an error if a call fails or times out, or if the pod has changed in between.
pub async fn remove_from_pod(api: &ClusterApi, name: &str) -> Result<(), ReconcileError> {
    let Some(pod) = call("get the pod", api.api::<Pod>().get_opt(name)).await? else { return Ok(()) };
    let finalizers = without(pod.finalizers(), POD_FINALIZER);
    let patch = patch(&finalizers, pod.metadata.resource_version.as_ref());
    api.merge_patch::<Pod>("remove the finalizer of the pod", name, &patch).await
}
