//! Moves a worktree aside, whole: what cannot be saved as a commit is never deleted.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use orchestrator_contract::layout::Layout;

use crate::failure::Failure;

/// Length of the random part of a name.
const RANDOM_LEN: usize = 8;

/// Moves a worktree to `.orchestrator/aside/{owner}-{random}`; returns its new path.
///
/// A file of that name with `.txt` says why. Nothing below the worktree is opened, so its content
/// cannot make this fail.
///
/// # Errors
/// Returns an error if the workspace cannot be written.
pub fn move_aside(layout: &Layout, worktree: &Path, owner: &str, why: &str) -> Result<PathBuf, Failure> {
    let note = reserve_name(layout, owner)?;
    let to = note.with_extension("");
    let explanation = format!("{}\n\nMoved from {}: {why}\n", jiff::Timestamp::now(), worktree.display());
    // Only for people: a full disk must not keep the worktree where it is.
    drop(std::fs::write(&note, explanation));
    rename(worktree, &to).map_err(|error| {
        drop(std::fs::remove_file(&note));
        Failure::io(worktree, &error)
    })?;
    for folder in [worktree.parent(), to.parent()].into_iter().flatten() {
        // After a crash the worktree is in one of both places.
        drop(std::fs::File::open(folder).and_then(|folder| folder.sync_all()));
    }
    Ok(to)
}

/// Moves a damaged record aside, so that a new one can be written; returns its new path.
///
/// # Errors
/// Returns an error if the workspace cannot be written.
pub fn move_record_aside(layout: &Layout, record: &Path) -> Result<PathBuf, Failure> {
    let name = record.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let note = reserve_name(layout, &name)?;
    let to = note.with_extension("json");
    let moved = std::fs::rename(record, &to).map_err(|error| Failure::io(record, &error));
    drop(std::fs::remove_file(&note));
    moved.map(|()| to)
}

/// Creates an empty file `{owner}-{random}.txt` that reserves the name.
fn reserve_name(layout: &Layout, owner: &str) -> Result<PathBuf, Failure> {
    let folder = layout.aside();
    let create = || -> io::Result<PathBuf> {
        std::fs::create_dir_all(&folder)?;
        let prefix = format!("{owner}-");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".txt").rand_bytes(RANDOM_LEN);
        builder.permissions(std::fs::Permissions::from_mode(0o664));
        let (mut file, path) = builder.tempfile_in(&folder)?.keep().map_err(|error| error.error)?;
        file.flush()?;
        Ok(path)
    };
    create().map_err(|error| Failure::io(&folder, &error))
}

/// Renames a worktree. Linux asks for write permission on a directory that gets another parent.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied && from.symlink_metadata()?.is_dir() =>
        {
            std::fs::set_permissions(from, std::fs::Permissions::from_mode(0o700))?;
            std::fs::rename(from, to)
        }
        renamed => renamed,
    }
}

/// Returns whether a worktree can hold anything to save: it exists and is not an empty directory.
#[must_use]
pub fn has_content(worktree: &Path) -> bool {
    match std::fs::read_dir(worktree) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        (folder, layout)
    }

    #[test]
    fn worktree_is_moved_whole_with_explanation() {
        let (_folder, layout) = layout();
        let tree = layout.target_repo();
        let mut deep = tree.clone();
        deep.extend(std::iter::repeat_n("d", 600));
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(tree.join("work"), "of hours").unwrap();
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&tree, mode).unwrap();
        let moved = move_aside(&layout, &tree, "run1", "it cannot be read").unwrap();
        std::fs::set_permissions(&moved, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!has_content(&tree) && !tree.exists());
        assert_eq!(std::fs::read_to_string(moved.join("work")).unwrap(), "of hours");
        let name = moved.file_name().unwrap().to_str().unwrap();
        assert!(moved.starts_with(layout.aside()) && name.starts_with("run1-"), "{name}");
        let why = std::fs::read_to_string(layout.aside().join(format!("{name}.txt"))).unwrap();
        assert!(why.contains("it cannot be read"), "{why}");
    }

    #[test]
    fn worktrees_of_one_run_get_different_names() {
        let (_folder, layout) = layout();
        let mut names = std::collections::BTreeSet::new();
        for number in 0..10 {
            std::fs::create_dir(layout.target_repo()).unwrap();
            std::fs::write(layout.target_repo().join("number"), number.to_string()).unwrap();
            names.insert(move_aside(&layout, &layout.target_repo(), "run1", "why").unwrap());
        }
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn link_in_place_of_worktree_is_moved_not_followed() {
        let (_folder, layout) = layout();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("theirs"), "theirs").unwrap();
        std::os::unix::fs::symlink(outside.path(), layout.target_repo()).unwrap();
        let moved = move_aside(&layout, &layout.target_repo(), "run1", "why").unwrap();
        assert!(moved.symlink_metadata().unwrap().is_symlink());
        assert!(outside.path().join("theirs").exists());
    }

    #[test]
    fn only_missing_or_empty_directory_has_no_content() {
        let (_folder, layout) = layout();
        let tree = layout.target_repo();
        assert!(!has_content(&tree));
        std::fs::create_dir(&tree).unwrap();
        assert!(!has_content(&tree));
        std::fs::write(tree.join(".hidden"), "").unwrap();
        assert!(has_content(&tree));
        std::fs::remove_dir_all(&tree).unwrap();
        std::fs::write(&tree, "a file").unwrap();
        assert!(has_content(&tree));
    }
}
