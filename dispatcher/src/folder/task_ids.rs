//! The tasks in a clone's tasks.json.

use std::collections::BTreeSet;

use orchestrator_contract::{TaskId, WorkingDirectory};
use serde_json::Value;

use super::Checkout;
use crate::files;

/// File of the tasks, below the folder that holds `.taskmaster`.
const TASKS: &str = ".taskmaster/tasks/tasks.json";

impl Checkout {
    /// Returns the numbers of all tasks, whatever their tag; `None` if the file cannot be read, or has other ids.
    #[must_use]
    pub fn task_ids(&self, folder: &WorkingDirectory) -> Option<BTreeSet<TaskId>> {
        let text = files::read(&self.root.join(folder.relative()).join(TASKS)).ok()??;
        ids(&serde_json::from_str(&text).ok()?)
    }
}

fn ids(root: &Value) -> Option<BTreeSet<TaskId>> {
    let tags = root.as_object()?.values().filter_map(|tag| tag.get("tasks"));
    let lists = root.get("tasks").into_iter().chain(tags);
    let tasks: Vec<&Value> = lists.filter_map(Value::as_array).flatten().collect();
    let ids = tasks.into_iter().map(|task| {
        let id = task.get("id")?;
        match id.as_str() {
            Some(text) => text.trim().parse().ok(),
            None => TaskId::new(id.as_u64()?.try_into().ok()?).ok(),
        }
    });
    ids.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn task_numbers_of_all_tags_are_collected() {
        let numbers = |root: Value| -> Option<Vec<u32>> {
            ids(&root).map(|ids| ids.into_iter().map(TaskId::get).collect())
        };
        assert_eq!(numbers(json!({ "tasks": [{ "id": 2 }, { "id": "1" }] })), Some(vec![1, 2]));
        let tagged =
            json!({ "master": { "tasks": [{ "id": 1 }] }, "next": { "tasks": [{ "id": 7 }], "x": 1 } });
        assert_eq!(numbers(tagged), Some(vec![1, 7]));
        assert_eq!(numbers(json!({ "tasks": [] })), Some(vec![]));
        // What is not understood decides nothing.
        assert_eq!(numbers(json!({ "tasks": [{ "id": "HAM-1" }] })), None);
        assert_eq!(numbers(json!({ "tasks": [{ "title": "no id" }, { "id": 2 }] })), None);
        assert_eq!(numbers(json!([])), None);
    }
}
