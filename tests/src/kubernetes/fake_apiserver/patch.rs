//! The four kinds of patches.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::merge;
use super::managers::{Writer, apply};
use super::resource_path::ResourcePath;
use super::status_error::StatusError;
use super::world::{ApiState, ManagedFieldsMode, WriteOptions, hint, now, understand};

/// How the body of a patch is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Merge, but some lists by key.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// What a content type says.
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
    /// Patches an object, or makes it when it is applied for the first time; true when it was made.
    pub fn patch(
        &mut self,
        place: &ResourcePath,
        kind: PatchKind,
        body: &Value,
        manner: &WriteOptions,
    ) -> Result<(bool, Arc<Value>), StatusError> {
        if kind == PatchKind::Apply {
            return self.apply(place, body, manner);
        }
        let old = self.get(place)?;
        let mut next = as_seen(place, &old);
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
            PatchKind::Strategic if place.resource.is_custom() => {
                return Err(StatusError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            PatchKind::Strategic | PatchKind::Apply => merge(&mut next, body, hint(&place.resource), ""),
        }
        // A version that the patch does not name is no condition.
        if body["metadata"]["resourceVersion"].is_null() && kind != PatchKind::Json {
            next["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        }
        let changed = self.change(place, next, manner, ManagedFieldsMode::Needed)?;
        Ok((false, changed))
    }

    fn apply(
        &mut self,
        place: &ResourcePath,
        body: &Value,
        manner: &WriteOptions,
    ) -> Result<(bool, Arc<Value>), StatusError> {
        if manner.manager.is_empty() {
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
        let live = self.store.get(&place.key()).map(|live| as_seen(place, live));
        if live.is_none() && !place.subresource.is_empty() {
            return Err(StatusError::not_found(&place.resource, &place.name));
        }
        let wanted = wanted(place, body, manner)?;
        let writer = Writer { manager: &manner.manager, operation: "Apply", subresource: &place.subresource };
        let mut next = apply(live.as_ref(), &wanted, &writer, hint(&place.resource), manner.force, &now())?;
        let named = &body["metadata"]["resourceVersion"];
        match &live {
            Some(live) => {
                let version = if named.is_string() { named } else { &live["metadata"]["resourceVersion"] };
                next["metadata"]["resourceVersion"] = version.clone();
                Ok((false, self.change(place, next, manner, ManagedFieldsMode::Done)?))
            }
            None => {
                next["metadata"]["name"] = json!(place.name);
                let collection = ResourcePath { name: String::new(), ..place.clone() };
                Ok((true, self.create_tracked(&collection, next, manner, ManagedFieldsMode::Done)?))
            }
        }
    }
}

/// An object in the version of the place.
fn as_seen(place: &ResourcePath, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(place.resource.api_version());
    if object["kind"] == "Event" && place.resource.group.is_empty() {
        object = super::admission::event_to_core(object);
    }
    object
}

/// What an applied body is about: defaults are not wishes, and a subresource is about itself alone.
fn wanted(place: &ResourcePath, body: &Value, manner: &WriteOptions) -> Result<Value, StatusError> {
    // Kind, name, types and unknown fields are refused as they are for every other body.
    let checked = understand(place, body.clone(), manner)?;
    let mut wanted = keep_known(body, &checked);
    let fields = wanted.as_object_mut().expect("an object");
    if place.subresource.is_empty() {
        if place.resource.has("status") {
            fields.remove("status");
        }
    } else {
        let status = fields.remove("status");
        fields.retain(|name, _| name == "apiVersion" || name == "kind");
        fields.extend(status.map(|status| ("status".to_owned(), status)));
    }
    Ok(wanted)
}

/// The body without what is unknown, in the words of what is known.
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
