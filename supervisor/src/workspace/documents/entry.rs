//! Entries of `tasks.json`: tasks and their subtasks.
//!
//! Unknown fields are retained: Task Master adds some with every release. Ids and dependencies are
//! numbers or texts.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Faults, Fields};

/// Task in `tasks.json`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    pub id: String,
    /// Title in one line; empty if the task has none.
    pub title: String,
    pub description: Option<String>,
    /// Implementation details.
    pub details: Option<String>,
    pub test_strategy: Option<String>,
    /// `pending`, `in-progress`, `done` and others.
    pub status: Option<String>,
    /// `high`, `medium`, `low`.
    pub priority: Option<String>,
    /// Ids of tasks (`2`) and subtasks (`2.1`).
    pub dependencies: Vec<String>,
    pub subtasks: Vec<Subtask>,
    pub requirements: Requirements,
    /// Other fields, for the agent.
    pub other: BTreeMap<String, Value>,
}

/// What the work must keep to, as Task Master 0.43 and newer write it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requirements {
    pub acceptance_criteria: Vec<String>,
    /// What belongs to the task, and what does not.
    pub scope: Vec<String>,
    pub technical_constraints: Vec<String>,
    pub relevant_files: Vec<RelevantFile>,
}

/// File that a task is about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RelevantFile {
    pub path: String,
    pub description: Option<String>,
    /// `create`, `modify` or `reference`.
    pub action: Option<String>,
}

/// Subtask in `tasks.json`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Subtask {
    /// Id within the task.
    pub id: String,
    pub title: String,
    pub description: Option<String>,
    /// Implementation details.
    pub details: Option<String>,
    pub test_strategy: Option<String>,
    /// `pending`, `in-progress`, `done` and others.
    pub status: Option<String>,
    /// Ids of subtasks of the same task (`1`) and of others (`2.1`).
    pub dependencies: Vec<String>,
    /// Other fields, for the agent.
    pub other: BTreeMap<String, Value>,
}

impl Entry {
    /// Returns the number of the task: its id, or that of a prefixed id such as `HAM-1`.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        let digits_at = self.id.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
        let (prefix, digits) = self.id.split_at_checked(digits_at)?;
        let letters = prefix.strip_suffix(['-', '_', '#']).unwrap_or(prefix);
        // A prefix of signs alone, as in `-1`, names nothing.
        let is_prefix = matches!(prefix, "" | "#")
            || !letters.is_empty() && letters.chars().all(|c| c.is_ascii_alphabetic());
        digits.parse().ok().filter(|_| is_prefix)
    }
}

/// Reads a task; returns it, if it has an id, with the faults of its fields.
pub(super) fn read_entry(object: Map<String, Value>) -> (Option<Entry>, Faults) {
    let mut fields = Fields::new(object, "");
    let Some(id) = fields.id() else { return (None, fields.finish().1) };
    let entry = Entry {
        id,
        title: title(&mut fields),
        description: fields.text("description"),
        details: fields.text("details"),
        test_strategy: fields.text("testStrategy"),
        status: fields.text("status"),
        priority: fields.text("priority"),
        dependencies: fields.ids("dependencies"),
        subtasks: fields.objects("subtasks", None, read_subtask),
        requirements: read_requirements(&mut fields),
        other: BTreeMap::new(),
    };
    let (other, faults) = fields.finish();
    (Some(Entry { other, ..entry }), faults)
}

fn read_subtask(fields: &mut Fields) -> Option<Subtask> {
    Some(Subtask {
        id: fields.id()?,
        title: title(fields),
        description: fields.text("description"),
        details: fields.text("details"),
        test_strategy: fields.text("testStrategy"),
        status: fields.text("status"),
        dependencies: fields.ids("dependencies"),
        other: fields.take_rest(),
    })
}

