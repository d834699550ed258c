//! The objects of the server, and the rules for changes.

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

/// Size limit of etcd.
const LARGEST: usize = 3 * 512 * 1024;

/// Options of a change.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Name of the field manager.
    pub manager: String,
    pub dry_run: bool,
    /// Lets apply take over fields of other managers.
    pub force: bool,
    /// Rejects unknown fields.
    pub strict: bool,
}

/// Whether managed fields are recorded already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ManagedFieldsMode {
    Needed,
    /// Apply recorded them.
    Done,
}

/// The complete state of the server.
pub struct ApiState {
    pub store: Store,
    pub resources: Resources,
}

/// Returns the current time in the format of objects.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl ApiState {
    /// Creates the namespaces that every cluster has.
    pub fn new() -> Self {
        let mut state = Self { store: Store::new(), resources: Resources::built_in() };
        let namespaces = state.resources.find("", "v1", "namespaces").expect("a built-in resource");
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let path = ResourcePath {
                resource: Arc::clone(&namespaces),
                namespace: String::new(),
                name: String::new(),
                subresource: String::new(),
            };
            let options = WriteOptions { manager: "kube-apiserver".to_owned(), ..WriteOptions::default() };
            state.create(&path, json!({"metadata": {"name": name}}), &options).expect("a namespace");
        }
        state
    }

    pub fn get(&self, path: &ResourcePath) -> Result<Arc<Value>, StatusError> {
        let found = self.store.get(&path.key()).map(Arc::clone);
        found.ok_or_else(|| StatusError::not_found(&path.resource, &path.name))
    }

    pub fn create(
        &mut self,
        path: &ResourcePath,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, StatusError> {
        let tracking = ManagedFieldsMode::Needed;
        self.create_tracked(path, body, options, tracking)
    }

    /// Creates an object with a choice of managed fields.
    pub fn create_tracked(
        &mut self,
        path: &ResourcePath,
        body: Value,
        options: &WriteOptions,
        tracking: ManagedFieldsMode,
    ) -> Result<Arc<Value>, StatusError> {
        let resource = &path.resource;
        self.require_namespace(path)?;
        let mut object = understand(path, body, options)?;
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
            metadata["namespace"] = json!(path.namespace);
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
        self.check(path, &name, &object, None)?;
        let key = Key { name: name.clone(), ..path.key() };
        if self.store.get(&key).is_some() {
            return Err(StatusError::already_exists(resource, &name));
        }
        if tracking == ManagedFieldsMode::Needed {
            let writer = Writer { manager: &options.manager, operation: "Update", subresource: "" };
            managers::track(None, &mut object, &writer, hint(resource), &now);
        }
        if resource.kind == "CustomResourceDefinition" {
            object = definition::established(object, &now);
        }
        self.keep(key, object, options)
    }

    /// Replaces an object or its subresource.
    pub fn change(
        &mut self,
        path: &ResourcePath,
        next: Value,
        options: &WriteOptions,
        tracking: ManagedFieldsMode,
    ) -> Result<Arc<Value>, StatusError> {
        let (resource, name) = (&path.resource, path.name.as_str());
        let old = self.get(path)?;
        let mut next = understand(path, next, options)?;
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
        restore(&mut next, &old, path);
        next = settle(resource, next);
        if let Some(wrong) = new_finalizers(&next, &old) {
            return Err(StatusError::invalid(resource, name, &[wrong]));
        }
        self.check(path, name, &next, Some(&old))?;
        if has_generation(resource) && path.subresource.is_empty() && spec_differs(&next, &old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
            next["metadata"]["generation"] = json!(generation + 1);
        }
        let now = now();
        if tracking == ManagedFieldsMode::Needed {
            let writer =
                Writer { manager: &options.manager, operation: "Update", subresource: &path.subresource };
            managers::track(Some(&old), &mut next, &writer, hint(resource), &now);
        }
        if resource.kind == "CustomResourceDefinition" && path.subresource.is_empty() {
            next = definition::established(next, &now);
        }
        if next == *old {
            return Ok(old);
        }
        if !options.dry_run && deletion::is_over(&next) {
            let key = path.key();
            self.store.put(key.clone(), next);
            return Ok(self.erase(&key).expect("it was put above"));
        }
        self.keep(path.key(), next, options)
    }

    /// Changes an object as a built-in controller: only the rules of deletion apply.
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

    /// Removes an object and the resources that it defined.
    pub fn erase(&mut self, key: &Key) -> Option<Arc<Value>> {
        if key.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            let instances: Vec<Key> = self.store.list(&key.name, None).map(|(key, _)| key.clone()).collect();
            instances.iter().for_each(|instance| drop(self.store.remove(instance)));
            self.resources.undefine(&key.name);
        }
        self.store.remove(key)
    }

    fn keep(&mut self, key: Key, object: Value, options: &WriteOptions) -> Result<Arc<Value>, StatusError> {
        if object.to_string().len() > LARGEST {
            return Err(StatusError::etcd_too_large());
        }
        if options.dry_run {
            return Ok(Arc::new(object));
        }
        if key.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            let resources = definition::resources(&object).expect("it was checked before");
            self.resources.define(&key.name, resources);
        }
        Ok(self.store.put(key, object))
    }

    fn require_namespace(&self, path: &ResourcePath) -> Result<(), StatusError> {
        if path.resource.scope == Scope::Cluster {
            return Ok(());
        }
        let namespaces = self.resources.find("", "v1", "namespaces").expect("a built-in resource");
        let key =
            Key { resource: namespaces.stored_as(), namespace: String::new(), name: path.namespace.clone() };
        let Some(namespace) = self.store.get(&key) else {
            return Err(StatusError::not_found(&namespaces, &path.namespace));
        };
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            path.namespace
        );
        Err(StatusError::forbidden(&path.resource, &path.name, &why))
    }

    fn check(
        &self,
        path: &ResourcePath,
        name: &str,
        object: &Value,
        before: Option<&Value>,
    ) -> Result<(), StatusError> {
        let resource = &path.resource;
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
            Shape::Type(_) if path.subresource == "status" => {}
            Shape::Type(_) => wrongs.extend(admission::check(&resource.kind, object, before)),
        }
        if wrongs.is_empty() { Ok(()) } else { Err(StatusError::invalid(resource, name, &wrongs)) }
    }
}

