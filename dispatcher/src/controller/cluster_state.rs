//! The observed state of a run, on which [`super::decide`] decides.

use super::pod::{PodProblem, PodState, Restart};
use super::queue::Admission;
use crate::task::event_fold::RunSnapshot;

/// Observed state of a run, apart from its TaskRun.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub job: Option<JobState>,
    pub pod: Option<PodInfo>,
    /// Events read from the log of the pod.
    pub stream: LogStream,
    /// Whether the run may start; `None` if that was not checked, as for runs with a Job.
    pub admission: Option<Admission>,
    /// Why the run may not start with this image, agent or service; see [`super::allow_lists`].
    pub refusal: Option<String>,
}

/// Observed state of a Job.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobState {
    /// Whether it is suspended: its pods are deleted, and no new ones are created.
    pub suspended: bool,
    /// Message of the condition `Failed`.
    pub failed: Option<String>,
    /// Whether `ttlSecondsAfterFinished` is set.
    pub has_ttl: bool,
    pub age_seconds: i64,
}

/// Observed state of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    pub name: String,
    pub node: Option<String>,
    pub state: PodState,
    /// Sidecars that were restarted.
    pub restarts: Vec<Restart>,
    /// Whether it has the finalizer of the controller.
    pub has_finalizer: bool,
    /// Grace period, if the pod is being deleted.
    pub deletion_grace_seconds: Option<i64>,
    /// Why the cluster terminates it, if it does.
    pub disruption: Option<PodProblem>,
}

/// State of the log stream of a pod.
#[derive(Clone, Debug, Default)]
pub enum LogStream {
    /// The log is not being read.
    #[default]
    NotStarted,
    /// The log is being read.
    Open(Box<RunSnapshot>),
    /// The log was read to its end, or is no longer available.
    Closed(Box<RunSnapshot>),
}
