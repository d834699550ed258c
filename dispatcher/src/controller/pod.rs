//! What a pod's status says about its run.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition,
};
use orchestrator_contract::Reason;

use super::objects::CONTAINER;

/// How long a pull that fails may go on failing: a registry that hiccups is asked again.
const IMAGE_PULL_TIMEOUT_SECONDS: i64 = 40;

/// How long a pod may be on its way before it is said why.
const SLOW_START_SECONDS: i64 = 45;

/// How long an unreachable node may be silent.
const NODE_UNREACHABLE_SECONDS: i64 = 300;

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// Its container has not begun.
    Starting {
        /// What keeps it, if that is worth telling.
        hindrance: Option<PodProblem>,
    },
    /// Its container is alive.
    Running {
        /// Since when.
        since: Option<Timestamp>,
        /// What is wrong with its surroundings.
        trouble: Option<PodProblem>,
    },
    /// Its container has ended, or never will begin.
    Ended(PodEnd),
}

/// How a pod has ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodEnd {
    /// When its container began, if it did.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// The termination message: the outcome's digest, if the supervisor could write it.
    pub message: Option<String>,
    /// Why, where the cluster knows better than the supervisor.
    pub trouble: Option<PodProblem>,
    /// The exit code.
    pub exit_code: Option<i32>,
}

/// What is wrong, as far as the cluster tells.
#[derive(Clone, Debug, PartialEq)]
pub struct PodProblem {
    /// The contract's word for it.
    pub reason: Reason,
    /// The cluster's own words.
    pub message: String,
    /// Whether the run has no future.
    pub terminal: bool,
}

impl PodProblem {
    fn new(reason: Reason, message: impl Into<String>, terminal: bool) -> Self {
        Self { reason, message: message.into(), terminal }
    }
}

/// Tells where a pod stands.
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
        let told = status.message.clone().unwrap_or_else(|| "its pod has ended".to_owned());
        let trouble = disruption(status.reason.as_deref(), disrupted.as_ref(), &told);
        return PodState::Ended(PodEnd { trouble, ..PodEnd::default() });
    }
    if let Some(ContainerState { running: Some(running), .. }) = state {
        let since = running.started_at.as_ref().map(|time| time.0);
        return PodState::Running { since, trouble: unreachable_node(condition("Ready"), now) };
    }
    let hindrance = startup_problem(container, condition("PodScheduled"), age, scheduling_timeout_minutes)
        .or_else(|| unreachable_node(condition("Ready"), now));
    PodState::Starting { hindrance }
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
    let trouble = match reason {
        "OOMKilled" => Some(PodProblem::new(Reason::OutOfMemory, "its container ran out of memory", true)),
        "ContainerCannotRun" | "StartError" => {
            let told = terminated.message.as_deref().unwrap_or("no more is known");
            Some(PodProblem::new(
                Reason::InvalidConfiguration,
                format!("its container cannot be started: {told}"),
                true,
            ))
        }
        _ => disruption(pod_reason, disrupted, "its pod was ended by the cluster"),
    };
    PodEnd {
        started: time(&terminated.started_at),
        finished: time(&terminated.finished_at),
        message: terminated.message.clone().filter(|text| !text.trim().is_empty()),
        trouble,
        exit_code: Some(terminated.exit_code),
    }
}

/// Why the cluster ended a pod: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>.
fn disruption(pod_reason: Option<&str>, disrupted: Option<&PodCondition>, told: &str) -> Option<PodProblem> {
    let why = disrupted.and_then(|condition| condition.reason.as_deref());
    let words = disrupted.and_then(|condition| condition.message.clone()).filter(|text| !text.is_empty());
    let words = words.unwrap_or_else(|| told.to_owned());
    match (pod_reason, why) {
        (Some("NodeLost"), _) | (_, Some("DeletionByTaintManager" | "DeletionByPodGC")) => {
            Some(PodProblem::new(Reason::NodeLost, words, true))
        }
        (Some("Evicted" | "Preempting" | "Terminated" | "NodeShutdown"), _) | (_, Some(_)) => {
            Some(PodProblem::new(Reason::Evicted, words, true))
        }
        (
            Some("OutOfmemory" | "OutOfcpu" | "OutOfpods" | "NodeAffinity" | "UnexpectedAdmissionError"),
            None,
        ) => Some(PodProblem::new(Reason::Unschedulable, words, true)),
        (Some(_) | None, None) => None,
    }
}

/// The node controller says that a node does not answer by the pod's own condition.
fn unreachable_node(ready: Option<PodCondition>, now: Timestamp) -> Option<PodProblem> {
    let ready =
        ready.filter(|ready| ready.reason.as_deref() == Some("NodeNotReady") || ready.status == "Unknown")?;
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let hopeless = now.duration_since(since).as_secs() >= NODE_UNREACHABLE_SECONDS;
    Some(PodProblem::new(Reason::NodeLost, "its node does not answer", hopeless))
}

fn startup_problem(
    container: Option<&ContainerStatus>,
    scheduled: Option<PodCondition>,
    age: i64,
    scheduling_timeout_minutes: f64,
) -> Option<PodProblem> {
    let unscheduled = scheduled.filter(|condition| condition.status == "False");
    if let Some(condition) = unscheduled {
        let told = condition.message.unwrap_or_else(|| "no node has room for it".to_owned());
        #[expect(clippy::cast_precision_loss, reason = "an age in seconds")]
        let hopeless = age as f64 >= scheduling_timeout_minutes * 60.0;
        return Some(PodProblem::new(Reason::Unschedulable, told, hopeless));
    }
    let waiting = container?.state.as_ref()?.waiting.as_ref()?;
    let word = waiting.reason.as_deref().unwrap_or_default();
    let told = match waiting.message.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("{word}: {text}"),
        None => word.to_owned(),
    };
    match word {
        "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError" => {
            Some(PodProblem::new(Reason::ImageUnavailable, told, true))
        }
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImagePullFailed" => {
            Some(PodProblem::new(Reason::ImageUnavailable, told, age >= IMAGE_PULL_TIMEOUT_SECONDS))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(PodProblem::new(Reason::InvalidConfiguration, told, age >= IMAGE_PULL_TIMEOUT_SECONDS))
        }
        // ContainerCreating, PodInitializing: the volume and the image take their time.
        _ if age >= SLOW_START_SECONDS => {
            let told =
                format!("its container is not there after {age} s ({told}): kubectl describe pod tells why");
            Some(PodProblem::new(Reason::Unschedulable, told, false))
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

    /// The state, `age` seconds after the pod was made, in few words.
    fn seen(status: Value, age: i64) -> String {
        let created = at(0).to_string();
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": created}, "status": status});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let short = |trouble: &Option<PodProblem>| match trouble {
            Some(trouble) => format!("{}{}", trouble.reason, if trouble.terminal { "!" } else { "" }),
            None => "fine".to_owned(),
        };
        match observe(&pod, 15.0, at(age)) {
            PodState::Starting { hindrance } => format!("starting {}", short(&hindrance)),
            PodState::Running { trouble, .. } => format!("running {}", short(&trouble)),
            PodState::Ended(ended) => format!("ended {:?} {}", ended.exit_code, short(&ended.trouble)),
        }
    }

    fn waiting(reason: &str) -> Value {
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "supervisor", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "told"}},
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
