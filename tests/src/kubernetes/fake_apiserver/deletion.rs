//! Deletion: immediate, with a grace period, or blocked by finalizers.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::api_state::{ApiState, now};
use super::resource_path::{Query, ResourcePath};
use super::status_error::StatusError;

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    grace: Option<i64>,
    policy: Option<String>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

impl DeleteOptions {
    /// Parses the body; the query sets absent fields.
    pub fn parse(body: &Value, query: &Query) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let given = &body["preconditions"];
        Self {
            grace: body["gracePeriodSeconds"].as_i64().or_else(|| query.number("gracePeriodSeconds")),
            policy: text(&body["propagationPolicy"])
                .or_else(|| query.get("propagationPolicy").map(str::to_owned)),
            uid: text(&given["uid"]),
            version: text(&given["resourceVersion"]),
            dry_run: body["dryRun"][0] == "All" || query.get("dryRun") == Some("All"),
        }
    }

    pub fn background() -> Self {
        Self { policy: Some("Background".to_owned()), ..Self::default() }
    }

    pub fn foreground() -> Self {
        Self { policy: Some("Foreground".to_owned()), ..Self::default() }
    }
}

pub enum DeleteOutcome {
    /// Deleted; the last state.
    Gone(Arc<Value>),
    /// Marked for deletion; finalizers or the node delay it.
    Going(Arc<Value>),
}

/// Returns whether nothing blocks the deletion of a marked object.
pub fn is_over(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let held = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64() == Some(0)
        && !held
        && !is_namespace_with_content(object)
}

fn is_namespace_with_content(object: &Value) -> bool {
    object["kind"] == "Namespace"
        && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

impl ApiState {
    /// Deletes an object.
    pub fn delete(
        &mut self,
        path: &ResourcePath,
        delete_options: &DeleteOptions,
    ) -> Result<DeleteOutcome, StatusError> {
        let old = self.get(path)?;
        let metadata = &old["metadata"];
        let differs = |expected: &Option<String>, field: &str| {
            expected.as_ref().is_some_and(|it| metadata[field] != it.as_str())
        };
        for (expected, field, what) in [
            (&delete_options.uid, "uid", "UID"),
            (&delete_options.version, "resourceVersion", "ResourceVersion"),
        ] {
            if differs(expected, field) {
                let (expected, is) =
                    (expected.as_deref().unwrap_or_default(), metadata[field].as_str().unwrap_or_default());
                let why = format!(
                    "Precondition failed: {what} in precondition: {expected}, {what} in object meta: {is}"
                );
                return Err(StatusError::conflict(&path.resource, &path.name, &why));
            }
        }
        if delete_options.dry_run {
            return Ok(DeleteOutcome::Going(old));
        }
        let mut next = Value::clone(&old);
        set_propagation(&mut next, delete_options, path);
        let grace = grace(&old, delete_options.grace);
        let metadata = &mut next["metadata"];
        let before = metadata["deletionGracePeriodSeconds"].as_i64();
        if metadata["deletionTimestamp"].is_null() || before.is_some_and(|before| grace < before) {
            let at = Timestamp::now() + SignedDuration::from_secs(grace);
            let at = if grace == 0 { now() } else { at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() };
            if let Some(generation) = metadata["generation"].as_i64().filter(|_| before.is_none()) {
                metadata["generation"] = json!(generation + 1);
            }
            metadata["deletionTimestamp"] = json!(at);
            metadata["deletionGracePeriodSeconds"] = json!(grace);
        }
        if next["kind"] == "Namespace" {
            next["status"]["phase"] = json!("Terminating");
        }
        let key = path.key();
        if is_over(&next) {
            let last = self.erase(&key).expect("it was there above");
            return Ok(DeleteOutcome::Gone(last));
        }
        let going = if next == *old { old } else { self.store.put(key, next) };
        Ok(DeleteOutcome::Going(going))
    }
}

/// Sets the finalizers of the propagation policy.
fn set_propagation(object: &mut Value, delete_options: &DeleteOptions, path: &ResourcePath) {
    let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let mut kept = finalizers.clone();
    let policy = match delete_options.policy.as_deref() {
        Some(policy) => policy,
        None if finalizers.contains(&json!("foregroundDeletion")) => "Foreground",
        None if finalizers.contains(&json!("orphan")) => "Orphan",
        // The default of the `batch/v1` API before garbage collection existed.
        None if path.resource.group_resource() == "jobs.batch" => "Orphan",
        None => "Background",
    };
    kept.retain(|it| it != "foregroundDeletion" && it != "orphan");
    match policy {
        "Foreground" => kept.push(json!("foregroundDeletion")),
        "Orphan" => kept.push(json!("orphan")),
        _ => {}
    }
    if kept != finalizers {
        object["metadata"]["finalizers"] = json!(kept);
    }
}

/// Returns the grace period in seconds; only pods have one.
fn grace(object: &Value, wished: Option<i64>) -> i64 {
    if object["kind"] != "Pod" {
        return 0;
    }
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || object["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return 0;
    }
    wished.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}
