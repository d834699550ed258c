//! Reads `tasks.json`, with and without tags.

use std::collections::BTreeMap;

use orchestrator_contract::TaskId;
use serde_json::Value;

use super::entry::{Entry, read_entry};
use super::error::DocumentsError;
use super::fields::describe;
use super::json;

/// Tags to prefer, in this order; then `master`, then the only one.
#[derive(Clone, Copy, Debug, Default)]
pub struct TagPreference<'a> {
    pub service: &'a str,
    /// Current tag according to `state.json`.
    pub current: Option<&'a str>,
    /// Default tag according to `config.json`.
    pub default: Option<&'a str>,
}

/// Tasks of the selected tag.
#[derive(Clone, Debug)]
pub struct TasksFile {
    /// Path of the file.
    pub path: String,
    /// Selected tag, or `None` if the file has no tags.
    pub tag: Option<String>,
    pub list: TaskList,
    others: BTreeMap<String, TaskList>,
    /// Oddities of the file itself, one sentence each.
    pub(super) notes: Vec<String>,
}

/// List of tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskList {
    /// Tasks, in the order of the file.
    pub tasks: Vec<Entry>,
    /// Entries with faults.
    pub(super) odd: Vec<OddEntry>,
}

/// Entry with fields of the wrong type, which are read as if they were absent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OddEntry {
    /// Id; without one the entry is skipped.
    pub(super) id: Option<String>,
    /// Position in the list.
    pub(super) position: usize,
    pub(super) faults: Vec<String>,
}

impl TasksFile {
    /// Parses the file and selects a tag.
    ///
    /// # Errors
    /// Returns an error if the text is malformed, has no list of tasks, or if the tag is ambiguous.
    pub fn parse(path: &str, text: &str, preference: TagPreference<'_>) -> Result<Self, DocumentsError> {
        let unusable = |problem: String| DocumentsError::Unusable { path: path.to_owned(), problem };
        let value = json::parse(path, text)?;
        let Value::Object(top) = value else {
            let problem = format!("it is {}, expected an object with `tasks` or tags", describe(&value));
            return Err(unusable(problem));
        };
        let mut tags = BTreeMap::new();
        let mut root = None;
        for (name, mut value) in top {
            if let Some(fields) = value.as_object_mut() {
                tags.extend(fields.remove("tasks").map(|tasks| (name, tasks)));
            } else if name == "tasks" {
                root = Some(value);
            }
        }
        let has_tags = tags.values().any(Value::is_array);
        if let Some(root) = root.as_ref().filter(|_| !has_tags) {
            let list = read_list(root).map_err(|problem| unusable(format!("`tasks` {problem}")))?;
            let (path, others, notes) = (path.to_owned(), BTreeMap::new(), Vec::new());
            return Ok(Self { path, tag: None, list, others, notes });
        }
        let tag = select_tag(path, &tags, preference)?;
        let mut notes = Vec::new();
        if root.is_some() {
            notes.push(format!(
                "the tasks of `{path}` outside of its tags were ignored; tag `{tag}` was used"
            ));
        }
        let mut list = TaskList::default();
        let mut others = BTreeMap::new();
        for (name, tasks) in tags {
            match read_list(&tasks) {
                Ok(read) if name == tag => list = read,
                Ok(read) => drop(others.insert(name, read)),
                Err(problem) if name == tag && !tasks.is_null() => {
                    return Err(unusable(format!("`{name}.tasks` {problem}")));
                }
                Err(problem) => notes.push(format!("`{name}.tasks` of `{path}` {problem}")),
            }
        }
        Ok(Self { path: path.to_owned(), tag: Some(tag), list, others, notes })
    }

