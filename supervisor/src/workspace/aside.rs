//! Moves a worktree aside, whole: what cannot be saved as a commit is never deleted.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_contract::layout::Layout;

use crate::failure::Failure;
use crate::guest::{Guest, GuestError, Movable, WriteKind};

/// Length of the random part of a name.
const RANDOM_LEN: usize = 8;

/// Moves a worktree to `{owner}-{random}` in [`Layout::aside`]; returns its new path.
///
/// A file of that name with `.txt` says why. Nothing below the worktree is opened, so its content
/// cannot make this fail. The guest's folder is that of the layout.
///
/// # Errors
/// Returns an error if the workspace cannot be written.
pub fn move_aside(
    guest: &Guest,
    layout: &Layout,
    worktree: &Path,
    owner: &str,
    why: &str,
) -> Result<PathBuf, Failure> {
    let broken = |error: GuestError| Failure::from_error(error.reason(), &error);
    let to = layout.aside().join(format!("{owner}-{}", random_name()));
    let note = to.with_extension("txt");
    let path = |path: &Path| guest.relative(path).map(<[u8]>::to_vec).unwrap_or_default();
    let folder = path(&layout.aside());
    guest.ensure_folder(&folder).map_err(broken)?.map_err(|error| Failure::io(&layout.aside(), &error))?;
    let explanation = format!("{}\n\nMoved from {}: {why}\n", jiff::Timestamp::now(), worktree.display());
    // Only for people: a full disk must not keep the worktree where it is.
    drop(guest.write_one(&note, WriteKind::File, explanation.as_bytes()).map_err(broken)?);
    let moved = guest.move_entry(&path(worktree), &path(&to), Movable::Any).map_err(broken)?;
    if let Err(error) = moved {
        drop(guest.remove(&[&path(&note)], false));
        return Err(Failure::io(worktree, &error));
    }
    Ok(to)
}

/// Moves a damaged record of the supervisor aside, so that a new one can be written; returns its new path.
///
/// # Errors
/// Returns an error if the workspace cannot be written.
pub fn move_record_aside(layout: &Layout, record: &Path) -> Result<PathBuf, Failure> {
    let folder = layout.damaged_records();
    std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
    let name = record.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let to = folder.join(format!("{name}-{}.json", random_name()));
    std::fs::rename(record, &to).map_err(|error| Failure::io(record, &error))?;
    Ok(to)
}

fn random_name() -> String {
    let mut name = uuid::Uuid::new_v4().simple().to_string();
    name.truncate(RANDOM_LEN);
    name
}

/// Returns whether a worktree can hold anything to save: it exists and is not an empty directory.
///
/// # Errors
/// Returns an error if the guest is broken.
pub fn has_content(guest: &Guest, worktree: &Path) -> Result<bool, GuestError> {
    let Some(path) = guest.relative(worktree) else { return Ok(true) };
    let listing = guest.list_one(path, 1)?;
    Ok(match listing.failed {
        Some(error) => error.kind() != io::ErrorKind::NotFound,
        None => !listing.entries.is_empty(),
    })
}
