//! Reconciles a run: observes its state, decides, performs the actions and writes the status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action as Next;
use orchestrator_contract::{Phase, Reason};
use tracing::{info, warn};

use super::actions::perform;
use super::api::{ReconcileError, has_code};
use super::cluster_state::ClusterState;
use super::context::Context;
use super::decide::{Action, Decision, decide};
use super::finalizer;
use super::objects::POD_FINALIZER;
use super::observe::observe;
use super::queue::Admission;
use super::status;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::labels;
use crate::taskrun::status::TaskRunStatus;

/// First retry delay after a failure, doubled with each consecutive failure.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Maximum retry delay after failures.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Maximum delay until the next attempt to acquire a volume.
const MAX_VOLUME_DELAY: Duration = Duration::from_secs(2);

/// Reconciles a run.
///
/// # Errors
/// Returns an error if an API call fails or times out; the run is requeued with backoff.
pub async fn reconcile(run: Arc<TaskRun>, context: Arc<Context>) -> Result<Next, ReconcileError> {
    let run = context.memory.latest(&run);
    let now = Timestamp::now();
    let seen = observe(&context, &run, now).await?;
    let result = apply(&context, &run, decide(&run, &seen, now), &seen, now).await;
    if seen.admission == Some(Admission::Admitted) {
        context.memory.end_admission(run.name());
    }
    let next = result?;
    context.memory.clear_failures(run.name());
    Ok(next)
}

/// Requeues a run after a failed reconciliation, with exponential backoff.
pub fn error_policy(run: Arc<TaskRun>, error: &ReconcileError, context: Arc<Context>) -> Next {
    let failures = context.memory.record_failure(run.name());
    if let ReconcileError::VolumeInUse(_) = error {
        // The pod of the earlier run stops; the queue admits this run as soon as that one has ended.
        return Next::requeue((RETRY_DELAY * 2u32.saturating_pow(failures.min(9))).min(MAX_VOLUME_DELAY));
    }
    context.metrics.reconcile_failed();
    // A single failure is often a write conflict, which the next reconciliation resolves.
    if failures > 1 {
        warn!(run = run.name(), failures, %error, "reconciliation failed");
    }
    let delay = RETRY_DELAY * 2u32.saturating_pow(failures.min(9));
    Next::requeue(delay.min(MAX_RETRY_DELAY))
}

/// Removes the finalizers of deleted pods whose TaskRun no longer exists.
///
/// # Errors
/// Returns an error if an API call fails or times out.
pub async fn release_orphans(context: &Context) -> Result<(), ReconcileError> {
    for pod in context.pods.state() {
        let Some(run) = pod.labels().get(labels::RUN) else { continue };
        let has_finalizer = pod.finalizers().iter().any(|name| name == POD_FINALIZER);
        let has_run = context.runs.get(&context.api.reference(run)).is_some();
        if has_finalizer && !has_run && pod.metadata.deletion_timestamp.is_some() {
            finalizer::remove_from_pod(&context.api, &pod.name_any()).await?;
        }
    }
    Ok(())
}

/// Performs the actions of a decision, then writes its status.
async fn apply(
    context: &Context,
    run: &TaskRun,
    decision: Decision,
    seen: &ClusterState,
    now: Timestamp,
) -> Result<Next, ReconcileError> {
    let Decision { actions, mut status, requeue_after } = decision;
    for action in actions {
        match perform(context, run, &action, seen).await {
            Ok(()) => {}
            Err(ReconcileError::Terminal(message)) if run.phase().is_final() => {
                // The reason of a finished run never changes.
                context.api.record_event(run, true, "ResultNotSaved", &message).await;
            }
            Err(ReconcileError::Terminal(message)) => {
                let reason = Reason::InvalidConfiguration;
                status = run.status.clone().unwrap_or_default();
                let end = status::ObservedEnd::Inferred { reason, message: message.clone(), started: false };
                status::set_finished(&mut status, run, &end, now);
                context.api.record_event(run, true, reason.name(), &message).await;
                break;
            }
            Err(error) => {
                report_blocked(context, run, &error, now).await;
                return Err(error);
            }
        }
        if action == Action::RemoveFinalizer {
            context.evict(run);
            return Ok(Next::await_change());
        }
    }
    if run.status.as_ref() != Some(&status) {
        write_status(context, run, &status).await?;
    }
    Ok(requeue_after.map_or_else(Next::await_change, Next::requeue))
}

async fn write_status(
    context: &Context,
    run: &TaskRun,
    status: &TaskRunStatus,
) -> Result<(), ReconcileError> {
    let old = run.status.clone().unwrap_or_default();
    let stored = context.api.apply_status(run, status).await?;
    context.metrics.record_status(run, &old, status);
    context.memory.record_written(stored);
    if status.phase.is_some_and(Phase::is_final) {
        if let (Some(reason), None) = (status.reason, old.reason) {
            info!(run = run.name(), %reason, "run finished");
        }
        if status.result_config_map_name.is_some() {
            context.streams.remove(&run.uid().unwrap_or_default());
        }
        context.requeue_waiting();
    }
    Ok(())
}

/// Writes to the status why an admitted run cannot start, if the API server rejected a call.
async fn report_blocked(context: &Context, run: &TaskRun, error: &ReconcileError, now: Timestamp) {
    let ReconcileError::Api { source, .. } = error else { return };
    let is_rejected = has_code(source, 403) || has_code(source, 500);
    let mut status = run.status.clone().unwrap_or_default();
    let message = format!("cannot start yet: {error}");
    if !is_rejected || run.phase().is_final() || status.message.as_ref() == Some(&message) {
        return;
    }
    status.phase = status.phase.or(Some(Phase::Pending));
    status.message = Some(message.clone());
    status::set_condition(&mut status, run, "Admitted", "False", "AdmissionFailed", &message, now);
    // A failed write is repeated by the next reconciliation.
    drop(write_status(context, run, &status).await);
}
