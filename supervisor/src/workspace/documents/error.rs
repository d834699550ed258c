//! Errors of task documents.

use orchestrator_contract::{Reason, TaskId};

/// The documents of a task cannot be found or read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A file cannot be read from the repository.
    #[error("cannot read `{path}` of the platform repository")]
    Unreadable { path: String, source: std::io::Error },
    /// No searched directory has a `.taskmaster`.
    #[error("no task documents in {}{}", quoted(looked_for), list_folders(candidates))]
    FolderMissing {
        /// Searched directories.
        looked_for: Vec<String>,
        /// Other directories that have one.
        candidates: Vec<String>,
    },
    /// The task has neither documents nor an entry.
    #[error("no task documents: none of {} exists", quoted(looked_for))]
    Missing {
        /// Searched paths.
        looked_for: Vec<String>,
    },
    /// A file cannot be parsed.
    #[error("cannot parse `{path}`, line {line}, column {column}: {expected}")]
    Malformed {
        path: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// Problem, such as the expected type.
        expected: String,
    },
    /// No rule selects one of several tags.
    #[error(
        "`{path}` has the tags {}; none is the service's, current or `master`{}",
        quoted(tags), current.as_ref().map(|tag| format!(" (the current tag is `{tag}`)")).unwrap_or_default()
    )]
    AmbiguousTag {
        path: String,
        /// Current tag according to `state.json`.
        current: Option<String>,
        /// Tags of the file.
        tags: Vec<String>,
    },
    /// `tasks.json` does not have the task.
    #[error(
        "`{file}` has no task {task}{}; tasks: {}{}",
        tag.as_ref().map(|tag| format!(" in tag `{tag}`")).unwrap_or_default(),
        if ids.is_empty() { "none".to_owned() } else { list_ids(ids) },
        if other_tags.is_empty() { String::new() } else { format!("; found in tag {}", quoted(other_tags)) }
    )]
    TaskNotFound {
        file: String,
        task: TaskId,
        /// Searched tag.
        tag: Option<String>,
        /// Ids of its tasks.
        ids: Vec<String>,
        /// Other tags that have the task.
        other_tags: Vec<String>,
    },
}

impl DocumentsError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreadable { .. } => Reason::IoError,
            Self::TaskNotFound { .. } => Reason::TaskNotFound,
            Self::FolderMissing { .. } | Self::Missing { .. } => Reason::DocumentsNotFound,
            // The documents exist, but a person must fix them or select a tag.
            Self::Malformed { .. } | Self::AmbiguousTag { .. } => Reason::InvalidTask,
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn list_folders(candidates: &[String]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    format!("; found in {}: set it as the docs directory", quoted(candidates))
}

/// Returns at most 50 ids, separated by commas.
fn list_ids(ids: &[String]) -> String {
    let shown: Vec<&str> = ids.iter().take(50).map(String::as_str).collect();
    let more = ids.len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}
