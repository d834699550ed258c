//! Attempt numbers of a task key: 1, 2, 3, ...; never reused, not even after a deletion.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::names::fresh_branch;
use orchestrator_contract::{Kind, RunName, TaskKey, TaskSpec};
use rustix::fs::{FlockOperation, flock};

use crate::git::ControlRepository;
use crate::record::file::{read_json, write_atomically};

/// The last attempt number cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot update attempt number in `{}`", path.display())]
pub struct AttemptError {
    /// File with the number.
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Returns the number of the last attempt, or 0 if there was none.
///
/// It is the highest of the counter file and the directories of the runs. If the file is missing
/// or damaged, refs count too.
///
/// # Errors
/// Returns an error if the file or the directory of the runs exists but cannot be read.
pub fn last_attempt(layout: &Layout, key: &TaskKey) -> Result<u32, AttemptError> {
    let path = layout.attempts(key);
    let counted = match std::fs::read(&path) {
        Ok(text) => std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u32>().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // A directory in place of the file is replaced when the number is recorded.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => None,
        Err(source) => return Err(AttemptError { path, source }),
    };
    let runs = recorded_runs(layout, key).map_err(|source| AttemptError { path: layout.runs(), source })?;
    let highest_run = runs.last_key_value().map_or(0, |(attempt, _)| *attempt);
    let counted = counted.unwrap_or_else(|| highest_in_refs(layout, key));
    Ok(counted.max(highest_run))
}

/// Returns the runs of a task key that have a directory in the workspace, by attempt.
///
/// # Errors
/// Returns an error if the directory of the runs exists but cannot be read.
pub(crate) fn recorded_runs(layout: &Layout, key: &TaskKey) -> io::Result<BTreeMap<u32, RunName>> {
    let entries = match std::fs::read_dir(layout.runs()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut runs = BTreeMap::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some((attempt, run)) = name.to_str().and_then(|name| attempt_of(key, name)) else { continue };
        // Names of different keys can collide; an unreadable task counts.
        let task: Option<TaskSpec> = read_json(&layout.run_dir(&run).task()).ok().flatten();
        if task.is_none_or(|task| task.identity() == *key) {
            runs.insert(attempt, run);
        }
    }
    Ok(runs)
}

/// Returns the attempt of a run name, if the run is one of the task key.
fn attempt_of(key: &TaskKey, name: &str) -> Option<(u32, RunName)> {
    let attempt = name.rsplit_once("-attempt")?.1.parse().ok()?;
    let names = [false, true].map(|taken| key.run_name(attempt, |_| taken));
    let run = names.into_iter().find(|run| run.as_str() == name)?;
    Some((attempt, run))
}

/// Returns the highest attempt that a ref of a control repository names; 0 without one.
fn highest_in_refs(layout: &Layout, key: &TaskKey) -> u32 {
    let (control, task) = match key.kind {
        Kind::Implementation => (layout.target_control(), key.task),
        Kind::Docs => (layout.docs_control(), None),
    };
    let Ok(control) = ControlRepository::open_existing(&control) else { return 0 };
    let references = control.references("refs/*").unwrap_or_default();
    let attempts = references.iter().filter_map(|(name, _)| {
        if let Some(rest) = name.strip_prefix("refs/orchestrator/") {
            return attempt_of(key, rest.split('/').next()?).map(|(attempt, _)| attempt);
        }
        let attempt = name.rsplit_once('-')?.1.parse().ok()?;
        name.ends_with(fresh_branch(task?, attempt).as_str()).then_some(attempt)
    });
    attempts.max().unwrap_or_default()
}

/// Allocates the next attempt number and syncs it to disk.
///
/// # Errors
/// Returns an error if the number cannot be read or written.
pub fn allocate_attempt(layout: &Layout, key: &TaskKey) -> Result<u32, AttemptError> {
    let path = layout.supervisor_dir().join("attempts.lock");
    let error = |source| AttemptError { path: path.clone(), source };
    std::fs::create_dir_all(layout.supervisor_dir()).map_err(error)?;
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(error)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
    let next = last_attempt(layout, key)?.saturating_add(1);
    write_number(layout, key, next)?;
    Ok(next)
}

/// Raises the last attempt number to `attempt`, which a dispatcher may have allocated elsewhere.
///
/// # Errors
/// Returns an error if the number cannot be read or written.
pub fn record_attempt(layout: &Layout, key: &TaskKey, attempt: u32) -> Result<(), AttemptError> {
    if last_attempt(layout, key)? >= attempt {
        return Ok(());
    }
    write_number(layout, key, attempt)
}

fn write_number(layout: &Layout, key: &TaskKey, attempt: u32) -> Result<(), AttemptError> {
    let path = layout.attempts(key);
    if path.is_dir() {
        // Fails if it has content, which is not ours.
        std::fs::remove_dir(&path).map_err(|source| AttemptError { path: path.clone(), source })?;
    }
    write_atomically(&path, attempt.to_string().as_bytes()).map_err(|source| AttemptError { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator_contract::{AgentName, ServiceName, TaskId};

    fn key() -> TaskKey {
        TaskKey {
            kind: Kind::Implementation,
            service: ServiceName::new("trader").unwrap(),
            agent: AgentName::new("a").unwrap(),
            task: Some(TaskId::new(1).unwrap()),
        }
    }

    fn make_run(layout: &Layout, name: &str) {
        std::fs::create_dir_all(layout.run_dir(&RunName::new(name).unwrap()).folder()).unwrap();
    }

    #[test]
    fn damaged_counter_never_reuses_number() {
        for damage in ["", "garbage", "-1", "1.5", "99999999999999999999", "\u{0}", "1"] {
            let folder = tempfile::tempdir().unwrap();
            let (layout, key) = (Layout::new(folder.path()), key());
            for number in 1..=3 {
                assert_eq!(allocate_attempt(&layout, &key).unwrap(), number);
                make_run(&layout, &format!("trader-a-task1-attempt{number}"));
            }
            make_run(&layout, "trader-a-task10-attempt9");
            make_run(&layout, "trader-b-task1-attempt9");
            std::fs::write(layout.attempts(&key), damage).unwrap();
            assert_eq!(last_attempt(&layout, &key).unwrap(), 3, "{damage:?}");
            assert_eq!(allocate_attempt(&layout, &key).unwrap(), 4, "{damage:?}");
            assert_eq!(allocate_attempt(&layout, &key).unwrap(), 5, "{damage:?}");
        }
    }

    #[test]
    fn counter_that_is_directory_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, key) = (Layout::new(folder.path()), key());
        std::fs::create_dir_all(layout.attempts(&key)).unwrap();
        make_run(&layout, "trader-a-task1-attempt7");
        assert_eq!(allocate_attempt(&layout, &key).unwrap(), 8);
        record_attempt(&layout, &key, 20).unwrap();
        assert_eq!(last_attempt(&layout, &key).unwrap(), 20);
    }

    #[test]
    fn refs_count_without_counter_and_runs() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, key) = (Layout::new(folder.path()), key());
        let url = orchestrator_contract::RepositoryUrl::new("https://github.com/acme/trader").unwrap();
        let control = ControlRepository::open(&layout.target_control(), &url).unwrap().into_repository();
        for name in [
            "refs/heads/feature/task-1-implementation-4",
            "refs/heads/feature/task-2-implementation-40",
            "refs/orchestrator/trader-a-task1-attempt6/rewritten",
            "refs/orchestrator/trader-a-task2-attempt60/rewritten",
        ] {
            let file = control.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "0123456789012345678901234567890123456789\n").unwrap();
        }
        assert_eq!(last_attempt(&layout, &key).unwrap(), 6);
    }

    #[test]
    fn concurrent_attempt_numbers_are_unique_without_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let key = key();
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let allocate = || (0..5).map(|_| allocate_attempt(&layout, &key).unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(allocate)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }
}
