//! Parses `tasks.json`, with and without tags, and `state.json`.
//!
//! Unknown fields are retained: Task Master adds some with every release. Ids and dependencies are
//! numbers or strings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::DocumentsError;

/// Tasks of the selected tag.
#[derive(Clone, Debug)]
pub struct TasksFile {
    /// Selected tag, or `None` if the file has no tags.
    pub tag: Option<String>,
    pub list: TaskList,
    others: BTreeMap<String, TaskList>,
}

impl TasksFile {
    /// Parses the file and selects a tag: the service's, the current one, `master`, the only one.
    ///
    /// # Errors
    /// Returns an error, with line and column, if the text is malformed, or if the tag is ambiguous.
    pub fn parse(
        path: &str,
        text: &str,
        service: &str,
        current: Option<&str>,
    ) -> Result<Self, DocumentsError> {
        parse(path, text, service, current)
    }

    /// Returns the other tags that have a task with this id.
    #[must_use]
    pub fn tags_with(&self, id: &str) -> Vec<String> {
        self.others.iter().filter(|(_, list)| list.get(id).is_some()).map(|(tag, _)| tag.clone()).collect()
    }
}

/// List of tasks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TaskList {
    /// Tasks, in the order of the file.
    pub tasks: Vec<Entry>,
}

impl TaskList {
    /// Returns the task with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.tasks.iter().find(|task| task.id == id)
    }

    /// Returns the ids of all tasks.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.id.clone()).collect()
    }

    /// Returns title and status of a task (`2`) or a subtask (`2.1`).
    pub(super) fn title_and_status(&self, id: &str) -> Option<(Option<String>, Option<String>)> {
        if let Some(task) = self.get(id) {
            return Some((Some(task.title.clone()), task.status.clone()));
        }
        let (parent, child) = id.split_once('.')?;
        let subtask = self.get(parent)?.subtasks.iter().find(|subtask| subtask.id == child)?;
        Some((Some(subtask.title.clone()), subtask.status.clone()))
    }
}

/// Task in `tasks.json`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(deserialize_with = "id")]
    pub id: String,
    #[serde(default, deserialize_with = "text")]
    pub title: String,
    #[serde(default, deserialize_with = "optional_text")]
    pub description: Option<String>,
    /// Implementation details.
    #[serde(default, deserialize_with = "optional_text")]
    pub details: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    pub test_strategy: Option<String>,
    /// `pending`, `in-progress`, `done` and others.
    #[serde(default, deserialize_with = "optional_text")]
    pub status: Option<String>,
    /// `high`, `medium`, `low`.
    #[serde(default, deserialize_with = "optional_text")]
    pub priority: Option<String>,
    /// Ids of tasks (`2`) and subtasks (`2.1`).
    #[serde(default, deserialize_with = "ids")]
    pub dependencies: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub subtasks: Vec<Subtask>,
    /// Other fields, for the agent.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Subtask in `tasks.json`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Subtask {
    /// Id within the task.
    #[serde(deserialize_with = "id")]
    pub id: String,
    #[serde(default, deserialize_with = "text")]
    pub title: String,
    #[serde(default, deserialize_with = "optional_text")]
    pub description: Option<String>,
    /// Implementation details.
    #[serde(default, deserialize_with = "optional_text")]
    pub details: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    pub test_strategy: Option<String>,
    /// `pending`, `in-progress`, `done` and others.
    #[serde(default, deserialize_with = "optional_text")]
    pub status: Option<String>,
    /// Ids of subtasks of the same task (`1`) and of others (`2.1`).
    #[serde(default, deserialize_with = "ids")]
    pub dependencies: Vec<String>,
    /// Other fields, for the agent.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Parses the current tag of Task Master (`currentTag` in `state.json`).
pub(super) fn parse_current_tag(path: &str, text: &str) -> Result<Option<String>, DocumentsError> {
    #[derive(Deserialize)]
    struct State {
        #[serde(default, rename = "currentTag", deserialize_with = "optional_text")]
        current_tag: Option<String>,
    }
    let state: State = serde_json::from_str(text).map_err(|error| malformed(path, text, text, &error))?;
    Ok(state.current_tag)
}

