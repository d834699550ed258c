//! The status of a TaskRun.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use orchestrator_contract::outcome::Work;
use orchestrator_contract::reason::Retryable;
use orchestrator_contract::{Phase, Reason, Step};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The status message of an admitted run whose container has not started.
pub const STARTING_MESSAGE: &str = "the container is starting";

/// Returns the schema of an arbitrary object, whose fields the API server preserves.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Observed state of a run, as reported by its supervisor or derived from its pod.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunStatus {
    /// Generation of the specification that this status reflects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Current step, or the step at which the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Why the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Exit code of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether a retry can succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<Retryable>,
    /// Why the run ended or what it waits for, and what to do about it, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Position in the queue; 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// What a queued run waits for: another run, or a free slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Latest activity of the run or its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// When the latest activity started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_since: Option<Timestamp>,
    /// Agent turns so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<i32>,
    /// Cost so far in US dollars, as counted by the model gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Feature branch of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// URL of the pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// Location of the work of a finished run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// Name of the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// Name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Name of the node that the pod runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// When the container started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When the controller handled the stop request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_request_time: Option<Timestamp>,
    /// When the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// Sequence number of the last event, which can be used as a log cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_seq: Option<i64>,
    /// Time of the last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_time: Option<Timestamp>,
    /// When progress was last written to this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Timestamp>,
    /// Name of the ConfigMap that keeps outcome and log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_config_map_name: Option<String>,
    /// The outcome in the format of the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub outcome: Option<serde_json::Value>,
    /// `Admitted`: the run may start. `Complete`: it has ended. `Succeeded`: whether it succeeded. `Restarted`: a
    /// container beside the supervisor's ended and was started again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
