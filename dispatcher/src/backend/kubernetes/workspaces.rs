//! The PVCs of services, and their removal. A ConfigMap keeps the attempt numbers of a removed one.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use orchestrator_contract::{Reason, ServiceName, TaskKey};
use serde_json::json;

use super::{FIELD_MANAGER, Kubernetes};
use crate::cluster;
use crate::error::Error;
use crate::task::workspace::{FoundWorkspace, WorkspaceSize};
use crate::taskrun::claim;
use crate::taskrun::names::{WORKSPACE_NAME, attempts_name, labels, pvc_name};

impl Kubernetes {
    /// Returns the workspaces whose PVC is not being deleted.
    pub(super) async fn found_workspaces(&self) -> Result<Vec<FoundWorkspace>, Error> {
        let claims = self.connection.api::<PersistentVolumeClaim>().await?;
        let action = "list the workspace volumes";
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={WORKSPACE_NAME}"));
        let found = match self.connection.call_raw(action, claims.list(&selector)).await? {
            Ok(listed) => listed.items,
            // The role of users can get them, but not list them.
            Err(kube::Error::Api(status)) if status.code == 403 => self.claims_of_runs(&claims).await?,
            Err(error) => return Err(cluster::to_error(action, &error, self.connection.settings())),
        };
        let found = found.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
        Ok(found.filter_map(found_workspace).collect())
    }

    async fn claims_of_runs(
        &self,
        claims: &Api<PersistentVolumeClaim>,
    ) -> Result<Vec<PersistentVolumeClaim>, Error> {
        let services: BTreeSet<ServiceName> =
            self.connection.list(None).await?.into_iter().map(|run| run.spec.service).collect();
        let mut found = Vec::new();
        for service in services {
            let name = pvc_name(&service);
            found.extend(self.connection.call("get the workspace volume", claims.get_opt(&name)).await?);
        }
        Ok(found)
    }

    /// Deletes the PVC of a service; returns false if a run uses it.
    pub(super) async fn removed_workspace(&self, service: &ServiceName) -> Result<bool, Error> {
        let claims = self.connection.api::<PersistentVolumeClaim>().await?;
        let name = pvc_name(service);
        let action = "get the workspace volume";
        let Some(claim) = self.connection.call(action, claims.get_opt(&name)).await? else { return Ok(true) };
        // After the claim was read: a run that acquires it later changes its version.
        let runs = self.connection.list(Some(&format!("{}={service}", labels::SERVICE))).await?;
        if runs.iter().any(|run| !run.phase().is_final()) {
            return Ok(false);
        }
        self.check_unmounted(service).await?;
        self.keep_attempts(service, &claim).await?;
        let how = DeleteParams {
            preconditions: Some(Preconditions {
                uid: claim.metadata.uid.clone(),
                resource_version: claim.metadata.resource_version.clone(),
            }),
            ..DeleteParams::background()
        };
        match self.connection.call_raw("delete the workspace volume", claims.delete(&name, &how)).await? {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            // A run has acquired it since it was read.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.removal_error("delete the workspace volume", &error)),
        }
    }

    /// Refuses while a pod of the service exists, also one that has ended: a claim that a pod names stays
    /// `Terminating` (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>),
    /// and the next run could not mount it.
    async fn check_unmounted(&self, service: &ServiceName) -> Result<(), Error> {
        let pods = self.connection.api::<Pod>().await?;
        let selector = ListParams::default().labels(&format!("{}={service}", labels::SERVICE));
        let listed = self.connection.call("list the pods of the service", pods.list(&selector)).await?;
        let Some(pod) = listed.items.first() else { return Ok(()) };
        let run = pod.labels().get(labels::RUN).cloned().unwrap_or_default();
        let (claim, namespace) = (pvc_name(service), &self.connection.settings().namespace);
        let message = format!("the pod of {run}, which has ended, still mounts the volume {claim}");
        Err(Error::new(Reason::WorkspaceBusy, message).with_hint(format!(
            "Delete its Job with `kubectl delete job {run} -n {namespace}`, or wait until the Job expires, then run \
             the command again."
        )))
    }

