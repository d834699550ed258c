//! A service's volume: who holds it, and the highest attempt numbers ever given out.
//!
//! Both are annotations. They are changed by compare-and-swap, so that two
//! controllers that both believe to lead cannot give one volume to two runs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use orchestrator_contract::TaskKey;
use serde_json::json;

use super::crd::TaskRun;
use super::objects::{FIELD_MANAGER, build_pvc, pvc_name};
use crate::config::kubernetes::KubernetesSettings;

/// The run that holds the volume.
const HOLDER: &str = "orchestrator.io/holder";

/// The uid of that run.
const HOLDER_UID: &str = "orchestrator.io/holder-uid";

/// The highest attempt numbers, as a JSON object by identity.
const ATTEMPTS: &str = "orchestrator.io/attempts";

/// What came of asking for a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimHolder {
    /// The run has it.
    ThisRun,
    /// Another run has it.
    Other {
        /// That run.
        run: String,
        /// Its uid.
        uid: String,
    },
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a String> {
    claim.metadata.annotations.as_ref()?.get(name)
}

fn attempts(claim: &PersistentVolumeClaim) -> BTreeMap<String, u32> {
    annotation(claim, ATTEMPTS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The highest attempt number that the volume of an identity's service remembers.
#[must_use]
pub fn last_attempt(claim: &PersistentVolumeClaim, identity: &TaskKey) -> u32 {
    attempts(claim).get(&identity.slug()).copied().unwrap_or_default()
}

fn identity(run: &TaskRun) -> TaskKey {
    TaskKey {
        kind: run.spec.kind,
        service: run.spec.service.clone(),
        agent: run.spec.agent.clone(),
        task: run.spec.task_id,
    }
}

/// The annotations once a run holds the volume (or only its number is remembered).
fn annotations(old: Option<&PersistentVolumeClaim>, run: &TaskRun, holds: bool) -> BTreeMap<String, String> {
    let mut marks = old.map(attempts).unwrap_or_default();
    let mark = marks.entry(identity(run).slug()).or_default();
    *mark = (*mark).max(run.spec.attempt);
    let mut all = BTreeMap::from([(ATTEMPTS.to_owned(), json!(marks).to_string())]);
    if holds {
        all.insert(HOLDER.to_owned(), run.name().to_owned());
        all.insert(HOLDER_UID.to_owned(), run.metadata.uid.clone().unwrap_or_default());
    }
    all
}

/// Takes the volume for a run, and makes it first if there is none. `is_over` says whether a run that
/// holds it, by name and uid, needs it no more.
///
/// # Errors
/// What the API server says; a conflict if somebody else was faster.
pub async fn acquire(
    claims: &Api<PersistentVolumeClaim>,
    run: &TaskRun,
    settings: &KubernetesSettings,
    is_over: impl Fn(&str, &str) -> bool,
) -> Result<ClaimHolder, kube::Error> {
    let name = pvc_name(&run.spec.service);
    let Some(found) = claims.get_opt(&name).await? else {
        let mut new = build_pvc(run, settings).map_err(kube::Error::SerdeError)?;
        new.metadata.annotations = Some(annotations(None, run, true));
        claims
            .create(
                &PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() },
                &new,
            )
            .await?;
        return Ok(ClaimHolder::ThisRun);
    };
    let holder = annotation(&found, HOLDER).cloned().unwrap_or_default();
    let uid = annotation(&found, HOLDER_UID).cloned().unwrap_or_default();
    if Some(&uid) == run.metadata.uid.as_ref() {
        return Ok(ClaimHolder::ThisRun);
    }
    if !holder.is_empty() && !is_over(&holder, &uid) {
        return Ok(ClaimHolder::Other { run: holder, uid });
    }
    write(claims, &found, annotations(Some(&found), run, true)).await?;
    Ok(ClaimHolder::ThisRun)
}

/// Remembers a run's attempt number, where there is a volume to remember it.
///
/// # Errors
/// What the API server says; a conflict if somebody else was faster.
pub async fn record_attempt(claims: &Api<PersistentVolumeClaim>, run: &TaskRun) -> Result<(), kube::Error> {
    let Some(found) = claims.get_opt(&pvc_name(&run.spec.service)).await? else { return Ok(()) };
    if last_attempt(&found, &identity(run)) >= run.spec.attempt {
        return Ok(());
    }
    write(claims, &found, annotations(Some(&found), run, false)).await
}

async fn write(
    claims: &Api<PersistentVolumeClaim>,
    found: &PersistentVolumeClaim,
    annotations: BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    // The version makes it a compare-and-swap.
    let patch =
        json!({"metadata": {"annotations": annotations, "resourceVersion": found.metadata.resource_version}});
    let name = found.metadata.name.as_deref().unwrap_or_default();
    let by = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    claims.patch(name, &by, &Patch::Merge(&patch)).await.map(drop)
}
