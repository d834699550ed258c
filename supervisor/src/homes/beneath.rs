//! Reads files that something in a sandbox may have written: without following links, regular
//! files only, bounded.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, open, openat};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A component is a link, or the file is a directory, pipe, socket or device.
    #[error("it is not a regular file in a plain directory")]
    NotRegular,
    /// The file has more bytes than the caller accepts.
    #[error("it has more than {max} bytes")]
    TooLarge { max: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Opens the regular file at `relative` below `root`, without following a link below `root`.
///
/// Returns `None` if there is none.
fn open_file(root: &Path, relative: &Path, max: u64) -> Result<Option<File>, ReadError> {
    let folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    // A pipe without a writer would block the open otherwise.
    let file = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::NOENT => None,
        // A link: ELOOP for a file, ENOTDIR for a directory. A socket: ENXIO.
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR | rustix::io::Errno::NXIO => {
            Some(ReadError::NotRegular)
        }
        other => Some(ReadError::Io(other.into())),
    };
    let mut names: Vec<&std::ffi::OsStr> = Vec::new();
    for component in relative.components() {
        let Component::Normal(name) = component else { return Err(ReadError::NotRegular) };
        names.push(name);
    }
    let Some((name, folders)) = names.split_last() else { return Err(ReadError::NotRegular) };
    let opened = || -> rustix::io::Result<OwnedFd> {
        let mut at = open(root, folder, Mode::empty())?;
        for name in folders {
            at = openat(&at, *name, folder, Mode::empty())?;
        }
        openat(&at, *name, file, Mode::empty())
    };
    let opened = match opened() {
        Ok(opened) => opened,
        Err(error) => return failed(error).map_or(Ok(None), Err),
    };
    let data = fstat(&opened).map_err(io::Error::from)?;
    if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile {
        return Err(ReadError::NotRegular);
    }
    if u64::try_from(data.st_size).unwrap_or(u64::MAX) > max {
        return Err(ReadError::TooLarge { max });
    }
    Ok(Some(File::from(opened)))
}

/// Reads the regular file at `relative` below `root`, of `max` bytes at most.
///
/// Returns `None` if there is none. `root` itself must not be writable by a sandbox's programs.
///
/// # Errors
/// Returns an error if a component below `root` is a link, or if the file is not regular, too
/// large or unreadable.
pub fn read_file(root: &Path, relative: &Path, max: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let mut content = Vec::new();
    let size = copy_file(root, relative, max, &mut content)?;
    Ok(size.map(|_| content))
}

/// Copies the regular file at `relative` below `root` to `target`, as [`read_file`] reads it.
///
/// Returns its size in bytes, or `None` if there is none.
///
/// # Errors
/// Returns an error as [`read_file`] does, or if `target` cannot be written.
pub fn copy_file(
    root: &Path,
    relative: &Path,
    max: u64,
    target: &mut impl Write,
) -> Result<Option<u64>, ReadError> {
    let Some(file) = open_file(root, relative, max)? else { return Ok(None) };
    // The file may grow meanwhile.
    let size = io::copy(&mut file.take(max.saturating_add(1)), target)?;
    if size > max { Err(ReadError::TooLarge { max }) } else { Ok(Some(size)) }
}

/// Returns the names in the directory at `relative` below `root`, of which at most `max` are read.
///
/// Returns none if the directory is missing, or if it or a parent below `root` is a link.
pub(super) fn list(root: &Path, relative: &Path, max: usize) -> Vec<std::ffi::OsString> {
    use std::os::unix::ffi::OsStrExt as _;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut at = openat(CWD, root, flags, Mode::empty());
    for component in relative.components() {
        let Component::Normal(name) = component else { return Vec::new() };
        at = at.and_then(|at| openat(&at, name, flags, Mode::empty()));
    }
    let Ok(entries) = at.and_then(rustix::fs::Dir::new) else { return Vec::new() };
    entries
        .take(max)
        .filter_map(Result::ok)
        .map(|entry| std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
        .filter(|name| name != "." && name != "..")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const MAX: u64 = 1024;

    #[test]
    fn link_anywhere_below_root_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (lead, root) = (folder.path().join("lead"), folder.path().join("root"));
        for path in [&lead, &root.join("a/b")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(lead.join("key"), "secret").unwrap();
        std::fs::write(root.join("a/b/plain"), "data").unwrap();
        symlink(lead.join("key"), root.join("a/b/link")).unwrap();
        symlink(&lead, root.join("a/folder")).unwrap();
        symlink(root.join("a"), root.join("inside")).unwrap();
        let read = |path: &str| read_file(&root, Path::new(path), MAX);
        assert_eq!(read("a/b/plain").unwrap(), Some(b"data".to_vec()));
        assert_eq!(read("a/b/none").unwrap(), None);
        assert_eq!(read("none/at/all").unwrap(), None);
        let refused = ["a/b/link", "a/folder/key", "inside/b/plain", "a/b", "../lead/key", "", "/etc/passwd"];
        for path in refused {
            assert!(matches!(read(path), Err(ReadError::NotRegular)), "{path}: {:?}", read(path));
        }
        assert!(list(&root, Path::new("a/folder"), 10).is_empty());
        assert_eq!(list(&root, Path::new("a/b"), 10).len(), 2);
    }

    #[test]
    fn pipe_socket_or_oversized_file_is_refused_without_delay() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        rustix::fs::mknodat(CWD, path("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        // Sparse: it takes no space.
        File::create(path("huge")).unwrap().set_len(300 << 30).unwrap();
        for name in ["pipe", "socket"] {
            let read = read_file(root.path(), Path::new(name), MAX);
            assert!(matches!(read, Err(ReadError::NotRegular)), "{name}: {read:?}");
        }
        let read = read_file(root.path(), Path::new("huge"), MAX);
        assert!(matches!(read, Err(ReadError::TooLarge { max: MAX })), "{read:?}");
    }
}
