//! Annotations of a workspace PVC: its holder, and the last attempt number of each task key.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.annotations.as_ref()?.get(name)
}

fn attempts(metadata: &ObjectMeta) -> BTreeMap<String, u32> {
    annotation(metadata, ATTEMPTS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Returns the last run that acquired the claim, whether or not it has finished.
#[must_use]
pub fn holder(claim: &PersistentVolumeClaim) -> Option<Holder> {
    let run = annotation(&claim.metadata, HOLDER).filter(|run| !run.is_empty())?.clone();
    Some(Holder { run, uid: annotation(&claim.metadata, HOLDER_UID).cloned().unwrap_or_default() })
}

/// Returns the highest attempt number recorded for a task key; 0 if none is.
#[must_use]
pub fn last_attempt(claim: &PersistentVolumeClaim, key: &TaskKey) -> u32 {
    attempts(&claim.metadata).get(&key.slug()).copied().unwrap_or_default()
}

/// Returns the highest attempt number of a task key that was kept when the claim was removed; 0 if none was.
#[must_use]
pub fn kept_attempt(kept: &ConfigMap, key: &TaskKey) -> u32 {
    attempts(&kept.metadata).get(&key.slug()).copied().unwrap_or_default()
}

/// Returns the annotations that keep the attempt numbers of a claim which is removed, and of earlier ones.
#[must_use]
pub fn kept_annotations(
    claim: &PersistentVolumeClaim,
    earlier: Option<&ConfigMap>,
) -> BTreeMap<String, String> {
    let mut all = earlier.map(|earlier| attempts(&earlier.metadata)).unwrap_or_default();
    for (key, attempt) in attempts(&claim.metadata) {
        let last = all.entry(key).or_default();
        *last = (*last).max(attempt);
    }
    BTreeMap::from([(ATTEMPTS.to_owned(), json!(all).to_string())])
}

/// Returns the annotations that record the attempt number of a run.
#[must_use]
pub fn attempt_annotations(old: Option<&PersistentVolumeClaim>, run: &TaskRun) -> BTreeMap<String, String> {
    let mut attempts = old.map(|old| attempts(&old.metadata)).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_attempt_numbers_survive_removal_of_claim() {
        let annotated = |attempts: serde_json::Value| ObjectMeta {
            annotations: Some(BTreeMap::from([(ATTEMPTS.to_owned(), attempts.to_string())])),
            ..ObjectMeta::default()
        };
        let claim = PersistentVolumeClaim {
            metadata: annotated(json!({"a/task1": 3, "a/task2": 1})),
            ..PersistentVolumeClaim::default()
        };
        let earlier = ConfigMap {
            metadata: annotated(json!({"a/task1": 2, "a/task2": 5, "a/task3": 1})),
            ..ConfigMap::default()
        };
        let kept = |earlier: Option<&ConfigMap>| {
            serde_json::from_str::<serde_json::Value>(&kept_annotations(&claim, earlier)[ATTEMPTS]).unwrap()
        };
        assert_eq!(kept(Some(&earlier)), json!({"a/task1": 3, "a/task2": 5, "a/task3": 1}));
        assert_eq!(kept(None), json!({"a/task1": 3, "a/task2": 1}));
    }
}