    /// Records the attempt numbers of a claim before it is deleted.
    async fn keep_attempts(&self, service: &ServiceName, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let action = "keep the attempt numbers";
        let maps = self.connection.api::<ConfigMap>().await?;
        let name = attempts_name(service);
        let kept = self.connection.call(action, maps.get_opt(&name)).await?;
        let annotations = claim::kept_annotations(claim, kept.as_ref());
        let written = if kept.is_some() {
            let by = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let patch = json!({"metadata": {"annotations": annotations}});
            self.connection.call_raw(action, maps.patch(&name, &by, &Patch::Merge(&patch))).await?
        } else {
            let by = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            let metadata = ObjectMeta {
                name: Some(name),
                labels: Some([(labels::SERVICE.to_owned(), service.to_string())].into()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            };
            let map = ConfigMap { metadata, ..ConfigMap::default() };
            self.connection.call_raw(action, maps.create(&by, &map)).await?
        };
        written.map(drop).map_err(|error| self.removal_error(action, &error))
    }

    /// Returns the number that a removed workspace recorded for a task key; 0 if it cannot be read.
    pub(super) async fn kept_attempt(&self, key: &TaskKey) -> Result<u32, Error> {
        let maps = self.connection.api::<ConfigMap>().await?;
        let name = attempts_name(&key.service);
        let kept = self.connection.call_raw("get the attempt numbers", maps.get_opt(&name)).await?;
        Ok(kept.ok().flatten().map_or(0, |kept| claim::kept_attempt(&kept, key)))
    }

    fn removal_error(&self, action: &str, error: &kube::Error) -> Error {
        let settings = self.connection.settings();
        let converted = cluster::to_error(action, error, settings);
        if converted.reason() != Reason::PermissionDenied {
            return converted;
        }
        converted.with_hint(format!(
            "Removing workspaces needs more than the role orchestrator-user: an administrator of namespace {} can \
             do it, or grant it as docs/kubernetes.md describes.",
            settings.namespace
        ))
    }
}

fn found_workspace(claim: &PersistentVolumeClaim) -> Option<FoundWorkspace> {
    let service = claim.metadata.labels.as_ref()?.get(labels::SERVICE)?;
    let service = ServiceName::new(service.clone()).ok()?;
    let provisioned = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    let requested = || claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage");
    let capacity = provisioned.or_else(requested);
    Some(FoundWorkspace {
        service,
        size: capacity.map_or(WorkspaceSize::Unknown, |capacity| WorkspaceSize::Capacity(capacity.0.clone())),
        last_used: None,
        unpushed: Vec::new(),
        data: vec!["data that MCP servers keep, such as the agent's memory".to_owned()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_of_claim_has_its_capacity() {
        let size = |claim: serde_json::Value| {
            let mut claim = claim;
            claim["metadata"] = json!({"name": "workspace-trader", "labels": {(labels::SERVICE): "trader"}});
            found_workspace(&serde_json::from_value(claim).unwrap()).unwrap().size
        };
        let requested = json!({"spec": {"resources": {"requests": {"storage": "20Gi"}}}});
        assert_eq!(size(requested.clone()), WorkspaceSize::Capacity("20Gi".to_owned()));
        let mut bound = requested;
        bound["status"] = json!({"capacity": {"storage": "32Gi"}});
        assert_eq!(size(bound), WorkspaceSize::Capacity("32Gi".to_owned()));
        assert_eq!(size(json!({})), WorkspaceSize::Unknown);
        let unlabeled = json!({"metadata": {"name": "workspace-trader"}});
        assert_eq!(found_workspace(&serde_json::from_value(unlabeled).unwrap()), None);
    }
}
