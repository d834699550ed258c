//! Directories that a service keeps from one verification to the next (`verify_keep`).
//!
//! Tests of earlier tasks wrote their content, so the outcome names them. A guest moves them; nothing in
//! them is opened, and no link is followed.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::WorkingDirectory;

use crate::guest::beneath::split;
use crate::guest::{Guest, GuestError, Movable};

/// Moves kept directories into a fresh export; returns their names.
///
/// The guest's folder contains both. A directory that the commit itself has is not replaced. A failure
/// costs that directory.
pub fn restore(guest: &Guest, store: &Path, repository: &Path, names: &[WorkingDirectory]) -> Vec<String> {
    let restored = names.iter().filter(|name| {
        let name = name.relative();
        let (from, to) = (store.join(stored_name(name)), repository.join(name));
        matches!(move_folder(guest, &from, &to, Existing::Keep), Ok(Ok(())))
    });
    restored.map(|name| name.relative().to_owned()).collect()
}

/// Moves the directories out of an export in which commands ran, for the next verification.
///
/// Returns a note for each that exists and cannot be kept.
pub fn store(guest: &Guest, store: &Path, repository: &Path, names: &[WorkingDirectory]) -> Vec<String> {
    let keep_one = |name: &WorkingDirectory| {
        let name = name.relative();
        let (from, to) = (repository.join(name), store.join(stored_name(name)));
        let why = match move_folder(guest, &from, &to, Existing::Replace) {
            Ok(Ok(())) => return None,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Some(format!("`{name}` was not kept for the next verification: {why}"))
    };
    names.iter().filter_map(keep_one).collect()
}

/// What to do with an entry in the place of a moved directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Existing {
    Keep,
    Replace,
}

/// Moves a directory, and creates the parents of its new path.
fn move_folder(
    guest: &Guest,
    from: &Path,
    to: &Path,
    existing: Existing,
) -> Result<io::Result<()>, GuestError> {
    let (Some(from), Some(to)) = (guest.relative(from), guest.relative(to)) else {
        return Ok(Err(io::ErrorKind::InvalidInput.into()));
    };
    if let Some(Err(error)) = guest.stat(&[from])?.pop() {
        return Ok(Err(error));
    }
    if let Err(error) = guest.ensure_folder(split(to).0)? {
        return Ok(Err(error));
    }
    if existing == Existing::Replace
        && let Some(Err(error)) = guest.remove(&[to], false)?.pop()
    {
        return Ok(Err(error));
    }
    guest.move_entry(from, to, Movable::Folder)
}

/// Returns the name in the store: one component for each path.
fn stored_name(name: &str) -> PathBuf {
    PathBuf::from(name.replace('%', "%25").replace('/', "%2F"))
}
