//! Removes a directory tree that a sandbox wrote.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Removes a file, link or directory tree; a missing one is no error.
///
/// Follows no link, and needs one descriptor for any depth: a nested directory is moved up to the root
/// before its content is removed.
///
/// # Errors
/// Returns an error if an entry cannot be removed.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let root = open_folder(CWD, path.as_os_str())?;
    let prefix = uuid::Uuid::new_v4().simple().to_string();
    let mut number = 0_u64;
    loop {
        let names = entries(root.as_fd())?;
        if names.is_empty() {
            break;
        }
        for name in names {
            empty(root.as_fd(), &name, &prefix, &mut number)?;
        }
    }
    drop(root);
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

/// Removes one entry of the root; subdirectories of a directory are moved to the root.
fn empty(root: BorrowedFd<'_>, name: &OsStr, prefix: &str, number: &mut u64) -> io::Result<()> {
    if !is_folder(root, name)? {
        return Ok(unlinkat(root, name, AtFlags::empty())?);
    }
    let folder = open_folder(root, name)?;
    for inner in entries(folder.as_fd())? {
        if !is_folder(folder.as_fd(), &inner)? {
            unlinkat(&folder, &inner, AtFlags::empty())?;
            continue;
        }
        if unlinkat(&folder, &inner, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        // Moving a directory changes its `..`, which needs write access to it.
        drop(open_folder(folder.as_fd(), &inner)?);
        *number += 1;
        renameat(&folder, &inner, root, format!("{prefix}-{number}"))?;
    }
    drop(folder);
    Ok(unlinkat(root, name, AtFlags::REMOVEDIR)?)
}

fn is_folder(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a directory without following a link, and makes it writable.
fn open_folder(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, name, flags, Mode::empty()) {
        Ok(folder) => {
            // Fails for the directory of another user; then removing its entries says so.
            let _ = rustix::fs::fchmod(&folder, Mode::RWXU);
            Ok(folder)
        }
        Err(Errno::ACCESS) => {
            // No process is left that could replace the directory by a link meanwhile.
            chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            Ok(openat(at, name, flags, Mode::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

fn entries(folder: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    debug_assert!(names.iter().all(|name| !name.as_bytes().contains(&b'/')));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn tree_is_removed_without_following_links() {
        let outer = tempfile::tempdir().unwrap();
        let (root, kept) = (outer.path().join("root"), outer.path().join("kept"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, root.join("link")).unwrap();
        symlink(&kept, root.join("a/b/link")).unwrap();
        let locked = root.join("a/locked");
        std::fs::create_dir_all(locked.join("inside")).unwrap();
        std::fs::write(locked.join("inside/file"), "x").unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0)).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert!(kept.join("file").exists());
        symlink(&kept, &root).unwrap();
        remove_tree(&root).unwrap();
        assert!(root.symlink_metadata().is_err() && kept.join("file").exists());
        remove_tree(&root).unwrap();
    }

    #[test]
    fn deep_tree_is_removed_with_few_descriptors() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        // A path of this depth is longer than PATH_MAX.
        let mut folder = open_folder(CWD, root.as_os_str()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&folder, "nested", Mode::RWXU).unwrap();
            folder = open_folder(folder.as_fd(), OsStr::new("nested")).unwrap();
        }
        drop(folder);
        remove_tree(&root).unwrap();
        assert!(!root.exists());
    }
}
