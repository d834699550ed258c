//! Measures and removes trees that an agent wrote: no link is followed, and the depth does not matter.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Entries to measure; larger trees have at least the size of those.
const MAX_MEASURED: usize = 2_000_000;

/// Bytes of a block in `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Entries to read of a folder before they are removed; bounds the memory.
const MAX_NAMES: usize = 4096;

/// Passes over one folder, in case another process fills it.
const MAX_PASSES: usize = 1_000_000;

/// Disk space of a tree.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct TreeSize {
    pub(crate) bytes: u64,
    /// Whether the tree has more: it is too large, or part of it cannot be read.
    pub(crate) is_lower_bound: bool,
}

/// Returns the disk space of a tree. Links count themselves, and other file systems inside are not entered.
pub(crate) fn measure(root: &Path) -> TreeSize {
    let mut size = TreeSize::default();
    let Ok(meta) = fs::symlink_metadata(root) else { return size };
    size.bytes = meta.blocks() * BLOCK_BYTES;
    let device = meta.dev();
    let mut folders: Vec<PathBuf> = if meta.is_dir() { vec![root.to_owned()] } else { Vec::new() };
    let mut measured = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            size.is_lower_bound = true;
            continue;
        };
        for entry in entries {
            measured += 1;
            let Some(meta) = entry.as_ref().ok().and_then(|entry| entry.metadata().ok()) else {
                size.is_lower_bound = true;
                continue;
            };
            if measured > MAX_MEASURED {
                return TreeSize { is_lower_bound: true, ..size };
            }
            size.bytes += meta.blocks() * BLOCK_BYTES;
            if let Ok(entry) = entry
                && meta.is_dir()
                && meta.dev() == device
            {
                folders.push(entry.path());
            }
        }
    }
    size
}

/// Moves an entry to another folder of the same file system, also a folder that its owner may not write.
pub(crate) fn move_entry(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        // Moving a folder changes its `..`, which needs write access to it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_accessible(CWD, from.as_os_str().as_bytes())?;
            fs::rename(from, to)
        }
        moved => moved,
    }
}

/// Removes a file, link or directory tree. A missing path is not an error.
///
/// # Errors
/// Returns the first error, after everything else was removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of an entry"));
    };
    match open_folder(CWD, parent.as_os_str().as_bytes()) {
        Ok(parent) => remove_at(parent.as_fd(), name.as_bytes()),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    if unlink(parent, name)? {
        return Ok(());
    }
    let Some(root) = enter(parent, name)? else { return Ok(()) };
    let mut tree = Tree { root, moved: 0 };
    let failed = tree.empty();
    match unlinkat(parent, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed.err().unwrap_or_else(|| error.into())),
    }
}

/// Removes an entry that is not a folder; returns false for a folder.
fn unlink(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match unlinkat(parent, OsStr::from_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Linux returns EISDIR for a folder, POSIX allows EPERM.
        Err(Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open_folder(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

/// Opens a folder to empty it; `None` if it is gone or is no folder.
fn enter(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Fails for another owner; then the operations tell whether it matters.
    drop(make_accessible(parent, name));
    match openat(parent, OsStr::from_bytes(name), flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives the owner of a folder full access to it.
fn make_accessible(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let name = OsStr::from_bytes(name);
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || mode.contains(Mode::RWXU) {
        return Ok(());
    }
    // The programs of the run have ended, so that none of them replaces the folder by a link.
    Ok(chmodat(parent, name, mode | Mode::RWXU, AtFlags::empty())?)
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

/// Tree that is being removed. Folders below a folder are moved up into the root, so that two descriptors
/// are enough for any depth.
struct Tree {
    root: OwnedFd,
    /// Number of the next folder that is moved up.
    moved: u64,
}

impl Tree {
    /// Removes the entries of the root until none is left or nothing more can be removed.
    fn empty(&mut self) -> io::Result<()> {
        for _ in 0..MAX_PASSES {
            let names = names(&self.root)?;
            if names.is_empty() {
                return Ok(());
            }
            let results: Vec<_> = names.iter().map(|name| self.remove_entry(name)).collect();
            if results.iter().all(Result::is_err) {
                return results.into_iter().collect();
            }
        }
        Err(Errno::NOTEMPTY.into())
    }

    fn remove_entry(&mut self, name: &[u8]) -> io::Result<()> {
        if unlink(self.root.as_fd(), name)? {
            return Ok(());
        }
        let Some(folder) = enter(self.root.as_fd(), name)? else { return Ok(()) };
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
        let entry = OsStr::from_bytes(name);
        // Most folders are small: an empty one is removed right here.
        if unlink(folder, name)? || unlinkat(folder, entry, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        // Moving a folder changes its `..`, which needs write access to it.
        drop(make_accessible(folder, name));
        loop {
            let unused = format!(".removed-{}", self.moved);
            self.moved += 1;
            if statat(&self.root, unused.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                continue;
            }
            return match renameat(folder, entry, &self.root, unused.as_str()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn tree_without_access_or_with_links_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, other) = (folder.path().join("tree"), folder.path().join("other"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "x").unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        symlink(&other, tree.join("a/link")).unwrap();
        symlink(&other, tree.join("link")).unwrap();
        for closed in ["a/b/c", "a/b", "a", ""] {
            set_mode(&tree.join(closed), 0);
        }
        set_mode(&other, 0o500);
        remove(&tree).unwrap();
        assert!(fs::symlink_metadata(&tree).is_err());
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "x");
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o500, "a link was followed");
        // A link in place of the tree is removed itself.
        symlink(&other, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(other.join("file").exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn tree_deeper_than_any_path_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut current = open_folder(CWD, tree.as_os_str().as_bytes()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, "folder", Mode::RWXU).unwrap();
            current = open_folder(&current, b"folder").unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn size_counts_no_target_of_link() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, other) = (folder.path().join("tree"), folder.path().join("other"));
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::write(&other, vec![1; 1 << 20]).unwrap();
        symlink(&other, tree.join("a/link")).unwrap();
        let small = measure(&tree);
        assert!(small.bytes < 1 << 19 && !small.is_lower_bound, "{small:?}");
        fs::write(tree.join("a/file"), vec![1; 1 << 20]).unwrap();
        assert!(measure(&tree).bytes >= 1 << 20);
        assert_eq!(measure(&tree.join("none")), TreeSize::default());
    }
}
