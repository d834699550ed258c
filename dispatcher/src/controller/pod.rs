//! Classifies the status of a pod. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition,
};
use orchestrator_contract::Reason;

use crate::taskrun::container::CONTAINER;

/// Seconds until a failing image pull is a terminal error; the kubelet retries before that.
const IMAGE_PULL_TIMEOUT_SECONDS: i64 = 40;

/// Seconds until a slow start is reported.
const SLOW_START_SECONDS: i64 = 45;

/// Seconds until an unreachable node is a terminal error.
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

/// A problem that the cluster reports about a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodProblem {
    /// The matching reason of the contract.
    pub reason: Reason,
    /// Message of the cluster.
    pub message: String,
    /// Whether waiting cannot help, so that the run fails.
    pub terminal: bool,
}

impl PodProblem {
    fn new(reason: Reason, message: impl Into<String>, terminal: bool) -> Self {
        Self { reason, message: message.into(), terminal }
    }
}

/// Returns the state of a pod.
#[must_use]
pub fn observe(pod: &Pod, scheduling_timeout_minutes: f64, now: Timestamp) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().find(|status| status.name == CONTAINER);
    let state = container.and_then(|container| container.state.as_ref());
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = created.map_or(0, |created| now.duration_since(created).as_secs());
    let condition =
        |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind).cloned();
    let disrupted = condition("DisruptionTarget").filter(|condition| condition.status == "True");
    let phase = status.phase.as_deref().unwrap_or("Pending");

    if let Some(ContainerState { terminated: Some(terminated), .. }) = state {
        return PodState::Ended(ended(terminated, status.reason.as_deref(), disrupted.as_ref()));
    }
    if phase == "Failed" || phase == "Succeeded" {
        let message = status.message.clone().unwrap_or_else(|| "the pod terminated".to_owned());
        let problem = disruption(status.reason.as_deref(), disrupted.as_ref(), &message);
        return PodState::Ended(PodEnd { problem, ..PodEnd::default() });
    }
    if let Some(ContainerState { running: Some(running), .. }) = state {
        let since = running.started_at.as_ref().map(|time| time.0);
        return PodState::Running { since, problem: unreachable_node(condition("Ready"), now) };
    }
    let problem = startup_problem(container, condition("PodScheduled"), age, scheduling_timeout_minutes)
        .or_else(|| unreachable_node(condition("Ready"), now));
    PodState::Starting { problem }
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

/// Returns a problem if the node controller marked the pod as not ready.
fn unreachable_node(ready: Option<PodCondition>, now: Timestamp) -> Option<PodProblem> {
    let ready =
        ready.filter(|ready| ready.reason.as_deref() == Some("NodeNotReady") || ready.status == "Unknown")?;
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let terminal = now.duration_since(since).as_secs() >= NODE_UNREACHABLE_SECONDS;
    Some(PodProblem::new(Reason::NodeLost, "the node is unreachable", terminal))
}

fn startup_problem(
    container: Option<&ContainerStatus>,
    scheduled: Option<PodCondition>,
    age: i64,
    scheduling_timeout_minutes: f64,
) -> Option<PodProblem> {
    let unscheduled = scheduled.filter(|condition| condition.status == "False");
    if let Some(condition) = unscheduled {
        let message = condition.message.unwrap_or_else(|| "no node can run the pod".to_owned());
        #[expect(clippy::cast_precision_loss, reason = "an age in seconds")]
        let terminal = age as f64 >= scheduling_timeout_minutes * 60.0;
        return Some(PodProblem::new(Reason::Unschedulable, message, terminal));
    }
    let waiting = container?.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = match waiting.message.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("{reason}: {text}"),
        None => reason.to_owned(),
    };
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError" => {
            Some(PodProblem::new(Reason::ImageUnavailable, message, true))
        }
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImagePullFailed" => {
            Some(PodProblem::new(Reason::ImageUnavailable, message, age >= IMAGE_PULL_TIMEOUT_SECONDS))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(PodProblem::new(Reason::InvalidConfiguration, message, age >= IMAGE_PULL_TIMEOUT_SECONDS))
        }
        // ContainerCreating and PodInitializing: attaching volumes and pulling images can be slow.
        _ if age >= SLOW_START_SECONDS => {
            let message = format!(
                "the container has not started after {age} s ({message}); see `kubectl describe pod`"
            );
            Some(PodProblem::new(Reason::Unschedulable, message, false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    /// Summarizes the state of a pod that was created `age` seconds ago.
    fn seen(status: Value, age: i64) -> String {
        let created = at(0).to_string();
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": created}, "status": status});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let short = |problem: &Option<PodProblem>| match problem {
            Some(problem) => format!("{}{}", problem.reason, if problem.terminal { "!" } else { "" }),
            None => "fine".to_owned(),
        };
        match observe(&pod, 15.0, at(age)) {
            PodState::Starting { problem } => format!("starting {}", short(&problem)),
            PodState::Running { problem, .. } => format!("running {}", short(&problem)),
            PodState::Ended(ended) => format!("ended {:?} {}", ended.exit_code, short(&ended.problem)),
        }
    }

    fn waiting(reason: &str) -> Value {
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "supervisor", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "details"}},
        }]})
    }

    fn terminated(code: i32, reason: &str) -> Value {
        json!({"phase": "Failed", "containerStatuses": [{
            "name": "supervisor", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": reason}},
        }]})
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": at(0).to_string()})
    }

    #[test]
    fn every_pod_problem_gets_reason_within_one_minute() {
        let unschedulable =
            json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable")]});
        let cases = [
            (json!({}), 1, "starting fine"),
            (unschedulable.clone(), 1, "starting Unschedulable"),
            (unschedulable, 901, "starting Unschedulable!"),
            (waiting("ErrImagePull"), 5, "starting ImageUnavailable"),
            (waiting("ImagePullBackOff"), 41, "starting ImageUnavailable!"),
            (waiting("InvalidImageName"), 1, "starting ImageUnavailable!"),
            (waiting("CreateContainerConfigError"), 59, "starting InvalidConfiguration!"),
            (waiting("ContainerCreating"), 5, "starting fine"),
            (waiting("ContainerCreating"), 50, "starting Unschedulable"),
            (terminated(137, "OOMKilled"), 9, "ended Some(137) OutOfMemory!"),
            (terminated(143, "Error"), 9, "ended Some(143) fine"),
            (terminated(0, "Completed"), 9, "ended Some(0) fine"),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
                9,
                "ended None Evicted!",
            ),
            (
                json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "PreemptionByScheduler")]}),
                9,
                "ended None Evicted!",
            ),
            (
                json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "DeletionByTaintManager")]}),
                9,
                "ended None NodeLost!",
            ),
            (json!({"phase": "Failed", "reason": "NodeLost"}), 9, "ended None NodeLost!"),
        ];
        for (status, age, expected) in cases {
            assert_eq!(seen(status.clone(), age), expected, "{status}");
        }
    }

    #[test]
    fn unreachable_node_is_reported_before_terminal_error() {
        let running = json!({"phase": "Running", "containerStatuses": [{
            "name": "supervisor", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": at(0).to_string()}},
        }], "conditions": [condition("Ready", "False", "NodeNotReady")]});
        assert_eq!(seen(running.clone(), 30), "running NodeLost");
        assert_eq!(seen(running, 301), "running NodeLost!");
    }
}
