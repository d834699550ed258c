//! The four kinds of patches.

use std::sync::Arc;

use serde_json::{Value, json};

use super::api_state::{ApiState, ManagedFieldsMode, WriteOptions, hint, now, understand};
use super::fields::merge;
use super::managers::{Writer, apply};
use super::resource_path::ResourcePath;
use super::status_error::StatusError;

/// The kind of a patch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Merge, with some lists merged by key.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// Parses a content type.
    pub fn of(content_type: &str) -> Result<Self, StatusError> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(StatusError::unsupported_media_type(&format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, not {other}"
            ))),
        }
    }
}

impl ApiState {
    /// Patches an object; the first apply creates it. Returns whether it was created.
    pub fn patch(
        &mut self,
        path: &ResourcePath,
        kind: PatchKind,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<(bool, Arc<Value>), StatusError> {
        if kind == PatchKind::Apply {
            return self.apply(path, body, options);
        }
        let old = self.get(path)?;
        let mut next = as_seen(path, &old);
        match kind {
            PatchKind::Json => {
                let patch = serde_json::from_value::<json_patch::Patch>(body.clone())
                    .map_err(|error| StatusError::bad_request(error.to_string()))?;
                json_patch::patch(&mut next, &patch).map_err(|error| {
                    StatusError::unprocessable(format!(
                        "the server rejected our request due to an error in our request: {error}"
                    ))
                })?;
            }
            PatchKind::Merge => json_patch::merge(&mut next, body),
            PatchKind::Strategic if path.resource.is_custom() => {
                return Err(StatusError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            PatchKind::Strategic | PatchKind::Apply => merge(&mut next, body, hint(&path.resource), ""),
        }
        // A version that the patch does not name is not a precondition.
        if body["metadata"]["resourceVersion"].is_null() && kind != PatchKind::Json {
            next["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        }
        let changed = self.change(path, next, options, ManagedFieldsMode::Needed)?;
        Ok((false, changed))
    }

    fn apply(
        &mut self,
        path: &ResourcePath,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<(bool, Arc<Value>), StatusError> {
        if options.manager.is_empty() {
            let why = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(StatusError::unprocessable(why));
        }
        if !body["metadata"]["managedFields"].is_null() {
            return Err(StatusError::bad_request("metadata.managedFields must be nil"));
        }
        for field in ["apiVersion", "kind"] {
            if body[field].as_str().is_none_or(str::is_empty) {
                return Err(StatusError::bad_request(format!("invalid object type: {field} must be set")));
            }
        }
        let live = self.store.get(&path.key()).map(|live| as_seen(path, live));
        if live.is_none() && !path.subresource.is_empty() {
            return Err(StatusError::not_found(&path.resource, &path.name));
        }
        let expected = expected(path, body, options)?;
        let writer = Writer { manager: &options.manager, operation: "Apply", subresource: &path.subresource };
        let mut next = apply(live.as_ref(), &expected, &writer, hint(&path.resource), options.force, &now())?;
        let named = &body["metadata"]["resourceVersion"];
        match &live {
            Some(live) => {
                let version = if named.is_string() { named } else { &live["metadata"]["resourceVersion"] };
                next["metadata"]["resourceVersion"] = version.clone();
                Ok((false, self.change(path, next, options, ManagedFieldsMode::Done)?))
            }
            None => {
                next["metadata"]["name"] = json!(path.name);
                let collection = ResourcePath { name: String::new(), ..path.clone() };
                Ok((true, self.create_tracked(&collection, next, options, ManagedFieldsMode::Done)?))
            }
        }
    }
}

/// Converts an object to the version of the path.
fn as_seen(path: &ResourcePath, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(path.resource.api_version());
    if object["kind"] == "Event" && path.resource.group.is_empty() {
        object = super::admission::event_to_core(object);
    }
    object
}

/// Returns the applied fields: without defaults, and only those of the subresource.
fn expected(path: &ResourcePath, body: &Value, options: &WriteOptions) -> Result<Value, StatusError> {
    // Validates kind, name, types and unknown fields as for any other body.
    let checked = understand(path, body.clone(), options)?;
    let mut expected = keep_known(body, &checked);
    let fields = expected.as_object_mut().expect("an object");
    if path.subresource.is_empty() {
        if path.resource.has("status") {
            fields.remove("status");
        }
    } else {
        let status = fields.remove("status");
        fields.retain(|name, _| name == "apiVersion" || name == "kind");
        fields.extend(status.map(|status| ("status".to_owned(), status)));
    }
    Ok(expected)
}

/// Returns the body with only the fields of `known`.
fn keep_known(body: &Value, known: &Value) -> Value {
    match (body, known) {
        (Value::Object(body), Value::Object(known)) => body
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), keep_known(value, known.get(name)?))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        (Value::Array(body), Value::Array(known)) if body.len() == known.len() => {
            body.iter().zip(known).map(|(body, known)| keep_known(body, known)).collect()
        }
        (_, known) => known.clone(),
    }
}
