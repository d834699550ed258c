//! Performs the actions that [`super::decide`] returns.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::runtime::reflector::ObjectRef;
use serde_json::json;

use super::api::{ReconcileError, call};
use super::cluster_state::ClusterState;
use super::context::Context;
use super::decide::Action;
use super::finalizer;
use super::log_streams::LogSource;
use super::objects::{self, GitHostSettings};
use super::pod;
use super::workspace_claim::{self, ClaimHolder};
use crate::error::Error;
use crate::task::advice::render_for_cli;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::labels;
use crate::taskrun::result;

/// Performs one action for a run.
///
/// # Errors
/// Returns [`ReconcileError::Terminal`] if the run cannot start as configured, and another error if an
/// API call fails or times out.
pub async fn perform(
    context: &Context,
    run: &TaskRun,
    action: &Action,
    seen: &ClusterState,
) -> Result<(), ReconcileError> {
    let api = &context.api;
    let name = run.name();
    let pod_name = seen.pod.as_ref().map(|pod| pod.name.clone()).unwrap_or_default();
    match action {
        Action::AddFinalizer => finalizer::add(api, run).await,
        Action::RemoveFinalizer => {
            if run.status.as_ref().is_some_and(|status| status.job_name.is_some()) {
                call("record the attempt", workspace_claim::record_attempt(&api.api(), run)).await?;
            }
            finalizer::remove(api, run).await
        }
        Action::AcquireVolume => acquire_volume(context, run).await,
        Action::CreateJob => create_job(context, run).await,
        Action::FollowLogs => {
            follow_logs(context, run, pod_name);
            Ok(())
        }
        Action::SuspendJob => {
            api.merge_patch::<Job>("suspend the Job", name, &json!({"spec": {"suspend": true}})).await
        }
        Action::DeletePod { grace_seconds } => {
            let parameters = DeleteParams {
                grace_period_seconds: u32::try_from(*grace_seconds).ok(),
                ..DeleteParams::default()
            };
            api.delete::<Pod>("delete the pod", &pod_name, &parameters).await
        }
        Action::RemovePodFinalizer => finalizer::remove_from_pod(api, &pod_name).await,
        Action::SaveResult => save_result(context, run, &pod_name).await,
        Action::SetJobTtl => {
            #[expect(clippy::cast_possible_truncation, reason = "minutes of a configuration")]
            let seconds = (context.settings().ttl_minutes_after_finished * 60.0) as i64;
            let patch = json!({"spec": {"ttlSecondsAfterFinished": seconds}});
            api.merge_patch::<Job>("set the TTL of the Job", name, &patch).await
        }
        Action::DeleteJob => api.delete::<Job>("delete the Job", name, &DeleteParams::background()).await,
        Action::RecordEvent { warning, reason, note } => {
            api.record_event(run, *warning, reason, note).await;
            Ok(())
        }
    }
}

/// Makes the run the holder of the workspace PVC of its service.
async fn acquire_volume(context: &Context, run: &TaskRun) -> Result<(), ReconcileError> {
    let now = Timestamp::now();
    let is_finished = |name: &str, uid: &str| {
        let holder: Option<Arc<TaskRun>> = context.runs.get(&context.api.reference(name));
        // A later run of the same name has another UID.
        let holder = holder.map(|holder| context.memory.latest(&holder));
        let holder = holder.filter(|holder| holder.metadata.uid.as_deref() == Some(uid));
        if holder.as_ref().is_some_and(|holder| !holder.phase().is_final()) {
            return false;
        }
        let ended = holder.and_then(|holder| holder.status.as_ref()?.completion_time);
        let stopping = context.pods.find(|pod| {
            pod.labels().get(labels::RUN).is_some_and(|run| run == name)
                && pod::may_still_write(pod, ended, now)
        });
        stopping.is_none()
    };
    let claims = context.api.api();
    let acquire = workspace_claim::acquire(&claims, run, context.settings(), is_finished);
    match call("acquire the workspace volume", acquire).await? {
        ClaimHolder::ThisRun => Ok(()),
        ClaimHolder::Other(holder) => Err(ReconcileError::VolumeInUse(holder.run)),
    }
}

/// Creates the ConfigMap with the task, then the Job.
async fn create_job(context: &Context, run: &TaskRun) -> Result<(), ReconcileError> {
    let settings = context.settings();
    let task = run
        .task()
        .map_err(|errors| ReconcileError::Terminal(Error::from_field_errors(&errors).message().to_owned()))?;
    let explain = |error: Error| {
        let hint = render_for_cli(error.hint());
        ReconcileError::Terminal(format!("{error}. {}", hint.trim_end_matches('.')))
    };
    settings.supervisor_image().map_err(explain)?;
    let agent = context.config.agent(&run.spec.agent).map_err(explain)?;
    let git = GitHostSettings {
        github_api_url: context.config.github_api_url.clone(),
        git_hosts: agent.git_hosts,
        sandbox: context.config.sandbox,
    };
    let configmap = objects::build_task_configmap(run, &task, settings)?;
    context.api.create_owned("create the task ConfigMap", run, &configmap).await?;
    let job = objects::build_job(run, &task, settings, &git)?;
    context.api.create_owned("create the Job", run, &job).await
}

fn follow_logs(context: &Context, run: &TaskRun, pod: String) {
    let Ok(task) = run.task() else { return };
    let source = LogSource {
        client: context.api.client.clone(),
        namespace: context.api.namespace.clone(),
        pod,
        run: task.run,
        reference: ObjectRef::from_obj(run),
        requeue_tx: context.requeue_tx.clone(),
    };
    context.streams.follow(&run.uid().unwrap_or_default(), source);
}

/// Creates the result ConfigMap from the streamed log, or else from the end of the log of the pod.
async fn save_result(context: &Context, run: &TaskRun, pod: &str) -> Result<(), ReconcileError> {
    let mut log = context.streams.tail(&run.uid().unwrap_or_default());
    if log.is_empty() && !pod.is_empty() {
        log = context.api.read_log_tail(pod).await;
    }
    context.api.create_owned("create the result ConfigMap", run, &result::build(run, &log)).await
}
