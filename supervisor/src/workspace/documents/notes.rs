//! Notes about oddities of the task files, for people: the run continues.

use super::Dependency;
use super::entry::Entry;
use super::limits::shorten;
use super::task_list::OddEntry;
use super::tasks_file::TasksFile;

/// Maximum unmet dependencies to list.
const MAX_UNMET: usize = 10;

/// Returns the notes about a file, apart from those about one task.
pub(crate) fn notes_of_file(tasks: &TasksFile) -> Vec<String> {
    let mut notes = tasks.notes.clone();
    notes.extend(tasks.list.odd.iter().map(|odd| note_of_entry(&tasks.path, odd)));
    let more = tasks.list.odd_count.saturating_sub(tasks.list.odd.len());
    if more > 0 {
        notes.push(format!("{more} more entries of `{}` have odd fields", tasks.path));
    }
    notes
}

/// Returns the notes about the requested task.
pub(super) fn notes_of_task(tasks: &TasksFile, entry: &Entry) -> Vec<String> {
    let TasksFile { path, list, .. } = tasks;
    let id = shorten(&entry.id);
    let mut notes = Vec::new();
    let entries = list.tasks.iter().filter(|other| other.id == entry.id).count();
    if entries > 1 {
        notes.push(format!("`{path}` has {entries} entries of task {id}; the first one was used"));
    }
    if entry.title.is_empty() {
        notes.push(format!("task {id} has no title in `{path}`"));
    }
    notes
}

/// Returns the reasons to doubt that the requested task should be implemented now.
pub(super) fn warnings(file: &str, entry: &Entry, dependencies: &[Dependency]) -> Vec<String> {
    let id = shorten(&entry.id);
    let mut warnings = Vec::new();
    let (all, read) = (entry.dependencies.len(), dependencies.len());
    if all > read {
        warnings.push(format!("task {id} has {all} dependencies in `{file}`; the first {read} were read"));
    }
    if let Some(status) = entry.status.as_ref().filter(|status| is_done(status) || is_cancelled(status)) {
        let status = shorten(status);
        warnings.push(format!("task {id} is `{status}` in `{file}`, but was submitted"));
    }
    let is_unmet =
        |dependency: &&Dependency| !dependency.status.as_ref().is_some_and(|status| is_done(status));
    let unmet: Vec<String> = dependencies.iter().filter(is_unmet).map(describe).collect();
    if !unmet.is_empty() {
        let more = unmet.len().saturating_sub(MAX_UNMET);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let shown = unmet.iter().take(MAX_UNMET).map(String::as_str).collect::<Vec<_>>().join(", ");
        warnings.push(format!("task {id} depends on tasks that are not done: {shown}{more}"));
    }
    warnings
}

fn describe(dependency: &Dependency) -> String {
    let status = match (&dependency.status, &dependency.title) {
        (Some(status), _) => shorten(status),
        (None, Some(_)) => "no status".to_owned(),
        (None, None) => "no such task".to_owned(),
    };
    format!("{} ({status})", shorten(&dependency.id))
}

fn is_done(status: &str) -> bool {
    ["done", "completed"].iter().any(|done| status.trim().eq_ignore_ascii_case(done))
}

fn is_cancelled(status: &str) -> bool {
    ["cancelled", "canceled"].iter().any(|cancelled| status.trim().eq_ignore_ascii_case(cancelled))
}

fn note_of_entry(path: &str, odd: &OddEntry) -> String {
    let OddEntry { id, position, faults } = odd;
    let first = faults.first.first().map(|fault| shorten(fault)).unwrap_or_default();
    let more = match faults.count.saturating_sub(1) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    match id {
        Some(id) => {
            format!("task {} of `{path}` was read without its odd fields: {first}{more}", shorten(id))
        }
        None => format!("entry {} of `{path}` was skipped: {first}{more}", position + 1),
    }
}
