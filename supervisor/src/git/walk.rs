//! Walks a worktree that the agent wrote.
//!
//! The walk follows no symbolic link, enters no git directory and applies the ignore rules.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{Oid, Repository};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use super::control::{ControlRepository, open_bare};
use super::error::GitError;
use super::stat_cache::FileStat;
use super::tree::{Entry, EntryKind};

/// File or symbolic link.
pub(super) struct WorktreeFile {
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) signature: FileStat,
}

/// Content of a worktree.
#[derive(Default)]
pub(super) struct WalkResult {
    pub(super) files: Vec<WorktreeFile>,
    /// Directories that are git repositories of their own.
    pub(super) nested: Vec<Vec<u8>>,
    /// Tracked submodules that exist, with or without content.
    pub(super) submodules: Vec<Vec<u8>>,
    /// Sockets, pipes and devices.
    pub(super) unsupported: Vec<Vec<u8>>,
    /// Ignored paths; a directory stands for its content.
    pub(super) ignored: Vec<Vec<u8>>,
}

/// Tracked paths; ignore rules do not apply to them.
#[derive(Default)]
pub(super) struct Tracked {
    pub(super) entries: HashMap<Vec<u8>, (EntryKind, Oid)>,
    folders: HashSet<Vec<u8>>,
}

impl Tracked {
    pub(super) fn add(&mut self, entries: Vec<Entry>) {
        for Entry { name, kind, oid } in entries {
            for (at, _) in name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/') {
                if !self.folders.insert(name[..at].to_vec()) {
                    break;
                }
            }
            self.entries.insert(name, (kind, oid));
        }
    }
}

/// Opens the control repository with `root` as its worktree.
///
/// Only for its `.gitignore` and `.gitattributes`: neither configuration nor `info/exclude` is read.
pub(super) fn open_view(control: &ControlRepository, root: &Path) -> Result<Repository, GitError> {
    let repository = open_bare(control.path())?;
    repository.set_workdir(root, false).map_err(GitError::library("open the worktree"))?;
    Ok(repository)
}

/// Opens a subdirectory without following a link.
pub(super) fn open_folder(at: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, OsStr::from_bytes(name), flags, Mode::empty())?)
}

/// Opens the root of a walk without following a link.
pub(super) fn open_root(root: &Path) -> Result<OwnedFd, GitError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, root, flags, Mode::empty())
        .map_err(|error| GitError::file("open", root)(io::Error::from(error)))
}

/// Opens a directory below `root` without following a link in any component.
pub(super) fn open_below(root: BorrowedFd<'_>, folder: &[u8]) -> io::Result<OwnedFd> {
    let mut current = root.try_clone_to_owned()?;
    for part in folder.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        current = open_folder(current.as_fd(), part)?;
    }
    Ok(current)
}

/// Splits a path into parent and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Returns whether git never tracks a name, in any case: file systems may fold it.
pub(super) fn is_git_folder(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b".git")
}

/// Walks the worktree `root`.
pub(super) fn walk(root: &Path, tracked: &Tracked, view: &Repository) -> Result<WalkResult, GitError> {
    let mut walker = Walker { tracked, view, walked: WalkResult::default() };
    let folder = open_root(root)?;
    walker.folder(folder, &mut Vec::new(), false).map_err(GitError::file("read the worktree", root))?;
    walker.walked.files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(walker.walked)
}

struct Walker<'w> {
    tracked: &'w Tracked,
    view: &'w Repository,
    walked: WalkResult,
}

impl Walker<'_> {
    fn ignores(&self, path: &[u8]) -> bool {
        self.view.is_path_ignored(Path::new(OsStr::from_bytes(path))).unwrap_or(false)
    }

    /// Walks a directory. If it is ignored, only its tracked files are recorded.
    fn folder(&mut self, folder: OwnedFd, path: &mut Vec<u8>, ignored: bool) -> io::Result<()> {
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if is_git_folder(name) {
                if !path.is_empty() {
                    self.walked.nested.push(path.clone());
                }
                continue;
            }
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let stat = match statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Deleted since it was listed.
                Err(rustix::io::Errno::NOENT) => {
                    path.truncate(length);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.subfolder(folder.as_fd(), name, path, ignored)?,
                FileType::RegularFile => {
                    let kind =
                        if stat.st_mode & 0o100 == 0 { EntryKind::File } else { EntryKind::Executable };
                    self.file(path, kind, FileStat::of(&stat), ignored);
                }
                FileType::Symlink => self.file(path, EntryKind::Link, FileStat::of(&stat), ignored),
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {
                    self.walked.unsupported.push(path.clone());
                }
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], kind: EntryKind, signature: FileStat, ignored: bool) {
        if self.tracked.entries.contains_key(path) || !(ignored || self.ignores(path)) {
            self.walked.files.push(WorktreeFile { path: path.to_vec(), kind, signature });
        } else if !ignored {
            self.walked.ignored.push(path.to_vec());
        }
    }

    fn subfolder(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        ignored: bool,
    ) -> io::Result<()> {
        let has_tracked = self.tracked.folders.contains(path.as_slice());
        let now_ignored = ignored || (!has_tracked && self.ignores(path));
        if now_ignored && !has_tracked && !self.tracked.entries.contains_key(path.as_slice()) {
            if !ignored {
                self.walked.ignored.push(path.clone());
            }
            return Ok(());
        }
        let folder = open_folder(at, name)?;
        if self.tracked.entries.get(path.as_slice()).is_some_and(|(kind, _)| *kind == EntryKind::Submodule) {
            let mut names = Vec::new();
            for entry in Dir::read_from(&folder)? {
                names.push(entry?.file_name().to_bytes().to_vec());
            }
            let is_repository = names.iter().any(|name| is_git_folder(name));
            if is_repository {
                self.walked.nested.push(path.clone());
            }
            if is_repository || names.iter().all(|name| name == b"." || name == b"..") {
                self.walked.submodules.push(path.clone());
                return Ok(());
            }
        }
        self.folder(folder, path, now_ignored)
    }
}
