//! Notes about oddities of the task files, for people: the run continues.

use super::entry::Entry;
use super::tasks_file::{OddEntry, TasksFile};

/// Maximum notes about entries of other tasks.
const MAX_ODD_ENTRIES: usize = 5;

/// Maximum characters of an id or a fault that a file contains.
const MAX_CHARS: usize = 100;

/// Returns the notes about a file, apart from those about one task.
pub(crate) fn notes_of_file(tasks: &TasksFile) -> Vec<String> {
    let mut notes = tasks.notes.clone();
    notes.extend(tasks.list.odd.iter().take(MAX_ODD_ENTRIES).map(|odd| note_of_entry(&tasks.path, odd)));
    let more = tasks.list.odd.len().saturating_sub(MAX_ODD_ENTRIES);
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

fn note_of_entry(path: &str, odd: &OddEntry) -> String {
    let OddEntry { id, position, faults } = odd;
    let first = faults.first().map(|fault| shorten(fault)).unwrap_or_default();
    let more = match faults.len().saturating_sub(1) {
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

pub(super) fn shorten(text: &str) -> String {
    let short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}
