//! Documents of a task, as Task Master keeps them in the platform repository.
//!
//! Pure: files are read through a [`Reader`]. [`find_documents`] documents the search order; equal
//! candidates are an error, never a guess.

mod criteria;
mod encoding;
mod entry;
mod error;
mod fields;
mod json;
mod limits;
mod notes;
mod reader;
mod search;
mod tags;
mod task_list;
mod tasks_file;

use std::io;

use orchestrator_contract::outcome::{DocumentSource, DocumentSources};
use orchestrator_contract::{ServiceName, TaskId};

pub use criteria::acceptance_criteria;
pub(crate) use encoding::decode;
pub use entry::{Entry, RelevantFile, Requirements, Subtask};
pub use error::DocumentsError;
pub use limits::{MAX_FILE_BYTES, TooLarge};
pub(crate) use limits::{Notes, shorten};
pub(crate) use notes::notes_of_file;
pub use reader::Reader;
pub use search::find_folder;
pub(crate) use search::{find_file, path};
pub use tags::read_tasks;
pub use task_list::{Found, TaskList};
pub use tasks_file::{TagPreference, TasksFile};

/// Names of the architecture document, below `.taskmaster`.
pub(crate) const ARCHITECTURE: [&str; 2] = ["docs/architecture.md", "architecture.md"];

/// Names of the requirements document, below `.taskmaster`.
pub(crate) const REQUIREMENTS: [&str; 4] = ["docs/prd.txt", "docs/prd.md", "prd.txt", "prd.md"];

/// Maximum dependencies of a task to read.
pub(crate) const MAX_DEPENDENCIES: usize = 200;

/// Documents to find.
#[derive(Clone, Copy, Debug)]
pub struct DocumentQuery<'a> {
    /// Service; its directory and its tag take precedence.
    pub service: &'a ServiceName,
    pub task: TaskId,
    /// Directory that contains `.taskmaster` (`""` is the root); searched if `None`.
    pub docs_directory: Option<&'a str>,
}

/// Documents of a task, for the prompt and the pull request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskDocuments {
    /// Directory that contains `.taskmaster`; empty for the root.
    pub folder: String,
    /// Tag of `tasks.json`, if it has tags.
    pub tag: Option<String>,
    /// Whether the task has files of its own, or only its entry.
    pub source: DocumentSource,
    /// Entry in `tasks.json`. Without that file its title is the first heading of `task.md`.
    pub entry: Entry,
    /// Tasks that this one depends on; the first ones of many.
    pub dependencies: Vec<Dependency>,
    /// Text of `task.md`.
    pub task: Option<String>,
    /// Text of `prompt.md`.
    pub prompt: Option<String>,
    /// Text of `acceptance-criteria.md`.
    pub acceptance: Option<String>,
    /// Criteria of that file, or else of the entry's test strategy.
    pub acceptance_criteria: Vec<String>,
    /// Path of `architecture.md`.
    pub architecture: Option<String>,
    /// Path of `prd.txt` or `prd.md`.
    pub requirements: Option<String>,
    /// Paths of all files used, relative to the repository.
    pub files: Vec<String>,
    /// Oddities of the files, one sentence each.
    pub notes: Vec<String>,
}

/// Task that another one depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dependency {
    pub id: String,
    /// Title, if `tasks.json` has the task.
    pub title: Option<String>,
    /// Status, such as `done`.
    pub status: Option<String>,
}

impl TaskDocuments {
    /// Returns the sources for the outcome.
    #[must_use]
    pub fn report(&self) -> DocumentSources {
        DocumentSources { source: self.source, files: self.files.clone(), tag: self.tag.clone() }
    }
}

/// Finds and reads the documents of a task.
///
/// They are in `.taskmaster/docs/task-{id}/`; without them the task's entry in
/// `.taskmaster/tasks/tasks.json` is used. `architecture.md`, `prd.txt` and `prd.md` are searched
/// in `.taskmaster/docs/`, then in `.taskmaster/`. The case of names does not matter.
///
/// # Errors
/// Returns an error if there are neither documents nor an entry, if `tasks.json` does not have the
/// task, or if a file cannot be read or parsed.
pub fn find_documents<R, L>(
    reader: &Reader<R, L>,
    query: &DocumentQuery<'_>,
) -> Result<TaskDocuments, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let DocumentQuery { service, task, docs_directory } = *query;
    let folder = find_folder(reader, service, docs_directory)?;
    let tasks = read_tasks(reader, service, &folder)?;
    let id = task.to_string();
    let entry = tasks.as_ref().map(|tasks| tasks.requested(task).cloned()).transpose()?;
    let mut notes = tasks.as_ref().map(notes_of_file).unwrap_or_default();
    if let (Some(tasks), Some(entry)) = (&tasks, &entry) {
        notes.extend(notes::notes_of_task(tasks, entry));
    }

    let mut files: Vec<String> = tasks.iter().map(|tasks| tasks.path.clone()).collect();
    let mut looked_for = vec![path(&folder, "tasks/tasks.json")];
    let task_folder = search::find_task_folder(reader, &folder, task)?;
    let mut read_task_file = |name: &str| {
        let name = format!("{task_folder}/{name}");
        looked_for.push(path(&folder, &name));
        let Some(file) = find_file(reader, &folder, &[&name])? else { return Ok(None) };
        let text = reader.text(&file)?.filter(|text| !text.trim().is_empty());
        files.extend(text.is_some().then_some(file));
        Ok::<_, DocumentsError>(text)
    };
    let task_text = read_task_file("task.md")?;
    let prompt = read_task_file("prompt.md")?;
    let acceptance = read_task_file("acceptance-criteria.md")?;
    let source = if [&task_text, &prompt, &acceptance].into_iter().any(Option::is_some) {
        DocumentSource::Files
    } else {
        DocumentSource::TaskEntry
    };
    let mut entry = match (entry, source) {
        (Some(entry), _) => entry,
        (None, DocumentSource::TaskEntry) => return Err(DocumentsError::Missing { looked_for }),
        (None, DocumentSource::Files) => Entry { id: id.clone(), ..Entry::default() },
    };
    if entry.title.is_empty() {
        let heading = task_text.as_deref().and_then(criteria::first_heading);
        entry.title = heading.unwrap_or_else(|| format!("Task {id}"));
    }
    let architecture = find_file(reader, &folder, &ARCHITECTURE)?;
    let requirements = find_file(reader, &folder, &REQUIREMENTS)?;
    files.extend([&architecture, &requirements].into_iter().flatten().cloned());
    let acceptance_criteria = criteria::criteria_of(acceptance.as_deref(), &entry);
    let list = tasks.as_ref().map(|tasks| &tasks.list);
    let ids = entry.dependencies.iter().take(MAX_DEPENDENCIES);
    let dependencies: Vec<_> = ids.map(|id| dependency(list, id)).collect();
    if let Some(tasks) = &tasks {
        notes.extend(notes::warnings(&tasks.path, &entry, &dependencies));
    }
    Ok(TaskDocuments {
        tag: tasks.as_ref().and_then(|tasks| tasks.tag.clone()),
        folder,
        source,
        dependencies,
        entry,
        task: task_text,
        prompt,
        acceptance,
        acceptance_criteria,
        architecture,
        requirements,
        files,
        notes,
    })
}

fn dependency(list: Option<&TaskList>, id: &str) -> Dependency {
    let found = list.and_then(|list| list.get(id));
    Dependency {
        id: id.to_owned(),
        title: found.map(|found| found.title.to_owned()),
        status: found.and_then(|found| found.status).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
