//! Which documents a docs run has to write, and what surrounds each task. Pure.

use std::io;

use orchestrator_contract::outcome::{DocumentSource, DocumentSources};
use orchestrator_contract::{ServiceName, TaskId};

use crate::workspace::documents::{
    DocumentsError, Entry, Reader, TaskList, find_folder, path, read_tasks, read_text,
};

/// A document of a task.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Document {
    /// What and why.
    Task,
    /// What the implementing agent is told.
    Prompt,
    /// How it is seen that the task is done.
    Criteria,
}

impl Document {
    /// All documents of a task.
    pub const ALL: [Self; 3] = [Self::Task, Self::Prompt, Self::Criteria];

    /// The file's name in the task's folder.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Task => "task.md",
            Self::Prompt => "prompt.md",
            Self::Criteria => "acceptance-criteria.md",
        }
    }
}

/// What a docs run is asked for.
pub struct PlanInput<'a> {
    /// The service, whose folder or tag is taken first.
    pub service: &'a ServiceName,
    /// The task; all if none.
    pub task: Option<TaskId>,
    /// The folder that holds `.taskmaster`; looked for if not given.
    pub docs_directory: Option<&'a str>,
    /// Whether documents that are there are written again.
    pub force: bool,
    /// Whether an earlier attempt of this run has written them.
    pub written_before: &'a dyn Fn(&str) -> io::Result<bool>,
}

/// What there is to write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The folder that holds `.taskmaster`; empty for the root.
    pub folder: String,
    /// The path of `tasks.json`.
    pub tasks_file: String,
    /// Its tag, where it has tags.
    pub tag: Option<String>,
    /// Path and text of `architecture.md`.
    pub architecture: Option<(String, String)>,
    /// Path and text of `prd.txt` or `prd.md`.
    pub requirements: Option<(String, String)>,
    /// Every task of the project in the order of `tasks.json`.
    pub overview: Vec<RelatedTask>,
    /// The tasks that the run is about, in that order.
    pub subjects: Vec<DocsTask>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A task that the run is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DocsTask {
    /// The task.
    pub task: TaskId,
    /// Its entry in `tasks.json`.
    pub entry: Entry,
    /// The documents to write; none if all are left as they are.
    pub missing: Vec<Document>,
    /// The text of those that are there: a starting point for the wanted ones.
    pub existing: Vec<(Document, String)>,
    /// What it depends on.
    pub dependencies: Vec<RelatedTask>,
    /// What depends on it.
    pub dependents: Vec<RelatedTask>,
}

/// Another task, in a few words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelatedTask {
    /// Its id: `2`, or `2.1` for a subtask.
    pub id: String,
    /// Its title; none if `tasks.json` does not have it.
    pub title: Option<String>,
    /// Its status, such as `done`.
    pub status: Option<String>,
    /// What it is about.
    pub description: Option<String>,
}

impl Plan {
    /// What the outcome says about the texts that the run was made from.
    #[must_use]
    pub fn report(&self) -> DocumentSources {
        let project = [&self.architecture, &self.requirements].into_iter().flatten();
        let files = std::iter::once(self.tasks_file.clone()).chain(project.map(|(path, _)| path.clone()));
        DocumentSources { source: DocumentSource::TaskEntry, files: files.collect(), tag: self.tag.clone() }
    }

    /// The tasks that have documents to write, in order.
    pub fn pending(&self) -> impl Iterator<Item = &DocsTask> {
        self.subjects.iter().filter(|subject| !subject.missing.is_empty())
    }

    /// The folder of a task's documents, relative to the repository.
    #[must_use]
    pub fn folder_of(&self, task: TaskId) -> String {
        path(&self.folder, &format!("docs/task-{task}"))
    }
}

