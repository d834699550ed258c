//! The objects of the server, and the changes that its rules allow.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::admission;
use super::fields::Hint;
use super::managers::{self, Writer};
use super::names;
use super::resource::{Resource, Resources, Scope, Shape};
use super::resource_path::ResourcePath;
use super::status_error::{StatusCause, StatusError};
use super::store::{Key, Store};
use super::{definition, deletion};

/// What etcd takes.
const LARGEST: usize = 3 * 512 * 1024;

/// How a change is asked for.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Who manages the fields.
    pub manager: String,
    /// Whether nothing is kept.
    pub dry_run: bool,
    /// Whether apply takes fields from other managers.
    pub force: bool,
    /// Whether unknown fields are refused.
    pub strict: bool,
}

/// Who wrote down which fields a change is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ManagedFieldsMode {
    /// Nobody yet.
    Needed,
    /// Apply did.
    Done,
}

/// Everything the server knows.
pub struct ApiState {
    pub store: Store,
    pub resources: Resources,
}

/// The time as objects carry it.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl ApiState {
    /// A server with the namespaces that every cluster has.
    pub fn new() -> Self {
        let mut world = Self { store: Store::new(), resources: Resources::built_in() };
        let namespaces = world.resources.find("", "v1", "namespaces").expect("a built-in resource");
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let place = ResourcePath {
                resource: Arc::clone(&namespaces),
                namespace: String::new(),
                name: String::new(),
                subresource: String::new(),
            };
            let manner = WriteOptions { manager: "kube-apiserver".to_owned(), ..WriteOptions::default() };
            world.create(&place, json!({"metadata": {"name": name}}), &manner).expect("a namespace");
        }
        world
    }

    /// An object.
    pub fn get(&self, place: &ResourcePath) -> Result<Arc<Value>, StatusError> {
        let found = self.store.get(&place.key()).map(Arc::clone);
        found.ok_or_else(|| StatusError::not_found(&place.resource, &place.name))
    }

    /// Makes an object.
    pub fn create(
        &mut self,
        place: &ResourcePath,
        body: Value,
        manner: &WriteOptions,
    ) -> Result<Arc<Value>, StatusError> {
        let tracking = ManagedFieldsMode::Needed;
        self.create_tracked(place, body, manner, tracking)
    }

    /// Makes an object, for which the managers may be known already.
    pub fn create_tracked(
        &mut self,
        place: &ResourcePath,
        body: Value,
        manner: &WriteOptions,
        tracking: ManagedFieldsMode,
    ) -> Result<Arc<Value>, StatusError> {
        let resource = &place.resource;
        self.require_namespace(place)?;
        let mut object = understand(place, body, manner)?;
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|it| !it.is_empty()) {
            return Err(StatusError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty)
            && let Some(prefix) = metadata["generateName"].as_str()
        {
            metadata["name"] = json!(generate_name(prefix));
        }
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let now = now();
        metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
        metadata["creationTimestamp"] = json!(now);
        if let Some(fields) = metadata.as_object_mut() {
            for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
                fields.remove(field);
            }
        }
        if resource.scope == Scope::Namespace {
            metadata["namespace"] = json!(place.namespace);
        }
        if has_generation(resource) {
            metadata["generation"] = json!(1);
        }
        if resource.has("status")
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        if !resource.is_custom() {
            admission::fill(&resource.kind, &mut object);
            object = settle(resource, object);
        }
        self.check(place, &name, &object, None)?;
        let key = Key { name: name.clone(), ..place.key() };
        if self.store.get(&key).is_some() {
            return Err(StatusError::already_exists(resource, &name));
        }
        if tracking == ManagedFieldsMode::Needed {
            let writer = Writer { manager: &manner.manager, operation: "Update", subresource: "" };
            managers::track(None, &mut object, &writer, hint(resource), &now);
        }
        if resource.kind == "CustomResourceDefinition" {
            object = definition::established(object, &now);
        }
        self.keep(key, object, manner)
    }

    /// Puts the next state of an object, or of its subresource, in place of the last.
    pub fn change(
        &mut self,
        place: &ResourcePath,
        next: Value,
        manner: &WriteOptions,
        tracking: ManagedFieldsMode,
    ) -> Result<Arc<Value>, StatusError> {
        let (resource, name) = (&place.resource, place.name.as_str());
        let old = self.get(place)?;
        let mut next = understand(place, next, manner)?;
        let version = next["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !version.is_empty() && old["metadata"]["resourceVersion"] != version {
            return Err(StatusError::modified(resource, name));
        }
        let uid = next["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() && old["metadata"]["uid"] != uid {
            let was = old["metadata"]["uid"].as_str().unwrap_or_default();
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {was}");
            return Err(StatusError::conflict(resource, name, &why));
        }
        restore(&mut next, &old, place);
        next = settle(resource, next);
        if let Some(wrong) = new_finalizers(&next, &old) {
            return Err(StatusError::invalid(resource, name, &[wrong]));
        }
        self.check(place, name, &next, Some(&old))?;
        if has_generation(resource) && place.subresource.is_empty() && spec_differs(&next, &old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
            next["metadata"]["generation"] = json!(generation + 1);
        }
        let now = now();
        if tracking == ManagedFieldsMode::Needed {
            let writer =
                Writer { manager: &manner.manager, operation: "Update", subresource: &place.subresource };
            managers::track(Some(&old), &mut next, &writer, hint(resource), &now);
        }
        if resource.kind == "CustomResourceDefinition" && place.subresource.is_empty() {
            next = definition::established(next, &now);
        }
        if next == *old {
            return Ok(old);
        }
        if !manner.dry_run && deletion::is_over(&next) {
            let key = place.key();
            self.store.put(key.clone(), next);
            return Ok(self.erase(&key).expect("it was put above"));
        }
        self.keep(place.key(), next, manner)
    }

    /// Changes an object as the server's own controllers do: no rules but those of deletion.
    pub fn amend(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let Some(old) = self.store.get(key).map(Arc::clone) else { return };
        let mut next = Value::clone(&old);
        change(&mut next);
        if next == *old {
            return;
        }
        let over = deletion::is_over(&next);
        self.store.put(key.clone(), next);
        if over {
            self.erase(key);
        }
    }

    /// Removes an object at once, with what it defined.
    pub fn erase(&mut self, key: &Key) -> Option<Arc<Value>> {
        if key.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            let instances: Vec<Key> = self.store.list(&key.name, None).map(|(key, _)| key.clone()).collect();
            instances.iter().for_each(|instance| drop(self.store.remove(instance)));
            self.resources.undefine(&key.name);
        }
        self.store.remove(key)
    }

    fn keep(&mut self, key: Key, object: Value, manner: &WriteOptions) -> Result<Arc<Value>, StatusError> {
        if object.to_string().len() > LARGEST {
            return Err(StatusError::etcd_too_large());
        }
        if manner.dry_run {
            return Ok(Arc::new(object));
        }
        if key.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            let resources = definition::resources(&object).expect("it was checked before");
            self.resources.define(&key.name, resources);
        }
        Ok(self.store.put(key, object))
    }

    fn require_namespace(&self, place: &ResourcePath) -> Result<(), StatusError> {
        if place.resource.scope == Scope::Cluster {
            return Ok(());
        }
        let namespaces = self.resources.find("", "v1", "namespaces").expect("a built-in resource");
        let key =
            Key { resource: namespaces.stored_as(), namespace: String::new(), name: place.namespace.clone() };
        let Some(namespace) = self.store.get(&key) else {
            return Err(StatusError::not_found(&namespaces, &place.namespace));
        };
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            place.namespace
        );
        Err(StatusError::forbidden(&place.resource, &place.name, &why))
    }

    fn check(
        &self,
        place: &ResourcePath,
        name: &str,
        object: &Value,
        before: Option<&Value>,
    ) -> Result<(), StatusError> {
        let resource = &place.resource;
        let mut wrongs = names::check(&object["metadata"], &resource.plural);
        if before.is_some() && object["metadata"]["resourceVersion"].is_null() && must_name_version(resource)
        {
            wrongs.push(StatusCause::invalid(
                "metadata.resourceVersion",
                &json!(0),
                "must be specified for an update",
            ));
        }
        match &resource.shape {
            Shape::Schema(schema) => wrongs.extend(schema.check(object, before)),
            Shape::Type(_) if resource.kind == "CustomResourceDefinition" => {
                wrongs.extend(definition::resources(object).err().into_iter().flatten());
            }
            Shape::Type(_) if place.subresource == "status" => {}
            Shape::Type(_) => wrongs.extend(admission::check(&resource.kind, object, before)),
        }
        if wrongs.is_empty() { Ok(()) } else { Err(StatusError::invalid(resource, name, &wrongs)) }
    }
}

