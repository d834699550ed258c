//! Calls of the API server: each with a timeout, and with errors that name the call.

use std::time::Duration;

use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use crate::taskrun::container::CONTAINER;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::status::TaskRunStatus;

/// Field manager of all writes of the controller, and the reporter of its events.
pub const FIELD_MANAGER: &str = "orchestrator-controller";

/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum lines to read from the end of a log that was not streamed.
const LOG_TAIL_LINES: i64 = 20_000;

/// Maximum characters of an event note; the API server allows 1024 bytes.
const EVENT_NOTE_CHARS: usize = 900;

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server rejected a call, or is unreachable.
    #[error("cannot {action}: {source}")]
    Api {
        /// What the call does, as a verb phrase.
        action: &'static str,
        /// The error of the client.
        #[source]
        source: Box<kube::Error>,
    },
    /// A call timed out.
    #[error("cannot {action}: timed out after {seconds} s", action = .0, seconds = CALL_TIMEOUT.as_secs())]
    Timeout(&'static str),
    /// Another run holds the workspace volume.
    #[error("run `{0}` holds the workspace volume of the service")]
    VolumeInUse(String),
    /// Retrying cannot help.
    #[error("{0}")]
    Terminal(String),
    /// An object cannot be serialized, which is a bug.
    #[error("cannot serialize an object: {0}")]
    Serialize(#[from] serde_json::Error),
}

/// Awaits an API call with a timeout.
///
/// # Errors
/// Returns an error if the call fails or times out.
pub async fn call<T>(
    action: &'static str,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ReconcileError> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Err(_) => Err(ReconcileError::Timeout(action)),
        Ok(Err(source)) => Err(ReconcileError::Api { action, source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

/// Returns whether an error is a response with the given status code.
#[must_use]
pub fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Treats an object that does not exist as success.
///
/// # Errors
/// Returns every other error.
pub fn ignore_not_found<T>(result: Result<T, ReconcileError>) -> Result<(), ReconcileError> {
    match result {
        Ok(_) => Ok(()),
        Err(ReconcileError::Api { source, .. }) if has_code(&source, 404) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the parameters of a merge patch.
#[must_use]
pub fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Returns the parameters of a create call.
#[must_use]
pub fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Kubernetes object of a namespace, as the API client reads and writes it.
pub trait NamespacedObject:
    kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
{
}

impl<K> NamespacedObject for K where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
{
}

/// The API server, limited to the namespace of the controller.
#[derive(Clone)]
pub struct ClusterApi {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// Records Kubernetes events.
    pub recorder: Recorder,
}

impl std::fmt::Debug for ClusterApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterApi").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl ClusterApi {
    /// Returns the API of a resource.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Returns the reference to an object.
    #[must_use]
    pub fn reference<K>(&self, name: &str) -> ObjectRef<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        ObjectRef::new(name).within(&self.namespace)
    }

    /// Creates an object of a run; one that exists is accepted if the run owns it.
    ///
    /// # Errors
    /// Returns [`ReconcileError::Terminal`] if the API server rejects the object or another owner has one
    /// of that name, and another error if the call fails or times out.
    pub async fn create_owned<K>(
        &self,
        action: &'static str,
        run: &TaskRun,
        object: &K,
    ) -> Result<(), ReconcileError>
    where
        K: NamespacedObject + Serialize,
    {
        let api = self.api::<K>();
        match call(action, api.create(&post_params(), object)).await {
            Err(ReconcileError::Api { source, .. }) if has_code(&source, 409) => {
                let name = object.meta().name.clone().unwrap_or_default();
                let existing = call(action, api.get_opt(&name)).await?;
                let uid = run.metadata.uid.as_ref();
                let is_owned =
                    |object: &K| object.owner_references().iter().any(|owner| Some(&owner.uid) == uid);
                match existing {
                    Some(existing) if is_owned(&existing) => Ok(()),
                    Some(_) => Err(ReconcileError::Terminal(format!(
                        "{} `{name}` already exists and belongs to another owner; delete it, then retry",
                        K::kind(&())
                    ))),
                    // Deleted between the two calls: the next reconciliation creates it.
                    None => Err(ReconcileError::Api { action, source }),
                }
            }
            Err(ReconcileError::Api { source, .. }) if has_code(&source, 422) || has_code(&source, 400) => {
                Err(ReconcileError::Terminal(format!("cannot {action}: {source}")))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Applies a merge patch to an object, if it exists.
    ///
    /// # Errors
    /// Returns an error if the call fails or times out.
    pub async fn merge_patch<K: NamespacedObject>(
        &self,
        action: &'static str,
        name: &str,
        patch: &Value,
    ) -> Result<(), ReconcileError> {
        let api = self.api::<K>();
        ignore_not_found(call(action, api.patch(name, &patch_params(), &Patch::Merge(patch))).await)
    }

    /// Deletes an object, if it exists.
    ///
    /// # Errors
    /// Returns an error if the call fails or times out.
    pub async fn delete<K: NamespacedObject>(
        &self,
        action: &'static str,
        name: &str,
        parameters: &DeleteParams,
    ) -> Result<(), ReconcileError> {
        ignore_not_found(call(action, self.api::<K>().delete(name, parameters)).await)
    }

    /// Writes the status of a run and returns the TaskRun as the API server stored it.
    ///
    /// # Errors
    /// Returns an error if the call fails or times out.
    pub async fn apply_status(
        &self,
        run: &TaskRun,
        status: &TaskRunStatus,
    ) -> Result<TaskRun, ReconcileError> {
        let patch = json!({
            "apiVersion": TaskRun::api_version(&()), "kind": TaskRun::kind(&()),
            "metadata": {"name": run.name(), "uid": run.metadata.uid}, "status": status,
        });
        let api = self.api::<TaskRun>();
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let mut stored =
            call("write the status", api.patch_status(run.name(), &parameters, &Patch::Apply(&patch)))
                .await?;
        stored.metadata.managed_fields = None;
        Ok(stored)
    }

    /// Reads the end of the log of a pod; empty if it is not available, since the outcome matters more.
    pub async fn read_log_tail(&self, pod: &str) -> Vec<u8> {
        let parameters = LogParams {
            container: Some(CONTAINER.to_owned()),
            tail_lines: Some(LOG_TAIL_LINES),
            ..LogParams::default()
        };
        let pods = self.api::<k8s_openapi::api::core::v1::Pod>();
        call("read the log", pods.logs(pod, &parameters)).await.unwrap_or_default().into_bytes()
    }

    /// Records a Kubernetes event. A failure is only logged, since a run does not depend on its events.
    pub async fn record_event(&self, run: &TaskRun, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.chars().take(EVENT_NOTE_CHARS).collect()),
            action: "Run".to_owned(),
            secondary: None,
        };
        let published = call("record an event", self.recorder.publish(&event, &run.object_ref(&()))).await;
        if let Err(error) = published {
            warn!(run = run.name(), %error, "event not recorded");
        }
    }
}
