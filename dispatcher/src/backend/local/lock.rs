//! Locks that are released when their holder exits (flock(2)): they belong to the open file
//! description, and so to every process that inherited it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::files;
use crate::task::event_fold::LockState;

/// Opens or creates a lock file. Children only inherit it if it is passed to them.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| files::problem("open lock", path, &error))
}

/// Tries to acquire the lock.
pub(super) fn try_acquire(file: &File, path: &Path) -> Result<bool, Error> {
    loop {
        return match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(files::problem("lock", path, &error.into())),
        };
    }
}

/// Returns whether the lock is held. Acquires it briefly, shared, so that concurrent probes do not see
/// each other.
pub(super) fn probe(path: &Path) -> Result<LockState, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(LockState::Free),
        Err(error) => return Err(files::problem("open lock", path, &error)),
    };
    loop {
        return match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(LockState::Free),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Ok(LockState::Held),
            Err(error) => Err(files::problem("probe lock", path, &error.into())),
        };
    }
}
