//! Field sets of server-side apply: maps by name, some lists by key.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The path from the root to a field: `f:name`, `k:{"name":"x"}` or `v:"value"`; a final `.` is the
/// item of a list itself.
pub type Path = Vec<String>;

/// A set of fields.
pub type Fields = BTreeSet<Path>;

/// How lists and maps are merged.
#[derive(Clone, Copy)]
pub enum Hint<'a> {
    /// A built-in type.
    BuiltIn,
    /// The schema of a definition.
    Schema(&'a Value),
}

enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

impl<'a> Hint<'a> {
    fn child(self, name: &str) -> Self {
        match self {
            Self::BuiltIn => Self::BuiltIn,
            Self::Schema(_) if name == "metadata" => Self::BuiltIn,
            Self::Schema(schema) => {
                Self::Schema(schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]))
            }
        }
    }

    fn item(self) -> Self {
        match self {
            Self::BuiltIn => self,
            Self::Schema(schema) => Self::Schema(&schema["items"]),
        }
    }

    fn list(self, name: &str) -> ListKind {
        let keys = |keys: &[&str]| ListKind::Map(keys.iter().map(|&key| key.to_owned()).collect());
        match self {
            Self::BuiltIn => match name {
                "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => keys(&["name"]),
                "volumeMounts" => keys(&["mountPath"]),
                "conditions" | "addresses" => keys(&["type"]),
                "ownerReferences" => keys(&["uid"]),
                "finalizers" => ListKind::Set,
                _ => ListKind::Atomic,
            },
            Self::Schema(schema) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListKind::Set,
                Some("map") => {
                    let named = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                    ListKind::Map(named.filter_map(|it| it.as_str().map(str::to_owned)).collect())
                }
                _ => ListKind::Atomic,
            },
        }
    }

    fn is_atomic_map(self) -> bool {
        matches!(self, Self::Schema(schema) if schema["x-kubernetes-map-type"] == "atomic")
    }
}

/// Returns the fields of an object that managers can own.
pub fn fields_of(object: &Value, hint: Hint<'_>) -> Fields {
    let mut fields = Fields::new();
    collect(object, hint, "", &mut Vec::new(), &mut fields);
    let server = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "selfLink",
    ];
    fields.retain(|path| {
        let steps: Vec<&str> = path.iter().map(|step| step.strip_prefix("f:").unwrap_or(step)).collect();
        match steps.as_slice() {
            ["apiVersion" | "kind"] => false,
            ["metadata", field, ..] => !server.contains(field),
            ["metadata"] => false,
            _ => true,
        }
    });
    fields
}

fn collect(value: &Value, hint: Hint<'_>, name: &str, path: &mut Path, fields: &mut Fields) {
    match value {
        Value::Object(map) if !map.is_empty() && !hint.is_atomic_map() => {
            for (name, value) in map {
                path.push(format!("f:{name}"));
                collect(value, hint.child(name), name, path, fields);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => match hint.list(name) {
            ListKind::Atomic => {
                fields.insert(path.clone());
            }
            ListKind::Set => {
                for item in items {
                    path.push(format!("v:{item}"));
                    fields.insert(path.clone());
                    path.pop();
                }
            }
            ListKind::Map(keys) => {
                for item in items {
                    path.push(key_step(item, &keys));
                    path.push(".".to_owned());
                    fields.insert(path.clone());
                    path.pop();
                    collect(item, hint.item(), "", path, fields);
                    path.pop();
                }
            }
        },
        _ => {
            fields.insert(path.clone());
        }
    }
}

fn key_step(item: &Value, keys: &[String]) -> String {
    let key: Map<String, Value> = keys.iter().map(|key| (key.clone(), item[key].clone())).collect();
    format!("k:{}", Value::Object(key))
}

fn is_item(item: &Value, step: &str) -> bool {
    if let Some(value) = step.strip_prefix("v:") {
        return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item);
    }
    let key: Value = serde_json::from_str(step.trim_start_matches("k:")).unwrap_or_default();
    key.as_object().is_some_and(|key| !key.is_empty() && key.iter().all(|(name, value)| item[name] == *value))
}

/// Returns the value of a field.
pub fn value_at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match step.strip_prefix("f:") {
        Some(name) => value.get(name),
        None if step == "." => Some(value),
        None => value.as_array()?.iter().find(|item| is_item(item, step)),
    })
}

