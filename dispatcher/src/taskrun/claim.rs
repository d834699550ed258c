//! Annotations of a workspace PVC: its holder, and the last attempt number of each task key.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use orchestrator_contract::TaskKey;
use serde_json::json;

use super::definition::TaskRun;

/// Name of the run that holds the claim.
const HOLDER: &str = "orchestrator.io/holder";

/// UID of the run that holds the claim.
const HOLDER_UID: &str = "orchestrator.io/holder-uid";

/// Highest attempt numbers, as a JSON object by task key.
const ATTEMPTS: &str = "orchestrator.io/attempts";

/// The run that holds a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Name of the run.
    pub run: String,
    /// UID of its TaskRun.
    pub uid: String,
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a String> {
    claim.metadata.annotations.as_ref()?.get(name)
}

fn attempts(claim: &PersistentVolumeClaim) -> BTreeMap<String, u32> {
    annotation(claim, ATTEMPTS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Returns the last run that acquired the claim, whether or not it has finished.
#[must_use]
pub fn holder(claim: &PersistentVolumeClaim) -> Option<Holder> {
    let run = annotation(claim, HOLDER).filter(|run| !run.is_empty())?.clone();
    Some(Holder { run, uid: annotation(claim, HOLDER_UID).cloned().unwrap_or_default() })
}

/// Returns the highest attempt number recorded for a task key; 0 if none is.
#[must_use]
pub fn last_attempt(claim: &PersistentVolumeClaim, key: &TaskKey) -> u32 {
    attempts(claim).get(&key.slug()).copied().unwrap_or_default()
}

/// Returns the annotations that record the attempt number of a run.
#[must_use]
pub fn attempt_annotations(old: Option<&PersistentVolumeClaim>, run: &TaskRun) -> BTreeMap<String, String> {
    let mut attempts = old.map(attempts).unwrap_or_default();
    let last = attempts.entry(run.task_key().slug()).or_default();
    *last = (*last).max(run.spec.attempt);
    BTreeMap::from([(ATTEMPTS.to_owned(), json!(attempts).to_string())])
}

/// Returns the annotations that make a run the holder and record its attempt number.
#[must_use]
pub fn holder_annotations(old: Option<&PersistentVolumeClaim>, run: &TaskRun) -> BTreeMap<String, String> {
    let mut all = attempt_annotations(old, run);
    all.insert(HOLDER.to_owned(), run.name().to_owned());
    all.insert(HOLDER_UID.to_owned(), run.metadata.uid.clone().unwrap_or_default());
    all
}
