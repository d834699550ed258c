//! Observes the state of a run in the cluster.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::api::{ReconcileError, call};
use super::cluster_state::{ClusterState, JobState, PodInfo};
use super::context::Context;
use super::objects::POD_FINALIZER;
use super::pod;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::labels;

/// Returns the observed state of a run, apart from its TaskRun.
///
/// # Errors
/// Returns an error if the API server does not confirm that a Job was deleted.
pub async fn observe(
    context: &Context,
    run: &TaskRun,
    now: Timestamp,
) -> Result<ClusterState, ReconcileError> {
    let uid = run.uid().unwrap_or_default();
    let has_job = run.status.as_ref().is_some_and(|status| status.job_name.is_some());
    let mut job = context.jobs.get(&context.api.reference(run.name()));
    if job.is_none() && has_job && !run.phase().is_final() {
        // The watch may lag, so only the API server can say that a Job was deleted.
        job =
            call("get the Job", context.api.api::<Job>().get_opt(run.name())).await?.map(std::sync::Arc::new);
    }
    let job = job.filter(|job| job.owner_references().iter().any(|owner| owner.uid == uid));
    let job_uid = job.as_ref().and_then(|job| job.metadata.uid.as_ref());
    let pod = context.pods.find(|pod| {
        let has_label = pod.labels().get(labels::RUN).is_some_and(|name| name == run.name());
        let mut owners = pod.owner_references().iter();
        has_label && (job_uid.is_none() || owners.any(|owner| Some(&owner.uid) == job_uid))
    });
    let needs_admission =
        job.is_none() && !has_job && run.requested_stop().is_none() && !run.phase().is_final();
    let settings = context.settings();
    let admission = needs_admission
        .then(|| context.memory.admission(run, || context.runs.state(), settings.max_concurrent_runs));
    Ok(ClusterState {
        job: job.map(|job| job_state(&job, now)),
        pod: pod.map(|pod| pod_info(&pod, settings.scheduling_timeout_minutes, now)),
        stream: context.streams.state(&uid),
        admission,
        refusal: context.allow_lists.refusal(run),
    })
}

fn job_state(job: &Job, now: Timestamp) -> JobState {
    let spec = job.spec.clone().unwrap_or_default();
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failed = conditions
        .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
        .map(|condition| condition.message.clone().or(condition.reason.clone()).unwrap_or_default())
        .next();
    let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    JobState {
        suspended: spec.suspend.unwrap_or(false),
        failed,
        has_ttl: spec.ttl_seconds_after_finished.is_some(),
        age_seconds: created.map_or(0, |created| now.duration_since(created).as_secs()),
    }
}

fn pod_info(pod: &Pod, scheduling_timeout_minutes: f64, now: Timestamp) -> PodInfo {
    let deletion = pod.metadata.deletion_timestamp.as_ref();
    PodInfo {
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        state: pod::observe(pod, scheduling_timeout_minutes, now),
        restarts: pod::restarts(pod),
        has_finalizer: pod.finalizers().iter().any(|name| name == POD_FINALIZER),
        deletion_grace_seconds: deletion.and(pod.metadata.deletion_grace_period_seconds),
        disruption: pod::disruption_of(pod),
    }
}
