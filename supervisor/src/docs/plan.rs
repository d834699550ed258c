//! Plans a docs run: the missing documents of each task, and its related tasks. Pure.

use std::collections::BTreeMap;
use std::io;

use orchestrator_contract::outcome::{DocumentSource, DocumentSources};
use orchestrator_contract::{ServiceName, TaskId};

use crate::agent::prompt::truncate;
use crate::workspace::documents::{
    ARCHITECTURE, DocumentsError, Entry, MAX_DEPENDENCIES, Notes, REQUIREMENTS, Reader, TaskList, TasksFile,
    find_file, find_folder, notes_of_file, path, read_tasks, shorten,
};

/// Maximum characters of a related task's title, and bytes of its description.
const RELATED_TITLE_MAX_CHARS: usize = 300;
const RELATED_MAX_BYTES: usize = 600;

/// Maximum bytes of an existing document; the agent can read the rest from its file.
const EXISTING_MAX_BYTES: usize = 64 * 1024;

/// Kind of task document.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Document {
    /// What to do and why.
    Task,
    /// Prompt of the implementing agent.
    Prompt,
    /// Acceptance criteria.
    Criteria,
}

impl Document {
    pub const ALL: [Self; 3] = [Self::Task, Self::Prompt, Self::Criteria];

    /// Returns the file name in the task's folder.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Task => "task.md",
            Self::Prompt => "prompt.md",
            Self::Criteria => "acceptance-criteria.md",
        }
    }
}

/// Options of a docs run.
pub struct PlanInput<'a> {
    /// Service whose folder or tag is preferred.
    pub service: &'a ServiceName,
    /// Only this task; all tasks if `None`.
    pub task: Option<TaskId>,
    /// Folder that holds `.taskmaster`; searched for if `None`.
    pub docs_directory: Option<&'a str>,
    /// Whether to rewrite existing documents.
    pub force: bool,
    /// Returns whether an earlier attempt wrote the documents in a folder.
    pub written_before: &'a dyn Fn(&str) -> io::Result<bool>,
}

/// Documents to write, with their context.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Folder that holds `.taskmaster`; empty for the root.
    pub folder: String,
    /// Path of `tasks.json`.
    pub tasks_file: String,
    /// Selected tag of `tasks.json`, if it has tags.
    pub tag: Option<String>,
    /// Path and text of `architecture.md`.
    pub architecture: Option<(String, String)>,
    /// Path and text of `prd.txt` or `prd.md`.
    pub requirements: Option<(String, String)>,
    /// Every task of the project in the order of `tasks.json`.
    pub overview: Vec<RelatedTask>,
    /// Tasks of this run, in the same order, including those without missing documents.
    pub subjects: Vec<DocsTask>,
    /// Notes for the outcome.
    pub notes: Vec<String>,
}

/// Task of a docs run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DocsTask {
    pub task: TaskId,
    /// Entry in `tasks.json`.
    pub entry: Entry,
    /// Documents to write; empty if all are kept.
    pub missing: Vec<Document>,
    /// Start of existing documents, the starting point of those to rewrite.
    pub existing: Vec<(Document, String)>,
    /// The first tasks that it depends on, and that depend on it.
    pub dependencies: Vec<RelatedTask>,
    pub dependents: Vec<RelatedTask>,
}

/// Summary of another task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelatedTask {
    /// Id: `2`, or `2.1` for a subtask.
    pub id: String,
    /// Title; `None` if `tasks.json` has no such task.
    pub title: Option<String>,
    /// Task Master status, such as `done`.
    pub status: Option<String>,
    pub description: Option<String>,
}

impl Plan {
    /// Returns the sources of this plan for the outcome.
    #[must_use]
    pub fn report(&self) -> DocumentSources {
        let project = [&self.architecture, &self.requirements].into_iter().flatten();
        let files = std::iter::once(self.tasks_file.clone()).chain(project.map(|(path, _)| path.clone()));
        DocumentSources { source: DocumentSource::TaskEntry, files: files.collect(), tag: self.tag.clone() }
    }

    /// Returns the tasks with documents to write, in order; their positions index the sessions.
    pub fn pending(&self) -> impl Iterator<Item = &DocsTask> {
        self.subjects.iter().filter(|subject| !subject.missing.is_empty())
    }

    /// Returns the folder of a task's documents, relative to the repository.
    #[must_use]
    pub fn folder_of(&self, task: TaskId) -> String {
        path(&self.folder, &format!("docs/task-{task}"))
    }
}