/// How the lists of a resource merge.
pub fn hint(resource: &Resource) -> Hint<'_> {
    match &resource.shape {
        Shape::Type(_) => Hint::BuiltIn,
        Shape::Schema(schema) => Hint::Schema(&schema.source),
    }
}

/// Reads a body as an object of the place: right kind, right name, known fields, right types.
pub fn understand(
    place: &ResourcePath,
    mut body: Value,
    manner: &WriteOptions,
) -> Result<Value, StatusError> {
    let resource = &place.resource;
    if !body.is_object() {
        return Err(StatusError::bad_request("the body is not an object"));
    }
    for (field, wanted) in [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())] {
        match body[field].as_str() {
            None | Some("") => body[field] = json!(wanted),
            Some(is) if is == wanted => {}
            Some(is) => {
                let why =
                    format!("the {field} in the data ({is}) does not match the expected {field} ({wanted})");
                return Err(StatusError::bad_request(why));
            }
        }
    }
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if !place.name.is_empty() && !name.is_empty() && name != place.name {
        let why =
            format!("the name of the object ({name}) does not match the name on the URL ({})", place.name);
        return Err(StatusError::bad_request(why));
    }
    let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != place.namespace {
        let why = format!(
            "the namespace of the provided object does not match the namespace sent on the request ({namespace} is not {})",
            place.namespace
        );
        return Err(StatusError::bad_request(why));
    }
    let (object, dropped) = match &resource.shape {
        Shape::Schema(schema) => schema.prune_and_default(&body),
        Shape::Type(typed) => {
            let object = typed(body.clone()).map_err(|why| {
                let (kind, version) = (&resource.kind, &resource.version);
                let why = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}");
                StatusError::bad_request(why)
            })?;
            let mut dropped = Vec::new();
            unknown(&body, &object, "", &mut dropped);
            // Both groups' events are kept in the shape of the newer one.
            let is_core_event = resource.kind == "Event" && resource.group.is_empty();
            (if is_core_event { admission::event_from_core(object) } else { object }, dropped)
        }
    };
    if manner.strict && !dropped.is_empty() {
        let all: Vec<String> = dropped.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        let why = format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            all.join(", ")
        );
        return Err(StatusError::bad_request(why));
    }
    Ok(object)
}

