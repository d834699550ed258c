//! Writes the files of a tree into a directory, never through a symbolic link.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, statat, symlinkat, unlinkat,
};

use super::control::{ControlRepository, open_bare};
use super::error::GitError;
use super::parallel::map_chunks;
use super::tree::{Entry, EntryKind};
use super::walk::{open_below, open_folder, open_root, split};

/// Creates a directory, replacing a file or link of that name.
pub(super) fn make_root(folder: &Path) -> Result<(), GitError> {
    match folder.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(folder).map_err(GitError::file("remove", folder))?,
        Err(_) => {}
    }
    fs::create_dir_all(folder).map_err(GitError::file("create", folder))
}

/// Removes a file, link or directory tree; links are not followed.
pub(super) fn remove_all(path: &Path) -> Result<(), GitError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(GitError::file("remove", path))
}

/// Creates the parent directories of all entries, replacing files in the way.
pub(super) fn make_folders(root: BorrowedFd<'_>, entries: &[&Entry]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for entry in entries {
        let folder = if entry.kind == EntryKind::Submodule { &entry.name[..] } else { split(&entry.name).0 };
        for (at, _) in folder.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            folders.insert(&folder[..at]);
        }
        if !folder.is_empty() {
            folders.insert(folder);
        }
    }
    let mut open_parent: (&[u8], OwnedFd) = (&[], root.try_clone_to_owned()?);
    for folder in folders {
        let (parent, name) = split(folder);
        if open_parent.0 != parent {
            open_parent = (parent, open_below(root, parent)?);
        }
        match mkdirat(&open_parent.1, OsStr::from_bytes(name), Mode::from_raw_mode(0o777)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                if open_folder(open_parent.1.as_fd(), name).is_err() {
                    unlinkat(&open_parent.1, OsStr::from_bytes(name), AtFlags::empty())?;
                    mkdirat(&open_parent.1, OsStr::from_bytes(name), Mode::from_raw_mode(0o777))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes entries in parallel; returns the stat of each, or `None` for submodules.
pub(super) fn write_all(
    control: &ControlRepository,
    worktree: &Path,
    entries: &[&Entry],
) -> Result<Vec<Option<Stat>>, GitError> {
    let store = control.path();
    map_chunks(entries, |chunk| {
        let root = open_root(worktree)?;
        write_batch(store, root.as_fd(), chunk)
    })
}

/// Writes entries on this thread; see [`write_all`].
pub(super) fn write_batch(
    control: &Path,
    root: BorrowedFd<'_>,
    entries: &[&Entry],
) -> Result<Vec<Option<Stat>>, GitError> {
    let repository = open_bare(control)?;
    let odb = repository.odb().map_err(GitError::library("open the object store"))?;
    let mut current: Option<(&[u8], OwnedFd)> = None;
    let mut stats = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.kind == EntryKind::Submodule {
            stats.push(None);
            continue;
        }
        let (folder, name) = split(&entry.name);
        let failed = || GitError::file("write", Path::new(OsStr::from_bytes(&entry.name)));
        let opened = match current.take() {
            Some((path, opened)) if path == folder => opened,
            Some(_) | None => open_below(root, folder).map_err(failed())?,
        };
        let object = odb.read(entry.oid).map_err(GitError::library(format!("read blob {}", entry.oid)))?;
        let stat = write_one(opened.as_fd(), name, entry.kind, object.data()).map_err(failed())?;
        stats.push(Some(stat));
        current = Some((folder, opened));
    }
    Ok(stats)
}

fn write_one(folder: BorrowedFd<'_>, name: &[u8], kind: EntryKind, data: &[u8]) -> io::Result<Stat> {
    let os_name = OsStr::from_bytes(name);
    for attempt in 0..2 {
        let created = if kind == EntryKind::Link {
            symlinkat(OsStr::from_bytes(data), folder, os_name)
                .and_then(|()| statat(folder, os_name, AtFlags::SYMLINK_NOFOLLOW))
                .map_err(io::Error::from)
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = if kind == EntryKind::Executable { 0o777 } else { 0o666 };
            openat(folder, os_name, flags, Mode::from_raw_mode(mode)).map_err(io::Error::from).and_then(
                |file| {
                    let mut file = File::from(file);
                    file.write_all(data)?;
                    Ok(fstat(&file)?)
                },
            )
        };
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt == 0 => {
                remove_beneath(folder, name)?;
            }
            created => return created,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes the entry `name` of a directory, recursively.
fn remove_beneath(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let os_name = OsStr::from_bytes(name);
    let stat = statat(folder, os_name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(unlinkat(folder, os_name, AtFlags::empty())?);
    }
    let inner = open_folder(folder, name)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&inner)? {
        names.push(entry?.file_name().to_bytes().to_vec());
    }
    for inside in names.iter().filter(|name| *name != b"." && *name != b"..") {
        remove_beneath(inner.as_fd(), inside)?;
    }
    Ok(unlinkat(folder, os_name, AtFlags::REMOVEDIR)?)
}

pub(super) fn stat_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Stat> {
    let (folder, name) = split(path);
    let folder = open_below(root, folder)?;
    Ok(statat(&folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?)
}
