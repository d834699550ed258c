//! Makes and enters the root directory of the kind `namespaces`.
//!
//! The new root is a file system in memory. Trees of the machine are cloned before it is entered, and
//! attached at the same paths; no path is looked up in the old root afterwards.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, statat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::mounts::{self, COMMON};
use super::spec::SandboxSpec;
use super::visible::Visible;

/// Devices of a sandbox; `tty` is the terminal that a program opened itself.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Links of a sandbox, as in any other system.
const LINKS: &[(&str, &str)] = &[
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
    ("var/run", "/run"),
    ("var/tmp", "/tmp"),
];

/// Where the new root is attached in the old one: a directory that every system has.
const ATTACH_AT: &str = "/proc";

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Makes the root directory that the description asks for and enters it.
///
/// # Errors
/// Returns an error that says which part the kernel refused.
pub(super) fn enter(spec: &SandboxSpec) -> Result<(), String> {
    // Nothing that is mounted here may appear outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| format!("cannot separate the mounts: {error}"))?;
    let visible = Visible::find(&spec.readable, &spec.writable);
    let mut trees = Vec::new();
    for (path, is_writable) in &visible.trees {
        let read_only = if *is_writable { 0 } else { libc::MOUNT_ATTR_RDONLY };
        let tree = mounts::clone(path, COMMON | libc::MOUNT_ATTR_NODEV | read_only);
        let tree = tree.map_err(|error| format!("cannot mount {}: {error}", path.display()))?;
        trees.push((path, tree));
    }
    let own = Own::new(spec).map_err(|(what, error)| format!("cannot mount {what}: {error}"))?;
    let root = Root::attach().map_err(|error| format!("cannot mount a root directory: {error}"))?;
    let failed = |path: &Path, error: io::Error| format!("cannot mount at {}: {error}", path.display());
    for (path, mount) in &own.mounts {
        root.mount(path, mount).map_err(|error| failed(path, error))?;
    }
    for (path, target) in &visible.links {
        root.link(relative(path), target.as_os_str()).map_err(|error| failed(path, error))?;
    }
    for (path, mount) in &trees {
        root.mount(relative(path), mount).map_err(|error| failed(path, error))?;
    }
    for (path, target) in LINKS {
        root.link(Path::new(path), OsStr::new(target)).map_err(|error| failed(Path::new(path), error))?;
    }
    for path in &spec.hidden {
        root.hide(relative(path)).map_err(|error| failed(path, error))?;
    }
    root.protect().map_err(|error| format!("cannot protect the root directory: {error}"))?;
    root.enter().map_err(|error| format!("cannot enter the root directory: {error}"))
}

/// Makes `/proc` of the sandbox read-only: root is not confined by the permissions in it.
pub(super) fn protect_proc() -> io::Result<()> {
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mounts::set_attributes(&proc, libc::MOUNT_ATTR_RDONLY, 0)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// File systems and devices that the sandbox does not share with the machine's programs.
struct Own {
    /// In the order of mounting, with paths relative to the root.
    mounts: Vec<(PathBuf, OwnedFd)>,
}

impl Own {
    fn new(spec: &SandboxSpec) -> Result<Self, (String, io::Error)> {
        let no_programs = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mut all = Vec::new();
        let mut add = |path: &str, mount: io::Result<OwnedFd>| {
            all.push((PathBuf::from(path), mount.map_err(|error| (format!("/{path}"), error))?));
            Ok(())
        };
        add("proc", mounts::new("proc", &[], no_programs))?;
        add("dev", mounts::memory("755"))?;
        // A new one for each mount: terminals of other programs are not in it.
        let terminals = [("ptmxmode", "0666"), ("mode", "0620")];
        add("dev/pts", mounts::new("devpts", &terminals, MountAttrFlags::MOUNT_ATTR_NOEXEC))?;
        if spec.private_tmp {
            add("dev/shm", mounts::memory("1777"))?;
            add("tmp", mounts::memory("1777"))?;
            add("run", mounts::memory("755"))?;
        }
        for name in DEVICES {
            let path = format!("dev/{name}");
            if Path::new("/").join(&path).exists() {
                let device = mounts::clone(&Path::new("/").join(&path), COMMON | libc::MOUNT_ATTR_NOEXEC);
                add(&path, device)?;
            }
        }
        Ok(Self { mounts: all })
    }
}

/// The new root directory.
struct Root(OwnedFd);

impl Root {
    /// Makes it and attaches it where it can be entered.
    fn attach() -> io::Result<Self> {
        let root = mounts::memory("755")?;
        mounts::attach(&root, rustix::fs::CWD, Path::new(ATTACH_AT))?;
        Ok(Self(root))
    }

    /// Attaches a mount, creating its mount point if there is none.
    fn mount(&self, path: &Path, mount: &OwnedFd) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.make_directories(parent)?;
        }
        let kind = statat(mount.as_fd(), "", AtFlags::EMPTY_PATH)?.st_mode;
        if FileType::from_raw_mode(kind) == FileType::Directory {
            self.make_directories(path)?;
        } else if !self.exists(path) {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(openat(&self.0, path, flags, Mode::RUSR)?);
        }
        mounts::attach(mount, &self.0, path)
    }

    fn make_directories(&self, path: &Path) -> io::Result<()> {
        let mut directories: Vec<&Path> = path.ancestors().collect();
        directories.reverse();
        for directory in directories.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            match mkdirat(&self.0, directory, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn link(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        if self.exists(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            match self.make_directories(parent) {
                Ok(()) => {}
                // A directory of the machine has no such link.
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match symlinkat(target, &self.0, path) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        statat(&self.0, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Covers a file or directory with an empty one, if it is visible.
    fn hide(&self, path: &Path) -> io::Result<()> {
        let Ok(data) = statat(&self.0, path, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let cover = match FileType::from_raw_mode(data.st_mode) {
            FileType::Directory => {
                let empty = mounts::memory("555")?;
                mounts::set_attributes(&empty, read_only, 0)?;
                empty
            }
            FileType::RegularFile => mounts::clone(Path::new("/dev/null"), COMMON | read_only)?,
            // A link leads to a path that is visible or hidden itself.
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Ok(()),
        };
        mounts::attach(&cover, &self.0, path)
    }

    /// Makes the directories that only hold mounts read-only.
    fn protect(&self) -> io::Result<()> {
        mounts::set_attributes(&self.0, libc::MOUNT_ATTR_RDONLY, 0)?;
        let devices = openat(&self.0, "dev", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        mounts::set_attributes(&devices, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC, 0)
    }

    /// Makes it the root directory and detaches the old one, see the notes of `pivot_root(2)`.
    fn enter(self) -> io::Result<()> {
        rustix::process::fchdir(&self.0)?;
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        Ok(())
    }
}
