//! A task's documents, as Task Master keeps them in the platform repository.
//!
//! Pure over an injected reader of files at a commit. What is looked for, and in which
//! order, is said by [`find`]; nothing is ever guessed between equal candidates.

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

/// Reads files and lists folders of the platform repository at one commit; paths are
/// relative to its root, `""` is the root itself.
pub struct Reader<R, L>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    /// The content of a file; none if there is no such file.
    pub read: R,
    /// The names of a folder's entries; empty if there is no such folder.
    pub list: L,
}

/// Which documents are wanted.
#[derive(Clone, Copy, Debug)]
pub struct DocumentQuery<'a> {
    /// The service, whose folder or tag is taken first.
    pub service: &'a ServiceName,
    /// The task.
    pub task: TaskId,
    /// The folder that holds `.taskmaster`, relative (`""` is the root); looked for if not given.
    pub docs_directory: Option<&'a str>,
}

/// A task's documents: everything that the prompt and the pull request need.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskDocuments {
    /// The folder that holds `.taskmaster`; empty for the root.
    pub folder: String,
    /// The tag of `tasks.json`, where it has tags.
    pub tag: Option<String>,
    /// The task's own files, or only its entry.
    pub source: DocumentSource,
    /// The task's entry in `tasks.json`; where that file is missing, its title is taken
    /// from the first heading of `task.md`.
    pub entry: Entry,
    /// The tasks that this one depends on.
    pub dependencies: Vec<Dependency>,
    /// The text of `task.md`.
    pub task: Option<String>,
    /// The text of `prompt.md`.
    pub prompt: Option<String>,
    /// The text of `acceptance-criteria.md`.
    pub acceptance: Option<String>,
    /// The criteria of that file, or else the entry's test strategy, one a line.
    pub acceptance_criteria: Vec<String>,
    /// The path of `architecture.md`.
    pub architecture: Option<String>,
    /// The path of `prd.txt` or `prd.md`.
    pub requirements: Option<String>,
    /// Every file that was used, relative to the repository.
    pub files: Vec<String>,
}

/// A task that another depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dependency {
    /// Its id.
    pub id: String,
    /// Its title; none if `tasks.json` does not have it.
    pub title: Option<String>,
    /// Its status, such as `done`.
    pub status: Option<String>,
}

impl TaskDocuments {
    /// What the outcome says about the documents.
    #[must_use]
    pub fn report(&self) -> DocumentSources {
        DocumentSources { source: self.source, files: self.files.clone(), tag: self.tag.clone() }
    }
}

/// The path of a file under `.taskmaster` of a folder.
pub(crate) fn path(folder: &str, rest: &str) -> String {
    if folder.is_empty() { format!(".taskmaster/{rest}") } else { format!("{folder}/.taskmaster/{rest}") }
}

/// How deep other folders with tasks are looked for, to name them in an error.
const CANDIDATE_DEPTH: usize = 4;

/// How many entries are looked into meanwhile: an error must not take long in a large repository.
const CANDIDATE_FOLDERS: usize = 5_000;

/// Finds the folder that holds `.taskmaster` for a service: the given one, or the first
/// of `{service}/`, `projects/{service}/` and the root. The root is `""`.
///
/// # Errors
/// There is none; the error names the places, and other folders that have one.
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
    let places = docs_directory.map_or_else(
        || vec![service.to_string(), format!("projects/{service}"), String::new()],
        |given| vec![given.trim_matches('/').trim_start_matches("./").to_owned()],
    );
    for place in &places {
        let place = if place == "." { "" } else { place };
        if !list(path(place, "").trim_end_matches('/'))?.is_empty() {
            return Ok(place.to_owned());
        }
    }
    let mut candidates = Vec::new();
    let mut looked_into = 0;
    let mut queue = VecDeque::from([(String::new(), 0)]);
    while let Some((folder, depth)) = queue.pop_front() {
        looked_into += 1;
        if looked_into > CANDIDATE_FOLDERS {
            break;
        }
        let names = list(&folder)?;
        if names.iter().any(|name| name == ".taskmaster") {
            candidates.push(if folder.is_empty() { ".".to_owned() } else { folder.clone() });
        }
        // A name with a dot at its start is no project; a file has no names in it.
        for name in names.into_iter().filter(|name| depth < CANDIDATE_DEPTH && !name.starts_with('.')) {
            queue.push_back((if folder.is_empty() { name } else { format!("{folder}/{name}") }, depth + 1));
        }
    }
    let looked_for = places.iter().map(|place| path(place, "")).collect();
    Err(DocumentsError::FolderMissing { looked_for, candidates })
}

/// Reads `tasks.json` of a folder and chooses the tag; none if there is no such file.
///
/// # Errors
/// A file cannot be read or understood, or the tag is ambiguous.
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

/// Finds and reads everything there is about a task.
///
/// The documents are in `.taskmaster/docs/task-{id}/`; without them the task's entry in
/// `.taskmaster/tasks/tasks.json` serves. `architecture.md`, `prd.txt` and `prd.md` are
/// looked for in `.taskmaster/docs/` and in `.taskmaster/`.
///
/// # Errors
/// There are neither documents nor an entry, `tasks.json` does not have the task, or a
/// file cannot be read or understood.
pub fn find_documents<R, L>(
    reader: &Reader<R, L>,
    wanted: &DocumentQuery<'_>,
) -> Result<TaskDocuments, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let DocumentQuery { service, task, docs_directory } = *wanted;
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
    let mut own = |name: &str| {
        let file = path(&folder, &format!("docs/task-{id}/{name}"));
        looked_for.push(file.clone());
        let text = read_text(reader, &file)?.filter(|text| !text.trim().is_empty());
        files.extend(text.is_some().then_some(file));
        Ok::<_, DocumentsError>(text)
    };
    let task_text = own("task.md")?;
    let prompt = own("prompt.md")?;
    let acceptance = own("acceptance-criteria.md")?;
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
    let mut project = |names: &[&str]| {
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
    let architecture = project(&["docs/architecture.md", "architecture.md"])?;
    let requirements = project(&["docs/prd.txt", "docs/prd.md", "prd.txt", "prd.md"])?;
    let acceptance_criteria = criteria::of(acceptance.as_deref(), &entry);
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

/// A file as text, without a byte order mark; bytes that are no UTF-8 are replaced.
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
