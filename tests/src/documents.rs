//! A project with many tasks, and scripts that write their documents.

use serde_json::{Value, json};

use crate::messages_api::{Script, Turn};
use crate::projects::platform_without;

/// Returns a platform with `tasks` tasks in the tagged format, with subtasks and string dependencies,
/// and without documents.
pub fn platform_of(tasks: u32) -> Vec<(String, String)> {
    let task = |id: u32| {
        let dependencies = match id {
            1 => json!([]),
            2 => json!([1]),
            _ => json!([(id - 1).to_string(), format!("{}.1", id - 2)]),
        };
        json!({
            "id": id, "title": format!("Part {id} of the order book"), "status": "pending", "priority": "medium",
            "description": format!("Builds part {id}."), "details": format!("Detail {id}: sorted by price.\nThen by time."),
            "testStrategy": "cargo test", "dependencies": dependencies, "complexity": 4,
            "subtasks": [
                { "id": 1, "title": format!("Types of part {id}"), "description": "Plain structs.", "details": "",
                  "dependencies": [], "status": "pending", "testStrategy": null, "parentTaskId": id },
                { "id": 2, "title": format!("Rules of part {id}"), "description": "As functions.",
                  "dependencies": [1], "status": "pending" },
            ],
        })
    };
    let tasks: Vec<Value> = (1..=tasks).map(task).collect();
    let tagged = json!({
        "master": { "tasks": tasks, "metadata": { "created": "2026-11-01T10:00:00.000Z", "description": "All" } },
        "later": { "tasks": [], "metadata": { "created": "2026-11-01T10:00:00.000Z", "description": "Ideas" } },
    });
    let mut files = platform_without(".taskmaster/docs/task-");
    files.retain(|(path, _)| path != ".taskmaster/tasks/tasks.json");
    files.push((
        ".taskmaster/tasks/tasks.json".to_owned(),
        serde_json::to_string_pretty(&tagged).expect("JSON"),
    ));
    files
}

/// Returns the directory that a prompt names for the documents.
fn folder_of(request: &Value) -> String {
    fn find(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => {
                let (_, rest) = text.split_once(" into `")?;
                Some(rest.split('`').next()?.to_owned())
            }
            Value::Array(values) => values.iter().find_map(find),
            Value::Object(fields) => fields.values().find_map(find),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }
    find(&request["messages"]).expect("a prompt that names a folder")
}

const CRITERIA: &str = "# Acceptance criteria\n\n\
    - [ ] The highest bid is returned. Check: `cargo test the_best_bid_is_the_highest`\n\
    - [ ] Without bids there is none. Check: a test with an empty slice\n\
    - [ ] Nothing else changed. Check: `git diff --stat` names `src/lib.rs` alone\n";

/// The three documents in a form that the review accepts.
fn good(folder: &str) -> [(&'static str, String); 3] {
    let id = folder.rsplit('-').next().unwrap_or_default();
    let task = format!(
        "# Task {id}\n\n## What and why\n\nPart {id} finds the best bid, so that no order sells too cheaply.\n\n\
         ## Context\n\nThe book is kept in memory. `best_bid` in `src/lib.rs` returns the first bid today.\n\n\
         ## Constraints\n\n- The signature stays.\n- No dependency is added.\n\n\
         ## Dependencies\n\nNone that matter here: what they deliver is on the base.\n"
    );
    let prompt = format!(
        "# Part {id}\n\n## Goal\n\n`best_bid` returns the highest bid of the slice, whatever its order is.\n\n\
         ## Steps\n\n1. Take the maximum in `src/lib.rs`.\n2. Run the test, and add one for a slice without bids.\n\n\
         ## Done when\n\n`cargo test` passes and the diff names `src/lib.rs` alone.\n"
    );
    [("task.md", task), ("prompt.md", prompt), ("acceptance-criteria.md", CRITERIA.to_owned())]
}

fn writing(files: impl Fn(&str) -> Vec<(&'static str, String)> + Send + Sync + 'static) -> Turn {
    Turn::tool_from("Bash", move |request| {
        let folder = folder_of(request);
        let write =
            |(name, text): (&str, String)| format!("cat > '{folder}/{name}' <<'THE_END'\n{text}THE_END\n");
        let command: String = files(&folder).into_iter().map(write).collect();
        json!({ "command": command, "description": "Write the documents" })
    })
}

/// Writes all three documents in acceptable form.
pub fn write_good() -> Turn {
    writing(|folder| good(folder).into())
}

/// Writes documents that the review rejects.
pub fn write_stubs() -> Turn {
    writing(|_| {
        vec![
            ("task.md", "# Task\n\n## What and why\n\nTODO\n".to_owned()),
            ("prompt.md", "Implement the task.\n".to_owned()),
        ]
    })
}

/// A script that writes the documents of every requested task.
pub fn writes() -> Script {
    Script::new().for_each_session().turn(write_good()).turn(Turn::verdict("done", "Written."))
}

/// Returns a text that only the prompt of one task contains.
pub fn about(task: u32) -> String {
    format!("of task {task} into `")
}
