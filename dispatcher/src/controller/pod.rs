//! Classifies the status of a pod. Pure.
//!
//! The container of the supervisor decides: the run is active while it runs, and has ended once it
//! terminated, whatever the pod's other containers do.

mod problem;
mod restart;
mod startup;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod, PodCondition, PodStatus};
use orchestrator_contract::Reason;

pub use self::problem::PodProblem;
pub use self::restart::{Restart, restarts};
use super::objects::TERMINATION_GRACE_PERIOD_SECONDS;
use crate::taskrun::container::CONTAINER;

/// Seconds that a pod may take to stop.
const STOP_SECONDS: i64 = TERMINATION_GRACE_PERIOD_SECONDS + 60;

/// Seconds until an unreachable node is a terminal error: the default `tolerationSeconds` after which the
/// taint manager deletes pods (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>).
const NODE_UNREACHABLE_SECONDS: i64 = 300;

/// State of the container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// The container has not started.
    Starting {
        /// What delays the start.
        problem: Option<PodProblem>,
    },
    /// The container is running.
    Running {
        /// When the container started.
        since: Option<Timestamp>,
        /// A problem of the node.
        problem: Option<PodProblem>,
    },
    /// The container terminated, or will never start.
    Ended(PodEnd),
}

/// How a pod terminated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodEnd {
    /// When the container started, if it did.
    pub started: Option<Timestamp>,
    /// When the container terminated.
    pub finished: Option<Timestamp>,
    /// Termination message, which the supervisor writes before it exits.
    pub message: Option<String>,
    /// Why the cluster terminated the container, if it did.
    pub problem: Option<PodProblem>,
    /// Exit code of the container.
    pub exit_code: Option<i32>,
}

/// Returns the state of a pod.
#[must_use]
pub fn observe(pod: &Pod, scheduling_timeout_minutes: f64, now: Timestamp) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().find(|status| status.name == CONTAINER);
    let state = container.and_then(|container| container.state.as_ref());
    let condition =
        |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind).cloned();
    let disrupted = condition("DisruptionTarget").filter(|condition| condition.status == "True");
    let phase = status.phase.as_deref().unwrap_or("Pending");

    if let Some(ContainerState { terminated: Some(terminated), .. }) = state {
        return PodState::Ended(ended(terminated, status.reason.as_deref(), disrupted.as_ref()));
    }
    if phase == "Failed" || phase == "Succeeded" {
        let message = status.message.clone().unwrap_or_else(|| "the pod terminated".to_owned());
        let prepared = startup::failed_preparation(&status);
        return PodState::Ended(PodEnd {
            finished: prepared.as_ref().and_then(|it| it.finished_at.as_ref()).map(|time| time.0),
            problem: disruption(status.reason.as_deref(), disrupted.as_ref(), &message)
                .or_else(|| prepared.as_ref().map(startup::preparation_problem)),
            ..PodEnd::default()
        });
    }
    if let Some(ContainerState { running: Some(running), .. }) = state {
        let since = running.started_at.as_ref().map(|time| time.0);
        let problem = unreachable_node(&status, now).or_else(|| disrupted.as_ref().map(announced));
        return PodState::Running { since, problem };
    }
    let problem = startup::startup_problem(pod, scheduling_timeout_minutes, now)
        .or_else(|| unreachable_node(&status, now));
    PodState::Starting { problem }
}

/// Returns whether containers of a pod whose run has ended may still write the workspace: sidecars end after
/// the supervisor.
///
/// A pod that stays longer than its grace period is on a node that does not respond; waiting cannot help.
#[must_use]
pub fn may_still_write(pod: &Pod, run_ended: Option<Timestamp>, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return false;
    }
    let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let terminated = containers
        .filter(|status| status.name == CONTAINER)
        .find_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let since = terminated.or(pod.metadata.deletion_timestamp.as_ref()).map(|time| time.0).or(run_ended);
    since.is_some_and(|since| now.duration_since(since).as_secs() < STOP_SECONDS)
}

