//! Representation of objects: in the requested version, complete or metadata only.

use serde_json::{Value, json};

use super::admission::event_to_core;
use super::resource::Resource;

/// The requested representation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Form {
    /// Parses an `Accept` header.
    pub fn expected(accept: &str) -> Self {
        if accept.contains("as=PartialObjectMetadata") { Self::Metadata } else { Self::Whole }
    }

    /// Returns an object in this form.
    pub fn of(self, resource: &Resource, object: &Value) -> Value {
        match self {
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            }),
            Self::Whole => {
                let mut object = object.clone();
                object["apiVersion"] = json!(resource.api_version());
                if resource.kind == "Event" && resource.group.is_empty() {
                    event_to_core(object)
                } else {
                    object
                }
            }
        }
    }

    /// Returns a list in this form.
    pub fn list<'a>(
        self,
        resource: &Resource,
        version: u64,
        objects: impl Iterator<Item = &'a Value>,
    ) -> Value {
        let item = |object: &Value| {
            let mut item = self.of(resource, object);
            // Lists of built-in types name the type only once.
            if let Some(fields) =
                item.as_object_mut().filter(|_| self == Self::Whole && !resource.is_custom())
            {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            item
        };
        let items: Vec<Value> = objects.map(item).collect();
        let (kind, api_version) = match self {
            Self::Whole => (format!("{}List", resource.kind), resource.api_version()),
            Self::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        json!({
            "kind": kind, "apiVersion": api_version,
            "metadata": {"resourceVersion": version.to_string()}, "items": items,
        })
    }
}