fn parse(path: &str, text: &str, service: &str, current: Option<&str>) -> Result<TasksFile, DocumentsError> {
    let top: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| malformed(path, text, text, &error))?;
    let list_of = |raw: &RawValue| {
        serde_json::from_str::<TaskList>(raw.get()).map_err(|error| malformed(path, text, raw.get(), &error))
    };
    if let Some(tasks) = top.get("tasks").filter(|raw| !raw.get().starts_with('{')) {
        let tasks =
            serde_json::from_str(tasks.get()).map_err(|error| malformed(path, text, tasks.get(), &error))?;
        return Ok(TasksFile { tag: None, list: TaskList { tasks }, others: BTreeMap::new() });
    }
    let has_tasks = |raw: &RawValue| {
        serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(raw.get())
            .is_ok_and(|fields| fields.contains_key("tasks"))
    };
    let tags: BTreeMap<String, &RawValue> = top.into_iter().filter(|(_, raw)| has_tasks(raw)).collect();
    let only = || if tags.len() == 1 { tags.keys().next().map(String::as_str) } else { None };
    let exists = |tag: &&str| tags.contains_key(*tag);
    let chosen = Some(service).filter(exists).or(current.filter(exists));
    // If the current tag is missing in the file, selecting `master` would be a guess.
    let chosen =
        chosen.or_else(|| Some("master").filter(|tag| current.is_none() && exists(tag))).or_else(only);
    let Some(tag) = chosen.map(str::to_owned) else {
        if tags.is_empty() {
            let expected = "expected `tasks`, or tags that have `tasks`".to_owned();
            return Err(DocumentsError::Malformed { path: path.to_owned(), line: 1, column: 1, expected });
        }
        let (current, tags) = (current.map(str::to_owned), tags.into_keys().collect());
        return Err(DocumentsError::AmbiguousTag { path: path.to_owned(), current, tags });
    };
    let mut list = TaskList::default();
    let mut others = BTreeMap::new();
    for (name, raw) in tags {
        if name == tag {
            list = list_of(raw)?;
        } else if let Ok(other) = list_of(raw) {
            // Used only for error messages, so a malformed tag is not an error.
            others.insert(name, other);
        }
    }
    Ok(TasksFile { tag: Some(tag), list, others })
}

/// Returns the error with its position in the whole text, of which `part` is a slice.
fn malformed(path: &str, text: &str, part: &str, error: &serde_json::Error) -> DocumentsError {
    // `part` is borrowed from `text`.
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.get(..offset).unwrap_or_default();
    let lines_before = before.matches('\n').count();
    let column_before = before.rsplit('\n').next().unwrap_or_default().len();
    let column = if error.line() <= 1 { column_before + error.column() } else { error.column() };
    let message = error.to_string();
    let expected = message.rfind(" at line ").and_then(|end| message.get(..end)).unwrap_or(&message);
    DocumentsError::Malformed {
        path: path.to_owned(),
        line: lines_before + error.line().max(1),
        column: column.max(1),
        expected: expected.to_owned(),
    }
}

fn id_of<E: serde::de::Error>(value: &Value) -> Result<String, E> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        // An empty string is invalid too.
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(E::custom(format!("invalid id {value}, expected a number or a string")))
        }
    }
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    id_of(&Value::deserialize(deserializer)?)
}

fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values: Option<Vec<Value>> = Option::deserialize(deserializer)?;
    values.unwrap_or_default().iter().map(id_of).collect()
}

fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Subtask>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(optional_text(deserializer)?.unwrap_or_default())
}

/// Reads a string, a number, or a list of lines; an empty text is `None`.
fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let line = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(D::Error::custom(format!("invalid type {value}, expected a text")))
        }
    };
    let text = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::Array(lines) => lines.iter().map(line).collect::<Result<Vec<_>, _>>()?.join("\n"),
        single @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => line(&single)?,
    };
    Ok((!text.trim().is_empty()).then_some(text))
}