fn ended(
    terminated: &ContainerStateTerminated,
    pod_reason: Option<&str>,
    disrupted: Option<&PodCondition>,
) -> PodEnd {
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().map(|time| time.0)
    };
    let reason = terminated.reason.as_deref().unwrap_or_default();
    let problem = match reason {
        "OOMKilled" => Some(PodProblem::new(Reason::OutOfMemory, "the container ran out of memory", true)),
        "ContainerCannotRun" | "StartError" => {
            let message = terminated.message.as_deref().unwrap_or("no details");
            Some(PodProblem::new(
                Reason::InvalidConfiguration,
                format!("cannot start the container: {message}"),
                true,
            ))
        }
        _ => disruption(pod_reason, disrupted, "the cluster terminated the pod"),
    };
    PodEnd {
        started: time(&terminated.started_at),
        finished: time(&terminated.finished_at),
        message: terminated.message.clone().filter(|text| !text.trim().is_empty()),
        problem,
        exit_code: Some(terminated.exit_code),
    }
}

/// Returns why the cluster terminated a pod: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>.
fn disruption(
    pod_reason: Option<&str>,
    disrupted: Option<&PodCondition>,
    fallback: &str,
) -> Option<PodProblem> {
    let reason = disrupted.and_then(|condition| condition.reason.as_deref());
    let message = disrupted.and_then(|condition| condition.message.clone()).filter(|text| !text.is_empty());
    let message = message.unwrap_or_else(|| fallback.to_owned());
    match (pod_reason, reason) {
        (Some("NodeLost"), _) | (_, Some("DeletionByTaintManager" | "DeletionByPodGC")) => {
            Some(PodProblem::new(Reason::NodeLost, message, true))
        }
        (Some("Evicted" | "Preempting" | "Terminated" | "NodeShutdown"), _) | (_, Some(_)) => {
            Some(PodProblem::new(Reason::Evicted, message, true))
        }
        (
            Some("OutOfmemory" | "OutOfcpu" | "OutOfpods" | "NodeAffinity" | "UnexpectedAdmissionError"),
            None,
        ) => Some(PodProblem::new(Reason::Unschedulable, message, true)),
        (Some(_) | None, None) => None,
    }
}

/// Returns why the cluster is about to terminate a pod whose supervisor still runs.
fn announced(disrupted: &PodCondition) -> PodProblem {
    let problem = disruption(None, Some(disrupted), "the cluster terminates the pod");
    let problem =
        problem.unwrap_or_else(|| PodProblem::new(Reason::Evicted, "the cluster terminates the pod", false));
    PodProblem { terminal: false, ..problem }
}

/// Returns why the cluster terminates or terminated a pod, if it reports that.
#[must_use]
pub fn disruption_of(pod: &Pod) -> Option<PodProblem> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let disrupted =
        conditions.find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    disruption(status.reason.as_deref(), disrupted, "the cluster terminated the pod")
}

/// Returns a problem if the node controller marked the pod as not ready.
///
/// It sets `Ready` to `False` and leaves reason and `ContainersReady` as they are (`MarkPodsNotReady` in
/// Kubernetes' pkg/controller/util/node); older versions set the reason `NodeNotReady`. The kubelet
/// changes both conditions together, and always names a reason for `False`.
fn unreachable_node(status: &PodStatus, now: Timestamp) -> Option<PodProblem> {
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let containers_ready = condition("ContainersReady").is_some_and(|it| it.status == "True");
    let ready =
        condition("Ready").filter(|ready| match (ready.status.as_str(), ready.reason.as_deref()) {
            ("Unknown", _) | (_, Some("NodeNotReady")) => true,
            ("False", None | Some("")) => containers_ready,
            _ => false,
        })?;
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let terminal = now.duration_since(since).as_secs() >= NODE_UNREACHABLE_SECONDS;
    Some(PodProblem::new(Reason::NodeLost, "the node is unreachable", terminal))
}

#[cfg(test)]
mod tests;