/// An object of a built-in kind with its defaults, in the one way that its type is written.
fn settle(resource: &Resource, mut object: Value) -> Value {
    let Shape::Type(typed) = &resource.shape else { return object };
    admission::fill_defaults(&resource.kind, &mut object);
    if resource.stored_as() == "events" {
        // Kept in the shape of another type.
        return object;
    }
    typed(object).expect("what the server fills in fits the type")
}

/// The fields of a body that its type does not have.
fn unknown(body: &Value, object: &Value, path: &str, dropped: &mut Vec<String>) {
    match (body, object) {
        (Value::Object(body), Value::Object(object)) => {
            for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match object.get(name) {
                    Some(known) => unknown(value, known, &at, dropped),
                    // Empty lists and maps are as good as absent ones.
                    None if value.as_array().is_some_and(Vec::is_empty) => {}
                    None if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
                    None => dropped.push(at),
                }
            }
        }
        (Value::Array(body), Value::Array(object)) => {
            for (index, (body, object)) in body.iter().zip(object).enumerate() {
                unknown(body, object, &format!("{path}[{index}]"), dropped);
            }
        }
        _ => {}
    }
}

/// Takes over from the last state what nobody, or not this subresource, may change.
fn restore(next: &mut Value, old: &Value, place: &ResourcePath) {
    let owned = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "selfLink",
    ];
    let had_version = next["metadata"]["resourceVersion"].is_string();
    if place.subresource.is_empty() {
        copy(next, old, "metadata", &owned);
        if next["metadata"]["managedFields"].is_null() {
            next["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        }
        if place.resource.has("status") {
            let fields = next.as_object_mut().expect("an object");
            match old.get("status") {
                Some(status) => drop(fields.insert("status".to_owned(), status.clone())),
                None => drop(fields.remove("status")),
            }
        }
    } else {
        let (status, managers) = (next.get("status").cloned(), next["metadata"]["managedFields"].take());
        *next = old.clone();
        if !managers.is_null() {
            next["metadata"]["managedFields"] = managers;
        }
        let fields = next.as_object_mut().expect("an object");
        match status {
            Some(status) => drop(fields.insert("status".to_owned(), status)),
            None => drop(fields.remove("status")),
        }
    }
    if had_version || !must_name_version(&place.resource) {
        next["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    }
}

fn copy(next: &mut Value, old: &Value, part: &str, fields: &[&str]) {
    let Some(next) = next[part].as_object_mut() else { return };
    for &field in fields {
        match old[part].get(field) {
            Some(value) => drop(next.insert(field.to_owned(), value.clone())),
            None => drop(next.remove(field)),
        }
    }
}

fn new_finalizers(next: &Value, old: &Value) -> Option<StatusCause> {
    if old["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let had = old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let added = next["metadata"]["finalizers"].as_array().into_iter().flatten().any(|it| !had.contains(it));
    let why = "no new finalizers can be added if the object is being deleted";
    added.then(|| StatusCause::forbidden("metadata.finalizers", why))
}

fn has_generation(resource: &Resource) -> bool {
    let kinds = ["Job", "Pod", "CustomResourceDefinition", "NetworkPolicy"];
    resource.is_custom() || kinds.contains(&resource.kind.as_str())
}

/// Whether an update without a version is refused, rather than winning over everybody.
fn must_name_version(resource: &Resource) -> bool {
    resource.is_custom() || ["Lease", "CustomResourceDefinition"].contains(&resource.kind.as_str())
}

/// Whether anything but the metadata and the status differs.
fn spec_differs(next: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in ["metadata", "status"] {
            object[field].take();
        }
        object
    };
    rest(next) != rest(old)
}

/// A name as the server makes it: without vowels, so without words.
pub fn generate_name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    let letters =
        random.as_bytes().iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    // The whole name fits into a label.
    let prefix: String = prefix.chars().take(58).collect();
    prefix.chars().chain(letters.take(5)).collect()
}