/// Finds out what there is to write.
///
/// # Errors
/// There is no `.taskmaster`, no `tasks.json`, no such task, or a file cannot be understood.
pub fn plan<R, L>(reader: &Reader<R, L>, wanted: &PlanInput<'_>) -> Result<Plan, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let folder = find_folder(reader, wanted.service, wanted.docs_directory)?;
    let Some((tasks_file, tasks)) = read_tasks(reader, wanted.service, &folder)? else {
        let looked_for = ["tasks/tasks.json", "tasks.json"].map(|name| path(&folder, name)).to_vec();
        return Err(DocumentsError::Missing { looked_for });
    };
    if let Some(task) = wanted.task
        && tasks.list.get(&task.to_string()).is_none()
    {
        return Err(DocumentsError::TaskNotFound {
            file: tasks_file,
            task,
            tag: tasks.tag.clone(),
            ids: tasks.list.ids(),
            other_tags: tasks.tags_with(&task.to_string()),
        });
    }
    let mut notes = Vec::new();
    let mut subjects: Vec<DocsTask> = Vec::new();
    for entry in &tasks.list.tasks {
        let Ok(task) = entry.id.parse::<TaskId>() else {
            notes.push(format!("task `{}` has no number for an id and got no documents", entry.id));
            continue;
        };
        if wanted.task.is_some_and(|only| only != task) {
            continue;
        }
        if subjects.iter().any(|subject| subject.task == task) {
            notes.push(format!("`{tasks_file}` has task {task} more than once; the first one counts"));
            continue;
        }
        subjects.push(subject(reader, wanted, &folder, &tasks.list, task, entry)?);
    }
    let project = |names: &[&str]| {
        for name in names {
            let file = path(&folder, name);
            if let Some(text) = read_text(reader, &file)?.filter(|text| !text.trim().is_empty()) {
                return Ok::<_, DocumentsError>(Some((file, text)));
            }
        }
        Ok(None)
    };
    Ok(Plan {
        architecture: project(&["docs/architecture.md", "architecture.md"])?,
        requirements: project(&["docs/prd.txt", "docs/prd.md", "prd.txt", "prd.md"])?,
        overview: tasks.list.tasks.iter().map(neighbour).collect(),
        tag: tasks.tag,
        folder,
        tasks_file,
        subjects,
        notes,
    })
}

fn subject<R, L>(
    reader: &Reader<R, L>,
    wanted: &PlanInput<'_>,
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
        let text = read_text(reader, &format!("{own}/{}", document.file()))?;
        existing.extend(text.filter(|text| !text.trim().is_empty()).map(|text| (document, text)));
    }
    let has = |document: &Document| existing.iter().any(|(there, _)| there == document);
    let again = wanted.force
        && !(wanted.written_before)(&own)
            .map_err(|source| DocumentsError::Unreadable { path: own.clone(), source })?;
    let wanted = Document::ALL.into_iter().filter(|document| again || !has(document)).collect();
    let needs = entry.dependencies.iter().map(|id| find_neighbour(list, id)).collect();
    let depends = |other: &&Entry| {
        let on_it = |id: &String| id.split('.').next() == Some(entry.id.as_str());
        other.id != entry.id && other.dependencies.iter().any(on_it)
    };
    let needed_by = list.tasks.iter().filter(depends).map(neighbour).collect();
    Ok(DocsTask {
        task,
        entry: entry.clone(),
        missing: wanted,
        existing,
        dependencies: needs,
        dependents: needed_by,
    })
}

fn neighbour(entry: &Entry) -> RelatedTask {
    RelatedTask {
        id: entry.id.clone(),
        title: Some(entry.title.clone()),
        status: entry.status.clone(),
        description: entry.description.clone(),
    }
}

/// A task (`2`) or a subtask (`2.1`) that another one names.
fn find_neighbour(list: &TaskList, id: &str) -> RelatedTask {
    if let Some(entry) = list.get(id) {
        return neighbour(entry);
    }
    let subtask = id
        .split_once('.')
        .and_then(|(parent, child)| list.get(parent)?.subtasks.iter().find(|subtask| subtask.id == child));
    RelatedTask {
        id: id.to_owned(),
        title: subtask.map(|subtask| subtask.title.clone()),
        status: subtask.and_then(|subtask| subtask.status.clone()),
        description: subtask.and_then(|subtask| subtask.description.clone()),
    }
}

#[cfg(test)]
mod tests;
