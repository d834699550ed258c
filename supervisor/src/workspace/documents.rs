//! Documents of a task, as Task Master keeps them in the platform repository.
//!
//! Pure: files are read through a [`Reader`]. [`find_documents`] documents the search order; equal
//! candidates are an error, never a guess.

mod criteria;
mod error;
mod tasks_file;

use std::collections::VecDeque;
use std::io;

use orchestrator_contract::outcome::{DocumentSource, DocumentSources};
use orchestrator_contract::{ServiceName, TaskId};

pub use criteria::acceptance_criteria;
pub use error::DocumentsError;
pub use tasks_file::{Entry, Subtask, TaskList, TasksFile};

/// Reads files and lists directories of the platform repository at one commit.
///
/// Paths are relative to its root; `""` is the root.
pub struct Reader<R, L>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    /// Returns the content of a file, or `None` if it does not exist.
    pub read: R,
    /// Returns the names in a directory; empty if it does not exist.
    pub list: L,
}

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
    /// Tasks that this one depends on.
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

/// Returns the path of a file in the `.taskmaster` directory of `folder`.
pub(crate) fn path(folder: &str, rest: &str) -> String {
    if folder.is_empty() { format!(".taskmaster/{rest}") } else { format!("{folder}/.taskmaster/{rest}") }
}

/// Maximum depth of the search for other `.taskmaster` directories to suggest.
const MAX_CANDIDATE_DEPTH: usize = 4;

/// Maximum entries to visit in that search; an error must not take long in a large repository.
const MAX_CANDIDATE_ENTRIES: usize = 5_000;

/// Returns the directory that contains `.taskmaster` for a service.
///
/// That is `docs_directory`, or the first of `{service}/`, `projects/{service}/` and the root
/// (`""`) that has one.
///
/// # Errors
/// Returns an error if none of them has one, naming other directories that do.
pub fn find_folder<R, L>(
    reader: &Reader<R, L>,
    service: &ServiceName,
    docs_directory: Option<&str>,
) -> Result<String, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let list = |folder: &str| {
        (reader.list)(folder).map_err(|source| DocumentsError::Unreadable { path: folder.to_owned(), source })
    };
    let locations = docs_directory.map_or_else(
        || vec![service.to_string(), format!("projects/{service}"), String::new()],
        |directory| vec![directory.trim_matches('/').trim_start_matches("./").to_owned()],
    );
    for location in &locations {
        let location = if location == "." { "" } else { location };
        if !list(path(location, "").trim_end_matches('/'))?.is_empty() {
            return Ok(location.to_owned());
        }
    }
    let mut candidates = Vec::new();
    let mut visited = 0;
    let mut queue = VecDeque::from([(String::new(), 0)]);
    while let Some((folder, depth)) = queue.pop_front() {
        visited += 1;
        if visited > MAX_CANDIDATE_ENTRIES {
            break;
        }
        let names = list(&folder)?;
        if names.iter().any(|name| name == ".taskmaster") {
            candidates.push(if folder.is_empty() { ".".to_owned() } else { folder.clone() });
        }
        // Hidden directories are not projects. Listing a file returns nothing.
        for name in names.into_iter().filter(|name| depth < MAX_CANDIDATE_DEPTH && !name.starts_with('.')) {
            queue.push_back((if folder.is_empty() { name } else { format!("{folder}/{name}") }, depth + 1));
        }
    }
    let looked_for = locations.iter().map(|location| path(location, "")).collect();
    Err(DocumentsError::FolderMissing { looked_for, candidates })
}

/// Reads `tasks.json` of a directory and chooses the tag; returns `None` if it does not exist.
///
/// # Errors
/// Returns an error if a file cannot be read or parsed, or the tag is ambiguous.
pub fn read_tasks<R, L>(
    reader: &Reader<R, L>,
    service: &ServiceName,
    folder: &str,
) -> Result<Option<(String, TasksFile)>, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    for name in ["tasks/tasks.json", "tasks.json"] {
        let file = path(folder, name);
        let Some(text) = read_text(reader, &file)? else { continue };
        let state = path(folder, "state.json");
        let current = match read_text(reader, &state)? {
            Some(text) => tasks_file::parse_current_tag(&state, &text)?,
            None => None,
        };
        let tasks = TasksFile::parse(&file, &text, service.as_str(), current.as_deref())?;
        return Ok(Some((file, tasks)));
    }
    Ok(None)
}

/// Finds and reads the documents of a task.
///
/// They are in `.taskmaster/docs/task-{id}/`; without them the task's entry in
/// `.taskmaster/tasks/tasks.json` is used. `architecture.md`, `prd.txt` and `prd.md` are searched
/// in `.taskmaster/docs/`, then in `.taskmaster/`.
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
    let entry = match &tasks {
        None => None,
        Some((file, tasks)) => {
            Some(tasks.list.get(&id).cloned().ok_or_else(|| DocumentsError::TaskNotFound {
                file: file.clone(),
                task,
                tag: tasks.tag.clone(),
                ids: tasks.list.ids(),
                other_tags: tasks.tags_with(&id),
            })?)
        }
    };

    let mut files: Vec<String> = tasks.iter().map(|(file, _)| file.clone()).collect();
    let mut looked_for = vec![path(&folder, "tasks/tasks.json")];
    let mut read_task_file = |name: &str| {
        let file = path(&folder, &format!("docs/task-{id}/{name}"));
        looked_for.push(file.clone());
        let text = read_text(reader, &file)?.filter(|text| !text.trim().is_empty());
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
    let entry = match (entry, source) {
        (Some(entry), _) => entry,
        (None, DocumentSource::TaskEntry) => return Err(DocumentsError::Missing { looked_for }),
        (None, DocumentSource::Files) => Entry {
            id: id.clone(),
            title: criteria::first_heading(task_text.as_deref().unwrap_or_default())
                .unwrap_or_else(|| format!("Task {id}")),
            ..Entry::default()
        },
    };
    let mut find_project_file = |names: &[&str]| {
        for name in names {
            let file = path(&folder, name);
            if (reader.read)(&file)
                .map_err(|source| DocumentsError::Unreadable { path: file.clone(), source })?
                .is_some()
            {
                files.push(file.clone());
                return Ok::<_, DocumentsError>(Some(file));
            }
        }
        Ok(None)
    };
    let architecture = find_project_file(&["docs/architecture.md", "architecture.md"])?;
    let requirements = find_project_file(&["docs/prd.txt", "docs/prd.md", "prd.txt", "prd.md"])?;
    let acceptance_criteria = criteria::criteria_of(acceptance.as_deref(), &entry);
    let list = tasks.as_ref().map(|(_, tasks)| &tasks.list);
    let dependencies = entry.dependencies.iter().map(|id| dependency(list, id)).collect();
    Ok(TaskDocuments {
        tag: tasks.as_ref().and_then(|(_, tasks)| tasks.tag.clone()),
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
    })
}

fn dependency(list: Option<&TaskList>, id: &str) -> Dependency {
    let (title, status) = list.and_then(|list| list.title_and_status(id)).unwrap_or_default();
    Dependency { id: id.to_owned(), title, status }
}

/// Reads a file as text, without a byte order mark; invalid UTF-8 is replaced.
pub(crate) fn read_text<R, L>(reader: &Reader<R, L>, path: &str) -> Result<Option<String>, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let bytes =
        (reader.read)(path).map_err(|source| DocumentsError::Unreadable { path: path.to_owned(), source })?;
    Ok(bytes.map(|bytes| {
        let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes));
        text.into_owned()
    }))
}

#[cfg(test)]
mod tests;
