//! Opens files beneath a folder, never through a symbolic link and never outside of it.
//!
//! `openat2` with `RESOLVE_BENEATH` does it in the kernel. Where it is missing (old gVisor, some
//! seccomp profiles), or a path is too long for it, each component is opened on its own.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

/// Whether this process opens without `openat2`.
static WITHOUT_OPENAT2: AtomicBool = AtomicBool::new(false);

/// How often to repeat `openat2` while names change under it.
const MAX_RETRIES: usize = 16;

const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);

/// Makes this process open component by component, as on a kernel without `openat2`.
pub(crate) fn forgo_openat2() {
    WITHOUT_OPENAT2.store(true, Ordering::Relaxed);
}

/// Splits a path into parent and name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Opens a folder by its path without following a link in the last component.
///
/// Gives the owner access where it has none.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(CWD, path, flags, Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) => {
            make_accessible(CWD, path.as_os_str().as_bytes())?;
            open()
        }
        opened => opened,
    }?;
    if fstat(&opened)?.st_mode & 0o700 != 0o700 {
        // Fails for another owner; then the operations tell whether it matters.
        drop(make_accessible(CWD, path.as_os_str().as_bytes()));
    }
    Ok(opened)
}

/// Opens `path` beneath `root` without following any link. The empty path is `root`.
///
/// `path` has no empty component and none that is `.` or `..`.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_empty() {
        return Ok(openat(root, c".", flags, Mode::empty())?);
    }
    if path.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !WITHOUT_OPENAT2.load(Ordering::Relaxed) {
        for _ in 0..MAX_RETRIES {
            match openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), RESOLVE) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => {
                    forgo_openat2();
                    break;
                }
                // A seccomp profile that does not know the call, or a path longer than `PATH_MAX`.
                Err(Errno::PERM | Errno::NAMETOOLONG) => break,
                opened => return Ok(opened?),
            }
        }
    }
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (parent, name) = split(path);
    let mut current = openat(root, c".", folder, Mode::empty())?;
    for part in parent.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        current = openat(&current, OsStr::from_bytes(part), folder, Mode::empty())?;
    }
    Ok(openat(&current, OsStr::from_bytes(name), flags, Mode::empty())?)
}

/// Opens a folder beneath `root` as the place of its entries.
pub(crate) fn open_parent(root: BorrowedFd<'_>, folder: &[u8]) -> io::Result<OwnedFd> {
    open_beneath(root, folder, OFlags::PATH | OFlags::DIRECTORY)
}

/// Returns the stat of an entry, not of what it links to.
pub(crate) fn stat_at(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    Ok(statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives the owner access to a file or folder of mode 000; fails for other kinds and owners.
///
/// The entry is opened first, so that a link in its place is never followed.
pub(crate) fn make_accessible(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = openat(folder, OsStr::from_bytes(name), flags, Mode::empty())?;
    let stat = fstat(&entry)?;
    let access = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 0o700,
        FileType::RegularFile => 0o600,
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => return Err(Errno::ACCESS.into()),
    };
    // `fchmod` refuses a descriptor of `O_PATH`; this link leads to the opened file itself.
    let opened = format!("/proc/self/fd/{}", entry.as_fd().as_raw_fd());
    Ok(rustix::fs::chmod(opened, Mode::from_raw_mode((stat.st_mode & 0o777) | access))?)
}
