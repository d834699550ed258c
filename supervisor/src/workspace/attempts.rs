//! Attempt numbers of a task key: 1, 2, 3, ...; never reused, not even after a deletion.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use orchestrator_contract::TaskKey;
use orchestrator_contract::layout::Layout;
use rustix::fs::{FlockOperation, flock};

use crate::record::file::write_atomically;

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
/// # Errors
/// Returns an error if the file exists but cannot be read.
pub fn last_attempt(layout: &Layout, key: &TaskKey) -> Result<u32, AttemptError> {
    let path = layout.attempts(key);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| AttemptError {
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, "not a number"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(AttemptError { path, source }),
    }
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
    let next = last_attempt(layout, key)? + 1;
    record_attempt(layout, key, next)?;
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
    let path = layout.attempts(key);
    write_atomically(&path, attempt.to_string().as_bytes()).map_err(|source| AttemptError { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator_contract::{AgentName, Kind, ServiceName, TaskId};

    #[test]
    fn concurrent_attempt_numbers_are_unique_without_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let key = TaskKey {
            kind: Kind::Implementation,
            service: ServiceName::new("trader").unwrap(),
            agent: AgentName::new("a").unwrap(),
            task: Some(TaskId::new(1).unwrap()),
        };
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let allocate = || (0..5).map(|_| allocate_attempt(&layout, &key).unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(allocate)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }
}
