//! Reads `tasks.json`, with and without tags.

use std::collections::BTreeMap;

use orchestrator_contract::TaskId;
use serde_json::Value;

use super::entry::Entry;
use super::error::DocumentsError;
use super::fields::describe;
use super::json;
use super::limits::{Notes, shorten};
use super::task_list::TaskList;

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
        let (root, outside) = if has_tags { (None, root.is_some()) } else { (root, false) };
        if let Some(root) = root {
            let list = TaskList::read(root).map_err(|problem| unusable(format!("`tasks` {problem}")))?;
            let (path, others, notes) = (path.to_owned(), BTreeMap::new(), Vec::new());
            return Ok(Self { path, tag: None, list, others, notes });
        }
        let tag = select_tag(path, &tags, preference)?;
        let shown = shorten(&tag);
        let mut notes = Vec::new();
        if outside {
            notes.push(format!(
                "the tasks of `{path}` outside of its tags were ignored; tag `{shown}` was used"
            ));
        }
        let missing = preference.current.filter(|current| !tags.contains_key(*current));
        if let Some(current) = missing.filter(|_| tag != preference.service) {
            let current = shorten(current);
            notes.push(format!("`{path}` has no tag `{current}`, which is current; tag `{shown}` was used"));
        }
        let mut unusable_tags = Notes::default();
        let mut list = TaskList::default();
        let mut others = BTreeMap::new();
        for (name, tasks) in tags {
            let is_null = tasks.is_null();
            match TaskList::read(tasks) {
                Ok(read) if name == tag => list = read,
                Ok(read) => drop(others.insert(name, read)),
                Err(problem) if name == tag && !is_null => {
                    return Err(unusable(format!("`{}.tasks` {problem}", shorten(&name))));
                }
                Err(problem) => {
                    unusable_tags.push(|| format!("`{}.tasks` of `{path}` {problem}", shorten(&name)));
                }
            }
        }
        notes.extend(
            unusable_tags.finish(|more| format!("{more} more tags of `{path}` have no list of tasks")),
        );
        Ok(Self { path: path.to_owned(), tag: Some(tag), list, others, notes })
    }

    /// Returns the requested task.
    ///
    /// # Errors
    /// Returns an error if the list does not have it, or if it has faults.
    pub fn requested(&self, task: TaskId) -> Result<&Entry, DocumentsError> {
        let ambiguous = |ids| DocumentsError::AmbiguousId { file: self.path.clone(), task, ids };
        let found = self.list.find(task).map_err(ambiguous)?;
        let Some((entry, fault)) = found else { return Err(self.not_found(task)) };
        match fault {
            Some(problem) => Err(DocumentsError::InvalidEntry {
                file: self.path.clone(),
                id: entry.id.clone(),
                problem: problem.to_owned(),
            }),
            None => Ok(entry),
        }
    }

    fn not_found(&self, task: TaskId) -> DocumentsError {
        DocumentsError::TaskNotFound {
            file: self.path.clone(),
            task,
            tag: self.tag.clone(),
            ids: self.list.tasks.iter().map(|task| task.id.clone()).collect(),
            other_tags: self.tags_with(task),
            skipped: Box::new(self.list.skipped().clone()),
        }
    }

    /// Returns the other tags that have a task.
    fn tags_with(&self, task: TaskId) -> Vec<String> {
        let has_task = |list: &TaskList| list.find(task).is_ok_and(|found| found.is_some());
        self.others.iter().filter(|(_, list)| has_task(list)).map(|(tag, _)| tag.clone()).collect()
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
