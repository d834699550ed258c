//! Acquires the workspace PVC of a service, and records attempt numbers on it.
//!
//! Both are annotations that change by compare-and-swap, so that two controllers that both consider
//! themselves leader cannot give a volume to two runs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::Patch;
use serde_json::json;

use super::api::{patch_params, post_params};
use super::objects::build_pvc;
use crate::config::kubernetes::KubernetesSettings;
use crate::taskrun::claim::{self, Holder};
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::pvc_name;

/// Holder of a PVC after an attempt to acquire it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimHolder {
    /// The run that tried to acquire it.
    ThisRun,
    /// Another run, which is still active.
    Other(Holder),
}

/// Makes a run the holder of the PVC of its service, which is created if it is missing.
///
/// `is_finished` returns whether the run with a name and UID has finished.
///
/// # Errors
/// Returns an error if a call fails, such as a conflict with a concurrent write.
pub async fn acquire(
    claims: &Api<PersistentVolumeClaim>,
    run: &TaskRun,
    settings: &KubernetesSettings,
    is_finished: impl Fn(&str, &str) -> bool,
) -> Result<ClaimHolder, kube::Error> {
    let Some(found) = claims.get_opt(&pvc_name(&run.spec.service)).await? else {
        let mut new = build_pvc(run, settings).map_err(kube::Error::SerdeError)?;
        new.metadata.annotations = Some(claim::holder_annotations(None, run));
        claims.create(&post_params(), &new).await?;
        return Ok(ClaimHolder::ThisRun);
    };
    match claim::holder(&found) {
        Some(holder) if Some(&holder.uid) == run.metadata.uid.as_ref() => Ok(ClaimHolder::ThisRun),
        Some(holder) if !is_finished(&holder.run, &holder.uid) => Ok(ClaimHolder::Other(holder)),
        Some(_) | None => {
            annotate(claims, &found, claim::holder_annotations(Some(&found), run)).await?;
            Ok(ClaimHolder::ThisRun)
        }
    }
}

/// Records the attempt number of a run on the PVC of its service, if that exists.
///
/// # Errors
/// Returns an error if a call fails, such as a conflict with a concurrent write.
pub async fn record_attempt(claims: &Api<PersistentVolumeClaim>, run: &TaskRun) -> Result<(), kube::Error> {
    let Some(found) = claims.get_opt(&pvc_name(&run.spec.service)).await? else { return Ok(()) };
    if claim::last_attempt(&found, &run.task_key()) >= run.spec.attempt {
        return Ok(());
    }
    annotate(claims, &found, claim::attempt_annotations(Some(&found), run)).await
}

async fn annotate(
    claims: &Api<PersistentVolumeClaim>,
    found: &PersistentVolumeClaim,
    annotations: BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    // The resource version makes this a compare-and-swap.
    let patch =
        json!({"metadata": {"annotations": annotations, "resourceVersion": found.metadata.resource_version}});
    let name = found.metadata.name.as_deref().unwrap_or_default();
    claims.patch(name, &patch_params(), &Patch::Merge(&patch)).await.map(drop)
}
