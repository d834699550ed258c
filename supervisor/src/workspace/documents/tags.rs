//! Reads which tag Task Master works on: `state.json` and `config.json`.

use std::io;

use orchestrator_contract::ServiceName;
use serde_json::Value;

use super::error::DocumentsError;
use super::json;
use super::limits::shorten;
use super::reader::Reader;
use super::search::path;
use super::tasks_file::{TagPreference, TasksFile};

/// Reads `tasks.json` of a directory and chooses the tag; returns `None` if it does not exist.
///
/// # Errors
/// Returns an error if a file cannot be read, `tasks.json` cannot be parsed, or the tag is ambiguous.
pub fn read_tasks<R, L>(
    reader: &Reader<R, L>,
    service: &ServiceName,
    folder: &str,
) -> Result<Option<TasksFile>, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    for name in ["tasks/tasks.json", "tasks.json"] {
        let file = path(folder, name);
        let Some(text) = reader.text(&file)? else { continue };
        let state = path(folder, "state.json");
        let current = tag_in(&state, reader.text(&state)?, "/currentTag");
        let config = path(folder, "config.json");
        let default = tag_in(&config, reader.text(&config)?, "/global/defaultTag");
        let preference = TagPreference {
            service: service.as_str(),
            current: current.as_ref().ok().and_then(Option::as_deref),
            default: default.as_ref().ok().and_then(Option::as_deref),
        };
        let mut tasks = TasksFile::parse(&file, &text, preference)?;
        if let Some(tag) = tasks.tag.as_ref().filter(|tag| *tag != service.as_str()) {
            let problems = [current.err(), default.err()];
            let notes = problems
                .into_iter()
                .flatten()
                .map(|problem| format!("{problem}; tag `{}` was used", shorten(tag)));
            tasks.notes.extend(notes.collect::<Vec<_>>());
        }
        return Ok(Some(tasks));
    }
    Ok(None)
}

/// Returns the tag that a file names, or why it names none although it should.
fn tag_in(path: &str, text: Option<String>, pointer: &str) -> Result<Option<String>, String> {
    let Some(text) = text else { return Ok(None) };
    // An error may advise what only a file without which the run cannot go on needs.
    let value = json::parse(path, &text).map_err(|error| {
        if let DocumentsError::Empty { path } = &error {
            format!("`{path}` is empty")
        } else if let DocumentsError::Conflict { path, .. } = &error {
            format!("`{path}` has git conflict markers")
        } else {
            error.to_string()
        }
    })?;
    match value.pointer(pointer) {
        None => Ok(None),
        Some(Value::String(tag)) if !tag.trim().is_empty() => Ok(Some(tag.trim().to_owned())),
        Some(_) => {
            Err(format!("`{path}` names no tag in `{}`", pointer.trim_start_matches('/').replace('/', ".")))
        }
    }
}
