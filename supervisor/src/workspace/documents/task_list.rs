//! Tasks of a tag, with an index by their ids.

use std::collections::BTreeMap;

use orchestrator_contract::TaskId;
use serde_json::Value;

use super::entry::{Entry, read_entry};
use super::error::SkippedEntries;
use super::fields::{Faults, describe};

/// Maximum entries with faults to describe.
const MAX_ODD: usize = 5;

/// Maximum positions of entries without an id.
const MAX_SKIPPED: usize = 50;

/// List of tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskList {
    /// Tasks, in the order of the file.
    pub tasks: Vec<Entry>,
    /// First entries with faults.
    pub(super) odd: Vec<OddEntry>,
    pub(super) odd_count: usize,
    /// First fault of a task, by its position in `tasks`.
    faults: BTreeMap<usize, String>,
    /// Positions of the first entries without an id.
    skipped: SkippedEntries,
    /// First position in `tasks` of an id.
    by_id: BTreeMap<String, usize>,
    /// First position of each id with a number.
    by_number: BTreeMap<u32, Vec<usize>>,
    /// Position of a task and of its subtask, by the id `2.1`.
    subtasks: BTreeMap<String, (usize, usize)>,
}

/// Entry with fields of the wrong type, which are read as if they were absent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OddEntry {
    /// Id; without one the entry is skipped.
    pub(super) id: Option<String>,
    /// Position in the file.
    pub(super) position: usize,
    pub(super) faults: Faults,
}

/// Task or subtask that has an id.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub title: &'a str,
    pub status: Option<&'a str>,
    pub description: Option<&'a str>,
}

impl TaskList {
    /// Reads a list of tasks, or returns why the value is none.
    pub(super) fn read(value: Value) -> Result<Self, String> {
        let Value::Array(values) = value else {
            return Err(format!("is {}, expected a list of tasks", describe(&value)));
        };
        let mut list = Self::default();
        for (position, value) in values.into_iter().enumerate() {
            let (entry, faults) = match value {
                Value::Object(object) => read_entry(object),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    let mut faults = Faults::default();
                    faults.push(|| format!("it is {}, expected an object", describe(&value)));
                    (None, faults)
                }
            };
            list.add(position, entry, faults);
        }
        Ok(list)
    }

    fn add(&mut self, position: usize, entry: Option<Entry>, faults: Faults) {
        if let Some(first) = faults.first.first() {
            if entry.is_some() {
                self.faults.insert(self.tasks.len(), first.clone());
            }
            if self.odd.len() < MAX_ODD {
                let id = entry.as_ref().map(|entry| entry.id.clone());
                self.odd.push(OddEntry { id, position, faults });
            }
            self.odd_count += 1;
        }
        let Some(entry) = entry else {
            if self.skipped.positions.len() < MAX_SKIPPED {
                self.skipped.positions.push(position);
            }
            self.skipped.count += 1;
            return;
        };
        let at = self.tasks.len();
        if !self.by_id.contains_key(&entry.id) {
            self.by_id.insert(entry.id.clone(), at);
            if let Some(number) = entry.number() {
                self.by_number.entry(number).or_default().push(at);
            }
            for (index, subtask) in entry.subtasks.iter().enumerate() {
                self.subtasks.entry(format!("{}.{}", entry.id, subtask.id)).or_insert((at, index));
            }
        }
        self.tasks.push(entry);
    }

    /// Returns whether the list has no entry, not even one that was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.odd_count == 0
    }

    /// Returns the task with this id, or with this number in a prefixed id, and its first fault.
    ///
    /// # Errors
    /// Returns the ids if several have the number.
    pub(crate) fn find(&self, task: TaskId) -> Result<Option<(&Entry, Option<&str>)>, Vec<String>> {
        let numbered = self.by_number.get(&task.get()).map(Vec::as_slice).unwrap_or_default();
        let position = match (self.by_id.get(&task.to_string()), numbered) {
            (Some(position), _) => *position,
            (None, []) => return Ok(None),
            (None, [only]) => *only,
            (None, several) => {
                let ids = several.iter().filter_map(|position| self.tasks.get(*position));
                return Err(ids.map(|entry| entry.id.clone()).collect());
            }
        };
        Ok(self.tasks.get(position).map(|entry| (entry, self.faults.get(&position).map(String::as_str))))
    }

    /// Returns the position of the first task with this id.
    fn position(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Returns the task (`2`) or subtask (`2.1`) with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Found<'_>> {
        if let Some(task) = self.position(id).and_then(|position| self.tasks.get(position)) {
            let (status, description) = (task.status.as_deref(), task.description.as_deref());
            return Some(Found { title: &task.title, status, description });
        }
        let (task, subtask) = self.subtasks.get(id)?;
        let subtask = self.tasks.get(*task)?.subtasks.get(*subtask)?;
        let (status, description) = (subtask.status.as_deref(), subtask.description.as_deref());
        Some(Found { title: &subtask.title, status, description })
    }

    /// Returns the positions of the first entries without an id, and how many there are.
    pub(super) fn skipped(&self) -> &SkippedEntries {
        &self.skipped
    }
}
