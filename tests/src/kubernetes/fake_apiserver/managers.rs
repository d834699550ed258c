//! Field managers: conflicts of apply, and fields that apply removes.

use serde_json::{Value, json};

use super::fields::{
    Fields, Hint, display, fields_of, from_fields_v1, merge, remove_at, to_fields_v1, value_at,
};
use super::status_error::StatusError;

/// The writer of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Writer<'a> {
    /// Name of the field manager.
    pub manager: &'a str,
    /// `Apply` or `Update`.
    pub operation: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

struct Entry {
    value: Value,
    fields: Fields,
}

impl Entry {
    fn is_of(&self, writer: &Writer<'_>) -> bool {
        self.value["manager"] == writer.manager
            && self.value["operation"] == writer.operation
            && self.value["subresource"].as_str().unwrap_or_default() == writer.subresource
    }
}

/// Records that `writer` changed `before` to `after`; returns whether a field changed.
pub fn track(
    before: Option<&Value>,
    after: &mut Value,
    writer: &Writer<'_>,
    hint: Hint<'_>,
    now: &str,
) -> bool {
    let nothing = json!({});
    let old = before.unwrap_or(&nothing);
    let fields = fields_of(after, hint);
    let is_new =
        |path: &&Vec<String>| value_at(old, path) != value_at(after, path) || value_at(old, path).is_none();
    // A change inside of a list item does not change the item itself.
    let changed: Fields = fields
        .iter()
        .filter(|path| {
            if path.last().is_some_and(|it| it == ".") { value_at(old, path).is_none() } else { is_new(path) }
        })
        .cloned()
        .collect();
    let removed = fields_of(old, hint).difference(&fields).next().is_some();
    let mut entries = entries(old);
    for entry in &mut entries {
        entry.fields.retain(|path| fields.contains(path) || has_below(&fields, path));
        if !entry.is_of(writer) {
            entry.fields.retain(|path| !changed.contains(path));
        }
    }
    if !changed.is_empty() {
        add(&mut entries, writer, changed.clone(), now);
    }
    write(after, entries);
    !changed.is_empty() || removed
}

/// Returns whether a field lies below a path.
fn has_below(fields: &Fields, path: &[String]) -> bool {
    fields.range(path.to_vec()..).next().is_some_and(|it| it.starts_with(path))
}

/// Returns the object after `writer` applies `wanted`; `None` if it does not exist yet.
pub fn apply(
    live: Option<&Value>,
    expected: &Value,
    writer: &Writer<'_>,
    hint: Hint<'_>,
    force: bool,
    now: &str,
) -> Result<Value, StatusError> {
    let nothing = json!({});
    let old = live.unwrap_or(&nothing);
    let wants = fields_of(expected, hint);
    let mut entries = entries(old);
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !entry.is_of(writer)) {
        let differs = |path: &&Vec<String>| {
            path.last().is_none_or(|it| it != ".") && value_at(old, path) != value_at(expected, path)
        };
        let disputed: Vec<_> = entry.fields.intersection(&wants).filter(differs).cloned().collect();
        for path in disputed {
            conflicts.push((describe(&entry.value), display(&path)));
            entry.fields.remove(&path);
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(StatusError::apply_conflict(&conflicts));
    }
    let mut next = old.clone();
    let mine = entries.iter().find(|entry| entry.is_of(writer)).map(|entry| entry.fields.clone());
    let given_up: Vec<_> = mine.iter().flatten().filter(|path| !wants.contains(*path)).cloned().collect();
    for path in given_up {
        if !entries.iter().any(|entry| !entry.is_of(writer) && entry.fields.contains(&path)) {
            remove_at(&mut next, &path);
        }
    }
    merge(&mut next, expected, hint, "");
    let same = mine.as_ref() == Some(&wants);
    if let Some(entry) = entries.iter_mut().find(|entry| entry.is_of(writer)) {
        entry.fields = wants;
        if !same {
            entry.value["time"] = json!(now);
        }
    } else {
        add(&mut entries, writer, wants, now);
    }
    write(&mut next, entries);
    Ok(next)
}

fn describe(entry: &Value) -> String {
    let manager = entry["manager"].as_str().unwrap_or_default();
    match (entry["subresource"].as_str(), entry["operation"].as_str()) {
        (Some(subresource), Some("Apply")) => format!("{manager}\" with subresource \"{subresource}"),
        _ => manager.to_owned(),
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let listed = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    listed.map(|value| Entry { value: value.clone(), fields: from_fields_v1(&value["fieldsV1"]) }).collect()
}

fn add(entries: &mut Vec<Entry>, writer: &Writer<'_>, fields: Fields, now: &str) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.is_of(writer)) {
        entry.fields.extend(fields);
        entry.value["time"] = json!(now);
        return;
    }
    let mut value = json!({
        "manager": writer.manager, "operation": writer.operation, "fieldsType": "FieldsV1", "time": now,
    });
    if !writer.subresource.is_empty() {
        value["subresource"] = json!(writer.subresource);
    }
    entries.push(Entry { value, fields });
}

/// Writes the entries that still have fields into the object.
fn write(object: &mut Value, entries: Vec<Entry>) {
    let api_version = object["apiVersion"].clone();
    let list: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|mut entry| {
            if entry.value["apiVersion"].is_null() {
                entry.value["apiVersion"] = api_version.clone();
            }
            entry.value["fieldsV1"] = to_fields_v1(&entry.fields);
            entry.value
        })
        .collect();
    object["metadata"]["managedFields"] = json!(list);
}