/// Removes a field and its empty parents.
pub fn remove_at(object: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    let last = rest.is_empty() || rest == ["."];
    match (object, step.strip_prefix("f:")) {
        (Value::Object(map), Some(name)) => {
            let Some(child) = map.get_mut(name) else { return };
            if !last {
                remove_at(child, rest);
            }
            let empty =
                child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
            if last || empty {
                map.remove(name);
            }
        }
        (Value::Array(items), None) => {
            let Some(index) = items.iter().position(|item| is_item(item, step)) else { return };
            if !last {
                remove_at(&mut items[index], rest);
            }
            if last || items[index].as_object().is_some_and(Map::is_empty) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

/// Merges `from` into `onto`: lists with keys by key, others as a whole.
pub fn merge(onto: &mut Value, from: &Value, hint: Hint<'_>, name: &str) {
    match (onto, from) {
        (Value::Object(onto), Value::Object(from)) if !hint.is_atomic_map() => {
            for (name, value) in from.iter().filter(|(name, _)| !name.starts_with("$setElementOrder/")) {
                match onto.get_mut(name) {
                    _ if value.is_null() => {
                        onto.remove(name);
                    }
                    Some(existing) => merge(existing, value, hint.child(name), name),
                    None => {
                        onto.insert(name.clone(), without_nulls(value));
                    }
                }
            }
        }
        (onto @ Value::Array(_), Value::Array(items)) => merge_list(onto, items, hint, name),
        (onto, from) => *onto = without_nulls(from),
    }
}

fn merge_list(onto: &mut Value, items: &[Value], hint: Hint<'_>, name: &str) {
    let Value::Array(existing) = onto else { return };
    match hint.list(name) {
        ListKind::Atomic => *existing = items.to_vec(),
        ListKind::Set => {
            let new: Vec<Value> = items.iter().filter(|item| !existing.contains(item)).cloned().collect();
            existing.extend(new);
        }
        ListKind::Map(keys) => {
            for item in items {
                let step = key_step(item, &keys);
                let found = existing.iter().position(|it| is_item(it, &step));
                match found {
                    Some(index) if item["$patch"] == "delete" => {
                        existing.remove(index);
                    }
                    Some(index) => merge(&mut existing[index], item, hint.item(), ""),
                    None if item["$patch"] == "delete" => {}
                    None => existing.push(without_nulls(item)),
                }
            }
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// Converts to the `fieldsV1` format.
pub fn to_fields_v1(fields: &Fields) -> Value {
    let mut root = json!({});
    for path in fields {
        let mut place = &mut root;
        for step in path {
            place = &mut place[step.as_str()];
            if place.is_null() {
                *place = json!({});
            }
        }
    }
    root
}

/// Parses the `fieldsV1` format.
pub fn from_fields_v1(value: &Value) -> Fields {
    let mut fields = Fields::new();
    read(value, &mut Vec::new(), &mut fields);
    fields
}

fn read(value: &Value, path: &mut Path, fields: &mut Fields) {
    let inner = value.as_object().filter(|map| !map.is_empty());
    let Some(inner) = inner else {
        if !path.is_empty() {
            fields.insert(path.clone());
        }
        return;
    };
    for (step, value) in inner {
        path.push(step.clone());
        read(value, path, fields);
        path.pop();
    }
}

/// Formats a field for messages.
pub fn display(path: &[String]) -> String {
    let mut text = String::new();
    for step in path.iter().filter(|step| *step != ".") {
        match step.split_once(':') {
            Some(("f", name)) => text.extend([".", name]),
            Some((_, key)) => text.extend(["[", key.trim_matches(['{', '}']), "]"]),
            None => text.push_str(step),
        }
    }
    text
}