/// Plans the documents to write.
///
/// # Errors
/// Returns an error if `.taskmaster`, `tasks.json` or the task is missing, or a file is invalid.
pub fn plan<R, L>(reader: &Reader<R, L>, input: &PlanInput<'_>) -> Result<Plan, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let folder = find_folder(reader, input.service, input.docs_directory)?;
    let Some(tasks) = read_tasks(reader, input.service, &folder)? else {
        let looked_for = ["tasks/tasks.json", "tasks.json"].map(|name| path(&folder, name)).to_vec();
        return Err(DocumentsError::Missing { looked_for });
    };
    let requested = input.task.map(|task| tasks.requested(task)).transpose()?;
    let tasks_file = tasks.path.clone();
    let mut notes = notes_of_file(&tasks);
    let mut skipped = Notes::default();
    let mut subjects: Vec<DocsTask> = Vec::new();
    let dependents = find_dependents(&tasks.list);
    for entry in &tasks.list.tasks {
        match choose(&tasks, entry, requested) {
            Choice::Subject(task) => {
                let mut subject = plan_task(reader, input, &folder, &tasks.list, task, entry)?;
                let others = dependents.get(entry.id.as_str()).into_iter().flatten();
                subject.dependents = others.take(MAX_DEPENDENCIES).map(|other| related(other)).collect();
                subjects.push(subject);
            }
            Choice::Other => {}
            Choice::Skipped(note) => skipped.push(|| note),
        }
    }
    let skipped = skipped.finish(|more| format!("{more} more entries of `{tasks_file}` were skipped"));
    if subjects.is_empty() && !tasks.list.is_empty() {
        // Otherwise the run would end as if all documents were there.
        let note = skipped.first().or(notes.last()).cloned().unwrap_or_default();
        let problem = format!("it has no task with a number as its id: {note}");
        return Err(DocumentsError::Unusable { path: tasks_file, problem });
    }
    notes.extend(skipped);
    let project_document = |names: &[&str]| {
        for name in names {
            let Some(file) = find_file(reader, &folder, &[name])? else { continue };
            if let Some(text) = reader.text(&file)?.filter(|text| !text.trim().is_empty()) {
                return Ok::<_, DocumentsError>(Some((file, text)));
            }
        }
        Ok(None)
    };
    Ok(Plan {
        architecture: project_document(&ARCHITECTURE)?,
        requirements: project_document(&REQUIREMENTS)?,
        overview: tasks.list.tasks.iter().map(related).collect(),
        tag: tasks.tag,
        folder,
        tasks_file,
        subjects,
        notes,
    })
}

/// What a docs run does with an entry.
enum Choice {
    /// It writes the documents of this task.
    Subject(TaskId),
    /// Another task was requested.
    Other,
    /// Nothing, for the reason in the note.
    Skipped(String),
}

/// Chooses the entry that a run of its number alone would take too: a task has one directory.
fn choose(tasks: &TasksFile, entry: &Entry, requested: Option<&Entry>) -> Choice {
    let (file, id) = (&tasks.path, shorten(&entry.id));
    let Some(task) = entry.number().and_then(|number| TaskId::new(number).ok()) else {
        return Choice::Skipped(format!("task `{id}` was skipped: its id is not a number"));
    };
    if requested.is_some_and(|only| only.id != entry.id) {
        return Choice::Other;
    }
    match tasks.list.find(task) {
        Ok(Some((first, _))) if std::ptr::eq(first, entry) => Choice::Subject(task),
        Ok(Some((first, _))) if first.id == entry.id => {
            Choice::Skipped(format!("`{file}` has duplicate entries of task {id}; the first one was used"))
        }
        Ok(Some((first, _))) => {
            let first = shorten(&first.id);
            Choice::Skipped(format!(
                "task `{id}` was skipped: task `{first}` of `{file}` has that number too"
            ))
        }
        Ok(None) | Err(_) => Choice::Skipped(format!(
            "task `{id}` was skipped: `{file}` has several tasks with the number {task}"
        )),
    }
}

/// Returns the tasks that depend on each id, or on a subtask of it.
fn find_dependents(list: &TaskList) -> BTreeMap<&str, Vec<&Entry>> {
    let mut dependents: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for other in &list.tasks {
        let parents = other.dependencies.iter().filter_map(|id| id.split('.').next());
        for parent in parents.filter(|parent| *parent != other.id) {
            let known = dependents.entry(parent).or_default();
            if !known.last().is_some_and(|last| std::ptr::eq(*last, other)) {
                known.push(other);
            }
        }
    }
    dependents
}

fn plan_task<R, L>(
    reader: &Reader<R, L>,
    input: &PlanInput<'_>,
    folder: &str,
    list: &TaskList,
    task: TaskId,
    entry: &Entry,
) -> Result<DocsTask, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let own = path(folder, &format!("docs/task-{task}"));
    let mut existing = Vec::new();
    for document in Document::ALL {
        let text = reader.text(&format!("{own}/{}", document.file()))?;
        existing.extend(
            text.filter(|text| !text.trim().is_empty())
                .map(|text| (document, truncate(&text, EXISTING_MAX_BYTES))),
        );
    }
    let has = |document: &Document| existing.iter().any(|(existing, _)| existing == document);
    let rewrite = input.force
        && !(input.written_before)(&own)
            .map_err(|source| DocumentsError::Unreadable { path: own.clone(), source })?;
    let missing = Document::ALL.into_iter().filter(|document| rewrite || !has(document)).collect();
    let ids = entry.dependencies.iter().take(MAX_DEPENDENCIES);
    let dependencies = ids.map(|id| find_related(list, id)).collect();
    Ok(DocsTask { task, entry: entry.clone(), missing, existing, dependencies, dependents: Vec::new() })
}

fn related(entry: &Entry) -> RelatedTask {
    summarize(&entry.id, Some(&entry.title), entry.status.as_deref(), entry.description.as_deref())
}

/// Returns the task (`2`) or subtask (`2.1`) with this id.
fn find_related(list: &TaskList, id: &str) -> RelatedTask {
    match list.get(id) {
        Some(found) => summarize(id, Some(found.title), found.status, found.description),
        None => summarize(id, None, None, None),
    }
}

/// Returns the start of each field: many tasks may be related to a large one.
fn summarize(id: &str, title: Option<&str>, status: Option<&str>, description: Option<&str>) -> RelatedTask {
    RelatedTask {
        id: shorten(id),
        title: title.map(|title| title.chars().take(RELATED_TITLE_MAX_CHARS).collect()),
        status: status.map(shorten),
        description: description.map(|description| truncate(description, RELATED_MAX_BYTES)),
    }
}

#[cfg(test)]
mod tests;
