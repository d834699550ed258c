//! Removes trees that something untrusted wrote.
//!
//! Entries are removed relative to open folders and no link is followed. The depth does not
//! matter: folders below a folder are moved up into the tree's root before it is removed, so two
//! descriptors are enough. Another file system that is mounted inside is not entered.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::guest::beneath::{make_accessible, stat_at};

/// Entries to read of a folder before they are removed; bounds the memory.
const MAX_NAMES: usize = 4096;

/// Passes over a folder without any progress until its removal fails.
const MAX_IDLE_PASSES: usize = 3;

/// Passes over one folder while another process fills it.
const MAX_PASSES: usize = 1_000_000;

/// Removes a file, link or directory tree. A missing path is not an error.
///
/// # Errors
/// Returns the first error, after everything else was removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of an entry"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    remove_at(parent.as_fd(), name.as_bytes())
}

/// Removes an entry of a folder, with everything below. A missing entry is not an error.
///
/// # Errors
/// Returns the first error, after everything else was removed.
pub(crate) fn remove_at(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(folder, OsStr::from_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux returns EISDIR for a folder, POSIX allows EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(tree) = enter(folder, name)? else { return Ok(()) };
    let device = fstat(&tree)?.st_dev;
    let mut tree = Tree { root: tree, device, moved: 0, failed: None };
    tree.empty_root()?;
    match unlinkat(folder, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(tree.failed.unwrap_or_else(|| error.into())),
    }
}

/// Opens a folder to empty it, with full access for its owner; `None` if it is gone or is no folder.
fn enter(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(parent, OsStr::from_bytes(name), flags, Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) => {
            make_accessible(parent, name)?;
            open()
        }
        opened => opened,
    };
    let folder = match opened {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mode = fstat(&folder)?.st_mode;
    if mode & 0o700 != 0o700 {
        // Fails for another owner; then the entries tell whether it matters.
        let _ = fchmod(&folder, Mode::from_raw_mode((mode & 0o777) | 0o700));
    }
    Ok(Some(folder))
}

/// Returns at most [`MAX_NAMES`] names of a folder.
fn names(folder: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    // Opens the folder again, so that each pass starts at its beginning.
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
        if names.len() == MAX_NAMES {
            break;
        }
    }
    Ok(names)
}

/// Tree that is being removed.
struct Tree {
    root: OwnedFd,
    device: u64,
    /// Number of the next folder that is moved up.
    moved: u64,
    failed: Option<io::Error>,
}

impl Tree {
    /// Removes the entries of the root until none is left or nothing more can be removed.
    fn empty_root(&mut self) -> io::Result<()> {
        let mut idle = 0;
        for _ in 0..MAX_PASSES {
            let names = names(&self.root)?;
            if names.is_empty() {
                return Ok(());
            }
            let before = self.failed.take();
            let mut progress = false;
            for name in &names {
                match self.remove_entry(name) {
                    Ok(()) => progress = true,
                    Err(error) => drop(self.failed.get_or_insert(error)),
                }
            }
            if self.failed.is_none() {
                self.failed = before;
            }
            idle = if progress { 0 } else { idle + 1 };
            if idle == MAX_IDLE_PASSES {
                break;
            }
        }
        Err(self.failed.take().unwrap_or_else(|| Errno::NOTEMPTY.into()))
    }

    /// Removes one entry of the root; folders inside it are moved up into the root.
    fn remove_entry(&mut self, name: &[u8]) -> io::Result<()> {
        match unlinkat(&self.root, OsStr::from_bytes(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(folder) = enter(self.root.as_fd(), name)? else { return Ok(()) };
        if fstat(&folder)?.st_dev != self.device {
            return Err(Errno::BUSY.into());
        }
        for _ in 0..MAX_PASSES {
            let inside = names(&folder)?;
            let results: Vec<_> = inside.iter().map(|entry| self.take_out(folder.as_fd(), entry)).collect();
            if results.iter().all(Result::is_err) {
                // Empty, or nothing of it can be removed.
                results.into_iter().collect::<io::Result<()>>()?;
                break;
            }
        }
        match unlinkat(&self.root, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, or moves a folder to an unused name of the root.
    fn take_out(&mut self, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        match unlinkat(folder, OsStr::from_bytes(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        // Most folders are small: remove an empty one right here.
        if unlinkat(folder, OsStr::from_bytes(name), AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        loop {
            let unused = format!(".removed-{}", self.moved);
            self.moved += 1;
            if stat_at(self.root.as_fd(), unused.as_bytes()).is_ok() {
                continue;
            }
            let rename = || renameat(folder, OsStr::from_bytes(name), &self.root, unused.as_str());
            let renamed = match rename() {
                // Moving a folder changes its `..`, which needs write access to it.
                Err(Errno::ACCESS) => {
                    make_accessible(folder, name)?;
                    rename()
                }
                renamed => renamed,
            };
            return match renamed {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
    }
}
