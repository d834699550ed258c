//! What delays or prevents the start of the supervisor: its pod's containers start one after the other.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
};
use orchestrator_contract::{Reason, terminal};

use super::problem::PodProblem;
use crate::controller::objects::PREPARE_TIMEOUT_SECONDS;
use crate::taskrun::container::{CONTAINER, PREPARE};

/// Seconds until a failing image pull is a terminal error; the kubelet retries before that.
const IMAGE_PULL_TIMEOUT_SECONDS: i64 = 40;

/// Seconds until a slow start is reported.
const SLOW_START_SECONDS: i64 = 45;

/// Restarts of a sidecar before the supervisor starts after which waiting cannot help.
const MAX_RESTARTS: i32 = 2;

/// What the scheduler says of a pod whose volume claim is not bound yet, with `volumeBindingMode: Immediate`.
const UNBOUND_VOLUME: &str = "unbound immediate PersistentVolumeClaims";

const UNBOUND_VOLUME_HINT: &str =
    "Check the storage class and its provisioner: `kubectl describe pvc` shows why the volume is not bound.";

/// Cure for a volume that belongs to another user: `prepare` made nothing of what a run needs.
const FOREIGN_VOLUME_CURE: &str = "the volume belongs to another user and seems to ignore `fsGroup`: use a storage \
                                   class whose volumes honor it, or set `user` in [kubernetes] to the volume's owner";

/// Maximum bytes of the last output of a container in a message.
const LAST_OUTPUT_BYTES: usize = 500;

/// Returns what delays the start, or prevents it.
pub(super) fn startup_problem(
    pod: &Pod,
    scheduling_timeout_minutes: f64,
    now: Timestamp,
) -> Option<PodProblem> {
    let status = pod.status.as_ref()?;
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    if let Some(condition) = scheduled.filter(|condition| condition.status == "False") {
        return unscheduled(condition, seconds(created, now), scheduling_timeout_minutes);
    }
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().map_or(created, |time| time.0)
    };
    // When the kubelet could begin with the container: after the one before.
    let mut since = scheduled.map_or(created, |condition| time(&condition.last_transition_time));
    for container in status.init_container_statuses.iter().flatten() {
        let state = container.state.clone().unwrap_or_default();
        match state {
            ContainerState { terminated: Some(end), .. } if container.name == PREPARE => {
                if end.exit_code != 0 {
                    // The pod fails; until then it may still be that it was stopped.
                    return Some(PodProblem { terminal: false, ..preparation_problem(&end) });
                }
                since = since.max(time(&end.finished_at));
            }
            ContainerState { running: Some(running), .. } => {
                let started = time(&running.started_at);
                if container.name == PREPARE {
                    return slow_preparation(seconds(started, now));
                }
                since = since.max(started);
            }
            state => match state.terminated.or_else(|| container.last_state.clone()?.terminated) {
                Some(end) => return Some(crash(container, &end)),
                None => return waiting_problem(container, seconds(since, now)),
            },
        }
    }
    let supervisor = status.container_statuses.iter().flatten().find(|status| status.name == CONTAINER)?;
    waiting_problem(supervisor, seconds(since, now))
}

fn seconds(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs()
}

fn unscheduled(condition: &PodCondition, age: i64, timeout_minutes: f64) -> Option<PodProblem> {
    let is_unbound = condition.message.as_deref().is_some_and(|text| text.contains(UNBOUND_VOLUME));
    if is_unbound && age < SLOW_START_SECONDS {
        // A storage class that binds immediately has no node to wait for; its volume comes first.
        return None;
    }
    let message = condition.message.clone().unwrap_or_else(|| "no node can run the pod".to_owned());
    #[expect(clippy::cast_precision_loss, reason = "an age in seconds")]
    let terminal = age as f64 >= timeout_minutes * 60.0;
    let problem = PodProblem::new(Reason::Unschedulable, message, terminal);
    Some(if is_unbound { problem.with_hint(UNBOUND_VOLUME_HINT) } else { problem })
}

/// Returns how `prepare` ended, if it failed.
pub(super) fn failed_preparation(status: &PodStatus) -> Option<ContainerStateTerminated> {
    let all = status.init_container_statuses.iter().flatten();
    let state = all.filter(|status| status.name == PREPARE).find_map(|status| status.state.clone());
    state?.terminated.filter(|end| end.exit_code != 0)
}

/// Returns the problem of a `prepare` that failed.
pub(super) fn preparation_problem(end: &ContainerStateTerminated) -> PodProblem {
    // The exit codes are those of the supervisor's program.
    let reason = match (end.reason.as_deref(), end.exit_code) {
        (Some("OOMKilled"), _) => Reason::OutOfMemory,
        (_, 70) => Reason::InternalError,
        (_, 73) => Reason::WorkspaceUnwritable,
        (_, 74) => Reason::IoError,
        (Some(_) | None, _) => Reason::InvalidConfiguration,
    };
    let last = last_output(end);
    let mut message = format!("container `{PREPARE}` failed with exit code {}{last}", end.exit_code);
    if reason == Reason::WorkspaceUnwritable && last.contains("denied") {
        message = format!("{}. Probably {FOREIGN_VOLUME_CURE}", message.trim_end_matches('.'));
    }
    PodProblem::new(reason, message, true)
}

/// Returns the last output of a container, or what the runtime says about it, after a colon.
fn last_output(end: &ContainerStateTerminated) -> String {
    let text = terminal::neutralize(end.message.as_deref().unwrap_or_default());
    let start = text.ceil_char_boundary(text.len().saturating_sub(LAST_OUTPUT_BYTES));
    match text.get(start..).unwrap_or_default().trim() {
        "" => String::new(),
        last => format!(": {last}"),
    }
}

fn slow_preparation(age: i64) -> Option<PodProblem> {
    let message = format!(
        "container `{PREPARE}` has been working on the workspace volume for {age} s; see `kubectl logs -c {PREPARE}`"
    );
    let terminal = age >= PREPARE_TIMEOUT_SECONDS;
    (age >= SLOW_START_SECONDS).then(|| PodProblem::new(Reason::IoError, message, terminal))
}

/// Returns the problem of a sidecar that ended before the supervisor started.
fn crash(container: &ContainerStatus, end: &ContainerStateTerminated) -> PodProblem {
    let (name, image) = (&container.name, &container.image);
    let terminal = container.restart_count >= MAX_RESTARTS;
    let last = last_output(end);
    match end.reason.as_deref().unwrap_or_default() {
        "OOMKilled" => {
            PodProblem::new(Reason::OutOfMemory, format!("container `{name}` ran out of memory"), terminal)
        }
        "StartError" | "ContainerCannotRun" => {
            let message = format!(
                "container `{name}` cannot start our program in the image {image}, which needs glibc{last}"
            );
            PodProblem::new(Reason::InvalidConfiguration, message, terminal)
        }
        _ => {
            let message = format!("container `{name}` exited with code {}{last}", end.exit_code);
            PodProblem::new(Reason::InvalidConfiguration, message, terminal)
        }
    }
}

/// Returns the problem of a container that has never run.
fn waiting_problem(container: &ContainerStatus, age: i64) -> Option<PodProblem> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let details = match waiting.message.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("{reason}: {text}"),
        None => reason.to_owned(),
    };
    let message = format!("container `{}`: {details}", container.name);
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
            let name = &container.name;
            let message = format!(
                "container `{name}` has not started after {age} s ({details}); see `kubectl describe pod`"
            );
            Some(PodProblem::new(Reason::Unschedulable, message, false))
        }
        _ => None,
    }
}
