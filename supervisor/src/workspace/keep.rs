//! Directories that a service keeps from one verification to the next (`verify_keep`).
//!
//! Tests of earlier tasks wrote their content, so the outcome names them. The supervisor only moves
//! them: it follows no link and opens nothing in them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use orchestrator_contract::WorkingDirectory;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, renameat, statat};
use rustix::io::Errno;

use crate::git::remove_tree;

/// Moves kept directories into a fresh export; returns their names.
///
/// A directory that the commit itself has is not replaced. A failure costs that directory.
pub fn restore(store: &Path, repository: &Path, names: &[WorkingDirectory]) -> Vec<String> {
    let restored = names.iter().filter(|name| restore_one(store, repository, name.relative()).is_ok());
    restored.map(|name| name.relative().to_owned()).collect()
}

fn restore_one(store: &Path, repository: &Path, name: &str) -> io::Result<()> {
    let stored = open_folder(CWD, store.as_os_str())?;
    let (parent, last) = open_parent(repository, name, true)?;
    if statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).err() != Some(Errno::NOENT) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    move_folder(stored.as_fd(), OsStr::new(&stored_name(name)), parent.as_fd(), OsStr::new(last))
}

/// Moves the directories out of an export in which commands ran, for the next verification.
///
/// Returns a note for each that exists and cannot be kept.
pub fn store(store: &Path, repository: &Path, names: &[WorkingDirectory]) -> Vec<String> {
    let store_one = |name: &WorkingDirectory| {
        let name = name.relative();
        let error = store_one(store, repository, name).err()?;
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        (!is_missing).then(|| format!("`{name}` was not kept for the next verification: {error}"))
    };
    names.iter().filter_map(store_one).collect()
}

fn store_one(store: &Path, repository: &Path, name: &str) -> io::Result<()> {
    std::fs::create_dir_all(store)?;
    let (parent, last) = open_parent(repository, name, false)?;
    let stored = open_folder(CWD, store.as_os_str())?;
    let to = stored_name(name);
    remove_tree(&store.join(&to))?;
    move_folder(parent.as_fd(), OsStr::new(last), stored.as_fd(), OsStr::new(&to))
}

/// Returns the name in the store: one component for each path.
fn stored_name(name: &str) -> PathBuf {
    PathBuf::from(name.replace('%', "%25").replace('/', "%2F"))
}

/// Moves a directory; a file or link of that name is refused.
fn move_folder(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, new_name: &OsStr) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(io::Error::other("it is not a directory"));
    }
    Ok(renameat(from, name, to, new_name)?)
}

/// Opens the parent of a path below `root`, following no link.
fn open_parent<'n>(root: &Path, name: &'n str, create: bool) -> io::Result<(OwnedFd, &'n str)> {
    let (folders, last) = name.rsplit_once('/').unwrap_or(("", name));
    let mut parent = open_folder(CWD, root.as_os_str())?;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        if create {
            match mkdirat(&parent, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        parent = open_folder(parent.as_fd(), OsStr::new(part))?;
    }
    Ok((parent, last))
}

fn open_folder(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn names(names: &[&str]) -> Vec<WorkingDirectory> {
        names.iter().map(|name| WorkingDirectory::new(*name).unwrap()).collect()
    }

    #[test]
    fn kept_directory_reaches_next_export() {
        let outer = tempfile::tempdir().unwrap();
        let (first, second, kept) =
            (outer.path().join("1"), outer.path().join("2"), outer.path().join("keep/trader"));
        fs::create_dir_all(first.join("web/dist")).unwrap();
        fs::create_dir_all(&second).unwrap();
        fs::write(first.join("web/dist/file"), "1").unwrap();
        let names = names(&["target", "web/dist"]);
        assert!(restore(&kept, &first, &names).is_empty());
        assert!(store(&kept, &first, &names).is_empty());
        assert_eq!(restore(&kept, &second, &names), ["web/dist"]);
        assert_eq!(fs::read_to_string(second.join("web/dist/file")).unwrap(), "1");
        assert!(restore(&kept, &second, &names).is_empty(), "moved, not copied");
    }

    #[test]
    fn planted_link_is_not_kept() {
        let outer = tempfile::tempdir().unwrap();
        let (tree, kept, own) =
            (outer.path().join("tree"), outer.path().join("keep"), outer.path().join("own"));
        fs::create_dir_all(own.join("dist")).unwrap();
        fs::create_dir_all(&tree).unwrap();
        symlink(&own, tree.join("target")).unwrap();
        symlink(&own, tree.join("web")).unwrap();
        let names = names(&["target", "web/dist"]);
        assert_eq!(store(&kept, &tree, &names).len(), 2);
        assert!(own.join("dist").is_dir());
        assert!(restore(&kept, &tree, &names).is_empty());
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
    }

    #[test]
    fn directory_of_commit_is_not_replaced() {
        let outer = tempfile::tempdir().unwrap();
        let (tree, kept) = (outer.path().join("tree"), outer.path().join("keep"));
        fs::create_dir_all(tree.join("target")).unwrap();
        fs::create_dir_all(kept.join("target")).unwrap();
        assert!(restore(&kept, &tree, &names(&["target"])).is_empty());
    }
}
