//! Finds `.taskmaster` and the files in it.

use std::collections::VecDeque;
use std::io;

use orchestrator_contract::{ServiceName, TaskId};

use super::error::DocumentsError;
use super::reader::Reader;

/// Maximum depth of the search for other `.taskmaster` directories to suggest.
const MAX_CANDIDATE_DEPTH: usize = 4;

/// Maximum entries to visit in that search; an error must not take long in a large repository.
const MAX_CANDIDATE_ENTRIES: usize = 5_000;

/// Returns the path of a file in the `.taskmaster` directory of `folder`.
pub(crate) fn path(folder: &str, rest: &str) -> String {
    join(folder, &format!(".taskmaster/{rest}"))
}

fn join(folder: &str, rest: &str) -> String {
    if folder.is_empty() { rest.to_owned() } else { format!("{folder}/{rest}") }
}

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
    let locations = docs_directory.map_or_else(
        || vec![service.to_string(), format!("projects/{service}"), String::new()],
        |directory| match directory.trim_matches('/').trim_start_matches("./") {
            "." => vec![String::new()],
            directory => vec![directory.to_owned()],
        },
    );
    for location in &locations {
        if !reader.names(path(location, "").trim_end_matches('/'))?.is_empty() {
            return Ok(location.clone());
        }
    }
    for location in &locations {
        let file = join(location, "tasks/tasks.json");
        if reader.exists(&file)? {
            return Err(DocumentsError::OldLayout { file });
        }
    }
    let looked_for = locations.iter().map(|location| path(location, "")).collect();
    Err(DocumentsError::FolderMissing { looked_for, candidates: find_candidates(reader)? })
}

/// Returns the directories that have a `.taskmaster`, as far as they are found soon.
fn find_candidates<R, L>(reader: &Reader<R, L>) -> Result<Vec<String>, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let mut candidates = Vec::new();
    let mut visited = 0;
    let mut queue = VecDeque::from([(String::new(), 0)]);
    while let Some((folder, depth)) = queue.pop_front() {
        visited += 1;
        if visited > MAX_CANDIDATE_ENTRIES {
            break;
        }
        let names = reader.names(&folder)?;
        if names.iter().any(|name| name == ".taskmaster") {
            candidates.push(if folder.is_empty() { ".".to_owned() } else { folder.clone() });
        }
        // Hidden directories are not projects. Listing a file returns nothing.
        for name in names.into_iter().filter(|name| depth < MAX_CANDIDATE_DEPTH && !name.starts_with('.')) {
            queue.push_back((join(&folder, &name), depth + 1));
        }
    }
    Ok(candidates)
}

/// Returns the path of the first of these files, whose names may be in other case.
///
/// `names` are paths below `.taskmaster`; the case of their directories matters.
pub(crate) fn find_file<R, L>(
    reader: &Reader<R, L>,
    folder: &str,
    names: &[&str],
) -> Result<Option<String>, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    for name in names {
        let exact = path(folder, name);
        if reader.exists(&exact)? {
            return Ok(Some(exact));
        }
        let (directory, file) = exact.rsplit_once('/').unwrap_or(("", &exact));
        let found = reader.names(directory)?.into_iter().filter(|other| other.eq_ignore_ascii_case(file));
        for other in found {
            let other = format!("{directory}/{other}");
            if reader.exists(&other)? {
                return Ok(Some(other));
            }
        }
    }
    Ok(None)
}

/// Returns the directory of a task's documents: `docs/task-{id}`, or another spelling of it that exists.
pub(super) fn find_task_folder<R, L>(
    reader: &Reader<R, L>,
    folder: &str,
    task: TaskId,
) -> Result<String, DocumentsError>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    let usual = format!("task-{task}");
    let names = reader.names(&path(folder, "docs"))?;
    let is_spelling = |name: &&String| {
        let number = name.to_ascii_lowercase().strip_prefix("task").map(|rest| {
            let rest = rest.strip_prefix(['-', '_']).unwrap_or(rest);
            rest.bytes().all(|byte| byte.is_ascii_digit()).then(|| rest.parse::<u32>().ok()).flatten()
        });
        number.flatten() == Some(task.get())
    };
    let other = names.iter().filter(is_spelling).find(|_| !names.contains(&usual));
    Ok(format!("docs/{}", other.unwrap_or(&usual)))
}
