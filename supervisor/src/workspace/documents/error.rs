//! What can be wrong with a task's documents.

use orchestrator_contract::{Reason, TaskId};

/// A task's documents cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A file cannot be read from the repository.
    #[error("cannot read `{path}` of the platform repository")]
    Unreadable {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No folder has a `.taskmaster`.
    #[error("no task documents: looked for {}{}", quoted(looked_for), list_folders(candidates))]
    FolderMissing {
        /// The places.
        looked_for: Vec<String>,
        /// Other folders that have one.
        candidates: Vec<String>,
    },
    /// There are neither documents nor an entry.
    #[error("no task documents: looked for {}", quoted(looked_for))]
    Missing {
        /// The paths.
        looked_for: Vec<String>,
    },
    /// A file is not what it should be.
    #[error("cannot understand `{path}`, line {line}, column {column}: {expected}")]
    Malformed {
        /// The path.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What was expected there.
        expected: String,
    },
    /// Several tags, and nothing says which.
    #[error(
        "`{path}` has the tags {}, and none is named like the service, current or `master`{}",
        quoted(tags), current.as_ref().map(|tag| format!(" (the current tag is `{tag}`)")).unwrap_or_default()
    )]
    AmbiguousTag {
        /// The path.
        path: String,
        /// The tag that `state.json` names.
        current: Option<String>,
        /// The tags there are.
        tags: Vec<String>,
    },
    /// `tasks.json` does not have the task.
    #[error(
        "`{file}` has no task {task}{}: it has {}{}",
        tag.as_ref().map(|tag| format!(" in tag `{tag}`")).unwrap_or_default(),
        if ids.is_empty() { "no tasks".to_owned() } else { list_ids(ids) },
        if other_tags.is_empty() { String::new() } else { format!("; tag {} has it", quoted(other_tags)) }
    )]
    TaskNotFound {
        /// The file.
        file: String,
        /// The task.
        task: TaskId,
        /// The tag that was looked in.
        tag: Option<String>,
        /// The ids there are.
        ids: Vec<String>,
        /// Tags that do have the task.
        other_tags: Vec<String>,
    },
}

impl DocumentsError {
    /// Why the run ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreadable { .. } => Reason::IoError,
            Self::TaskNotFound { .. } => Reason::TaskNotFound,
            Self::FolderMissing { .. } | Self::Missing { .. } => Reason::DocumentsNotFound,
            // There are documents; what they say, or which are meant, has to be mended.
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
    format!("; there is one in {}: name it as the docs directory", quoted(candidates))
}

/// At most fifty ids.
fn list_ids(ids: &[String]) -> String {
    let shown: Vec<&str> = ids.iter().take(50).map(String::as_str).collect();
    let more = ids.len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}
