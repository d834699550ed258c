//! Locks that end with their holder (flock(2)): they belong to the open file
//! description, and so to every process that inherited it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::files;
use crate::task::event_fold::LockState;

/// Opens a lock file, made where there is none. It is closed in children that
/// do not get it on purpose.
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

/// Takes the lock if nobody has it.
pub(super) fn try_take(file: &File, path: &Path) -> Result<bool, Error> {
    loop {
        return match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(files::problem("lock", path, &error.into())),
        };
    }
}

/// Whether somebody has the lock. Looking takes it for a moment, shared, so
/// that two who look do not see each other.
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
            Err(error) => Err(files::problem("look at lock", path, &error.into())),
        };
    }
}
