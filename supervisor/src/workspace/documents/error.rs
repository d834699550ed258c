//! Errors of task documents.

use orchestrator_contract::{Reason, TaskId};

use super::limits::{MAX_FILE_BYTES, shorten};

/// Maximum names to list.
const MAX_NAMES: usize = 50;

const MIB: usize = 1024 * 1024;

/// Entries without an id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SkippedEntries {
    /// Positions of the first ones.
    pub positions: Vec<usize>,
    pub count: usize,
}

/// The documents of a task cannot be found or read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A file cannot be read from the repository.
    #[error("cannot read `{path}` of the platform repository")]
    Unreadable { path: String, source: std::io::Error },
    /// A file is too large to be read.
    #[error("`{path}` has {} MiB, but the limit is {} MiB", size.div_ceil(MIB), MAX_FILE_BYTES / MIB)]
    TooLarge { path: String, size: usize },
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
    /// A file has no content.
    #[error("`{path}` is empty: restore it from an earlier commit")]
    Empty { path: String },
    /// A merge was committed with its conflicts.
    #[error("`{path}` has git conflict markers in line {line}: resolve the conflict and push")]
    Conflict {
        path: String,
        /// Line of the first marker, from 1.
        line: usize,
    },
    /// A file is JSON, but not what it should be.
    #[error("cannot use `{path}`: {problem}")]
    Unusable {
        path: String,
        /// Problem, such as the expected type.
        problem: String,
    },
    /// The requested task has a field of the wrong type.
    #[error("cannot use task {} of `{file}`: {problem}", shorten(id))]
    InvalidEntry {
        file: String,
        id: String,
        /// Field, with its problem.
        problem: String,
    },
    /// Several prefixed ids have the number of the requested task.
    #[error("`{file}` has several tasks with the number {task}: {}; give each its own number", quoted(ids))]
    AmbiguousId { file: String, task: TaskId, ids: Vec<String> },
    /// The tasks are where older versions of Task Master had them.
    #[error(
        "`{file}` is in the layout of an older Task Master: run `task-master migrate` and push the result"
    )]
    OldLayout { file: String },
    /// No rule selects one of several tags.
    #[error(
        "`{path}` has the tags {}; none is the service's, current or `master`{}",
        quoted(tags), current.as_ref().map(|tag| format!(" (the current tag is `{}`)", shorten(tag))).unwrap_or_default()
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
        "`{file}` has no task {task}{}; tasks: {}{}{}{}",
        tag.as_ref().map(|tag| format!(" in tag `{}`", shorten(tag))).unwrap_or_default(),
        if ids.is_empty() { "none".to_owned() } else { list_ids(ids) },
        if other_tags.is_empty() { String::new() } else { format!("; found in tag {}", quoted(other_tags)) },
        advise_numbers(ids),
        list_skipped(skipped)
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
        /// Entries without an id.
        skipped: Box<SkippedEntries>,
    },
}

impl DocumentsError {
    /// Returns the reason for a run that this error ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreadable { .. } => Reason::IoError,
            Self::TaskNotFound { .. } => Reason::TaskNotFound,
            Self::FolderMissing { .. } | Self::Missing { .. } | Self::OldLayout { .. } => {
                Reason::DocumentsNotFound
            }
            // The documents exist, but a person must fix them or select a tag.
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Empty { .. }
            | Self::Conflict { .. }
            | Self::Unusable { .. }
            | Self::InvalidEntry { .. }
            | Self::AmbiguousId { .. }
            | Self::AmbiguousTag { .. } => Reason::InvalidTask,
        }
    }
}

fn quoted(names: &[String]) -> String {
    let mut shown: Vec<String> =
        names.iter().take(MAX_NAMES).map(|name| format!("`{}`", shorten(name))).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    shown.extend((more > 0).then(|| format!("{more} more")));
    shown.join(", ")
}

fn list_folders(candidates: &[String]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    format!("; found in {}: set it as the docs directory", quoted(candidates))
}

fn list_skipped(SkippedEntries { positions, count }: &SkippedEntries) -> String {
    if positions.is_empty() {
        return String::new();
    }
    let mut shown: Vec<String> = positions.iter().map(|position| format!("`tasks[{position}]`")).collect();
    let more = count.saturating_sub(positions.len());
    shown.extend((more > 0).then(|| format!("{more} more")));
    format!("; without an id: {}", shown.join(", "))
}

/// Returns what to do if no task has a number.
fn advise_numbers(ids: &[String]) -> &'static str {
    let is_name = |id: &String| !id.ends_with(|c: char| c.is_ascii_digit());
    if ids.is_empty() || !ids.iter().all(is_name) {
        return "";
    }
    "; a task is submitted by its number, so give each a number as its `id`"
}

/// Returns the first ids, separated by commas.
fn list_ids(ids: &[String]) -> String {
    let shown: Vec<String> = ids.iter().take(MAX_NAMES).map(|id| shorten(id)).collect();
    let more = ids.len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}