/// Returns how the lists of a resource are merged.
pub fn hint(resource: &Resource) -> Hint<'_> {
    match &resource.shape {
        Shape::Type(_) => Hint::BuiltIn,
        Shape::Schema(schema) => Hint::Schema(&schema.source),
    }
}

/// Parses a body as an object of the path: kind, name, known fields and types.
pub fn understand(
    path: &ResourcePath,
    mut body: Value,
    options: &WriteOptions,
) -> Result<Value, StatusError> {
    let resource = &path.resource;
    if !body.is_object() {
        return Err(StatusError::bad_request("the body is not an object"));
    }
    for (field, expected) in [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())] {
        match body[field].as_str() {
            None | Some("") => body[field] = json!(expected),
            Some(is) if is == expected => {}
            Some(is) => {
                let why = format!(
                    "the {field} in the data ({is}) does not match the expected {field} ({expected})"
                );
                return Err(StatusError::bad_request(why));
            }
        }
    }
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if !path.name.is_empty() && !name.is_empty() && name != path.name {
        let why =
            format!("the name of the object ({name}) does not match the name on the URL ({})", path.name);
        return Err(StatusError::bad_request(why));
    }
    let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != path.namespace {
        let why = format!(
            "the namespace of the provided object does not match the namespace sent on the request ({namespace} is not {})",
            path.namespace
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
            // Events of both groups are stored in the form of the newer one.
            let is_core_event = resource.kind == "Event" && resource.group.is_empty();
            (if is_core_event { admission::event_from_core(object) } else { object }, dropped)
        }
    };
    if options.strict && !dropped.is_empty() {
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

/// Returns an object of a built-in kind with the serialization of its type.
fn settle(resource: &Resource, mut object: Value) -> Value {
    let Shape::Type(typed) = &resource.shape else { return object };
    admission::fill_defaults(&resource.kind, &mut object);
    if resource.stored_as() == "events" {
        // Stored in the form of another type.
        return object;
    }
    typed(object).expect("what the server fills in fits the type")
}

/// Collects the fields of a body that its type does not have.
fn unknown(body: &Value, object: &Value, path: &str, dropped: &mut Vec<String>) {
    match (body, object) {
        (Value::Object(body), Value::Object(object)) => {
            for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match object.get(name) {
                    Some(known) => unknown(value, known, &at, dropped),
                    // Empty lists and maps equal absent ones.
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

/// Restores the fields that a client, or this subresource, cannot change.
fn restore(next: &mut Value, old: &Value, path: &ResourcePath) {
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
    if path.subresource.is_empty() {
        copy(next, old, "metadata", &owned);
        if next["metadata"]["managedFields"].is_null() {
            next["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        }
        if path.resource.has("status") {
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
    if had_version || !must_name_version(&path.resource) {
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

/// Returns whether an update without a version is rejected.
fn must_name_version(resource: &Resource) -> bool {
    resource.is_custom() || ["Lease", "CustomResourceDefinition"].contains(&resource.kind.as_str())
}

/// Returns whether anything but metadata and status differs.
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

/// Generates a name without vowels, like the real server.
pub fn generate_name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    let letters =
        random.as_bytes().iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    // The whole name fits into a label.
    let prefix: String = prefix.chars().take(58).collect();
    prefix.chars().chain(letters.take(5)).collect()
}