fn read_requirements(fields: &mut Fields) -> Requirements {
    let read_file = |file: &mut Fields| {
        let (description, action) = (file.text("description"), file.text("action"));
        Some(RelevantFile { path: file.text("path")?, description, action })
    };
    let scope = fields.object("scopeBoundaries", |scope| {
        let mut lines = Vec::new();
        for (name, label) in [("included", "In scope"), ("excluded", "Out of scope")] {
            lines.extend(scope.texts(name).iter().map(|text| format!("{label}: {text}")));
        }
        for (name, value) in scope.take_rest() {
            lines.extend(texts_of(&value).iter().map(|text| format!("{name}: {text}")));
        }
        lines
    });
    Requirements {
        acceptance_criteria: fields.texts("acceptanceCriteria"),
        // Other tools write it as a text or a list.
        scope: scope.unwrap_or_else(|| fields.texts("scopeBoundaries")),
        technical_constraints: fields.texts("technicalConstraints"),
        relevant_files: fields.objects("relevantFiles", Some("path"), read_file),
    }
}

fn title(fields: &mut Fields) -> String {
    let title = fields.text("title").unwrap_or_default();
    title.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the texts of a field whose type is not known; what is not a text stays JSON.
fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.trim().to_owned()],
        Value::Array(values) => values.iter().flat_map(texts_of).collect(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_prefixed_id_is_its_last_part() {
        let number = |id: &str| Entry { id: id.to_owned(), ..Entry::default() }.number();
        for (id, expected) in [
            ("7", Some(7)),
            ("007", Some(7)),
            ("HAM-1", Some(1)),
            ("task_12", Some(12)),
            ("T3", Some(3)),
            ("#4", Some(4)),
            ("T#4", Some(4)),
            ("-1", None),
            ("_1", None),
            ("--1", None),
            ("m1-metrics", None),
            ("m1-2", None),
            ("1.2", None),
            ("ä1", None),
            ("HAM-", None),
            ("99999999999", None),
        ] {
            assert_eq!(number(id), expected, "{id}");
        }
    }

    #[test]
    fn faults_name_fields_and_leave_the_rest() {
        let value = serde_json::json!({
            "id": 1, "title": ["a\n", "b"], "description": {}, "dependencies": [null, 2, ""], "priority": 3,
            "subtasks": ["x", {"title": "no id"}, {"id": 2, "details": true, "extra": 1}, 7],
            "scopeBoundaries": 5, "acceptanceCriteria": "one", "relevantFiles": [{"path": "a.rs"}, {}, "b.rs"],
            "technicalConstraints": null, "more": [1],
        });
        let (entry, faults) = read_entry(value.as_object().unwrap().clone());
        let entry = entry.unwrap();
        assert_eq!((entry.title.as_str(), entry.priority.as_deref()), ("a b", Some("3")));
        assert_eq!((entry.dependencies.as_slice(), entry.subtasks.len()), (["2".to_owned()].as_slice(), 1));
        assert_eq!(entry.requirements.acceptance_criteria, ["one"]);
        assert_eq!(entry.requirements.relevant_files.len(), 2);
        assert_eq!(entry.other.keys().collect::<Vec<_>>(), ["more"]);
        assert_eq!(faults.count, faults.first.len());
        assert_eq!(
            faults.first,
            [
                "`description` is an object, expected a text",
                "`dependencies[0]` is null, expected a task id",
                "`dependencies[2]` is empty, expected a task id",
                "`subtasks[0]` is a text, expected an object",
                "`subtasks[3]` is 7, expected an object",
                "`subtasks[1].id` is missing",
                "`subtasks[2].details` is true, expected a text",
                "`scopeBoundaries` is 5, expected a list",
            ]
        );
    }

    #[test]
    fn faults_are_counted_but_not_all_kept() {
        let value = serde_json::json!({"id": 1, "dependencies": vec![Value::Null; 5000], "subtasks": [{}]});
        let (_, faults) = read_entry(value.as_object().unwrap().clone());
        assert_eq!((faults.first.len(), faults.count), (10, 5001));
    }

    #[test]
    fn every_boundary_of_scope_is_kept() {
        let value = serde_json::json!({"id": 1, "scopeBoundaries": {
            "included": "a", "deferred": ["b", {"c": 1}], "note": " d ", "empty": null}});
        let (entry, faults) = read_entry(value.as_object().unwrap().clone());
        let expected = ["In scope: a", "deferred: b", "deferred: {\"c\":1}", "note: d"];
        assert_eq!(entry.unwrap().requirements.scope, expected);
        assert_eq!(faults, Faults::default());
    }
}