    /// Returns the requested task.
    ///
    /// # Errors
    /// Returns an error if the list does not have it, or if it has faults.
    pub fn requested(&self, task: TaskId) -> Result<&Entry, DocumentsError> {
        let ambiguous = |ids| DocumentsError::AmbiguousId { file: self.path.clone(), task, ids };
        let Some(entry) = self.list.find(task).map_err(ambiguous)? else {
            return Err(DocumentsError::TaskNotFound {
                file: self.path.clone(),
                task,
                tag: self.tag.clone(),
                ids: self.list.tasks.iter().map(|task| task.id.clone()).collect(),
                other_tags: self.tags_with(task),
                skipped: self.list.skipped(),
            });
        };
        let odd = self.list.odd.iter().find(|odd| odd.id.as_ref() == Some(&entry.id));
        match odd.and_then(|odd| odd.faults.first()) {
            Some(problem) => Err(DocumentsError::InvalidEntry {
                file: self.path.clone(),
                id: entry.id.clone(),
                problem: problem.clone(),
            }),
            None => Ok(entry),
        }
    }

    /// Returns the other tags that have a task.
    fn tags_with(&self, task: TaskId) -> Vec<String> {
        let has_task = |list: &TaskList| list.find(task).is_ok_and(|found| found.is_some());
        self.others.iter().filter(|(_, list)| has_task(list)).map(|(tag, _)| tag.clone()).collect()
    }
}

impl TaskList {
    /// Returns whether the list has no entry, not even one that was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.odd.is_empty()
    }

    /// Returns the task with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.tasks.iter().find(|task| task.id == id)
    }

    /// Returns the task with this id, or with this number in a prefixed id; an error has several such ids.
    fn find(&self, task: TaskId) -> Result<Option<&Entry>, Vec<String>> {
        if let Some(entry) = self.get(&task.to_string()) {
            return Ok(Some(entry));
        }
        let mut found = self.tasks.iter().filter(|entry| entry.number() == Some(task.get()));
        let Some(first) = found.next() else { return Ok(None) };
        let mut ids = vec![first.id.clone()];
        ids.extend(found.filter(|other| other.id != first.id).map(|other| other.id.clone()));
        if ids.len() > 1 {
            return Err(ids);
        }
        Ok(Some(first))
    }

    /// Returns where the entries without an id are.
    fn skipped(&self) -> Vec<String> {
        self.odd.iter().filter(|odd| odd.id.is_none()).map(|odd| format!("tasks[{}]", odd.position)).collect()
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

fn select_tag(
    path: &str,
    tags: &BTreeMap<String, Value>,
    preference: TagPreference<'_>,
) -> Result<String, DocumentsError> {
    let TagPreference { service, current, default } = preference;
    let only = || if tags.len() == 1 { tags.keys().next().map(String::as_str) } else { None };
    let exists = |tag: &&str| tags.contains_key(*tag);
    // If the current tag is missing in the file, selecting another one would be a guess.
    let fallback = || default.filter(exists).or(Some("master").filter(exists)).filter(|_| current.is_none());
    let chosen = Some(service).filter(exists).or(current.filter(exists)).or_else(fallback).or_else(only);
    if let Some(tag) = chosen {
        return Ok(tag.to_owned());
    }
    if tags.is_empty() {
        let problem = "it has neither `tasks` nor tags that have `tasks`".to_owned();
        return Err(DocumentsError::Unusable { path: path.to_owned(), problem });
    }
    let (current, tags) = (current.map(str::to_owned), tags.keys().cloned().collect());
    Err(DocumentsError::AmbiguousTag { path: path.to_owned(), current, tags })
}

/// Reads a list of tasks, or says why it is none.
fn read_list(value: &Value) -> Result<TaskList, String> {
    let Value::Array(values) = value else {
        return Err(format!("is {}, expected a list of tasks", describe(value)));
    };
    let mut list = TaskList::default();
    for (position, value) in values.iter().enumerate() {
        let (entry, faults) = match value {
            Value::Object(object) => read_entry(object.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                (None, vec![format!("it is {}, expected an object", describe(value))])
            }
        };
        if !faults.is_empty() {
            list.odd.push(OddEntry { id: entry.as_ref().map(|entry| entry.id.clone()), position, faults });
        }
        list.tasks.extend(entry);
    }
    Ok(list)
}
