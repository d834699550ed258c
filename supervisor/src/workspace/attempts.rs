//! Attempt numbers: 1, 2, 3 ... of one identity, never used twice, not even after a deletion.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use orchestrator_contract::TaskKey;
use orchestrator_contract::layout::Layout;
use rustix::fs::{FlockOperation, flock};

use crate::record::file::write_atomically;

/// The mark of an identity cannot be read or moved.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the attempt number in `{}`", path.display())]
pub struct AttemptError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// The number of the last attempt; 0 if there was none.
///
/// # Errors
/// The mark is there but cannot be read.
pub fn last_attempt(layout: &Layout, identity: &TaskKey) -> Result<u32, AttemptError> {
    let path = layout.attempts(identity);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| AttemptError {
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, "it contains no number"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(AttemptError { path, source }),
    }
}

/// Takes the next number. It is on disk when this returns.
///
/// # Errors
/// The mark cannot be read or moved.
pub fn allocate_attempt(layout: &Layout, identity: &TaskKey) -> Result<u32, AttemptError> {
    let path = layout.supervisor_dir().join("attempts.lock");
    let error = |source| AttemptError { path: path.clone(), source };
    std::fs::create_dir_all(layout.supervisor_dir()).map_err(error)?;
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(error)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
    let next = last_attempt(layout, identity)? + 1;
    record_attempt(layout, identity, next)?;
    Ok(next)
}

/// Makes the mark at least `attempt`: a dispatcher elsewhere may have given out the number.
///
/// # Errors
/// The mark cannot be read or moved.
pub fn record_attempt(layout: &Layout, identity: &TaskKey, attempt: u32) -> Result<(), AttemptError> {
    if last_attempt(layout, identity)? >= attempt {
        return Ok(());
    }
    let path = layout.attempts(identity);
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
        let identity = TaskKey {
            kind: Kind::Implementation,
            service: ServiceName::new("trader").unwrap(),
            agent: AgentName::new("a").unwrap(),
            task: Some(TaskId::new(1).unwrap()),
        };
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let take = || (0..5).map(|_| allocate_attempt(&layout, &identity).unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }
}
