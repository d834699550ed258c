//! Detached mounts, see `fsmount(2)`, `open_tree(2)` and `mount_setattr(2)`. Needs Linux 5.12.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// Attributes of every mount: no program gains rights from a file.
pub(super) const COMMON: u64 = libc::MOUNT_ATTR_NOSUID;

/// Makes a new file system.
pub(super) fn new(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = attributes | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes a file system in memory, with permissions in octal.
pub(super) fn memory(mode: &str) -> io::Result<OwnedFd> {
    new("tmpfs", &[("mode", mode)], MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// Clones the mounts at and below `path`, which must not be a link, and sets attributes on all.
pub(super) fn clone(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, path, flags)?;
    set_attributes(&tree, attributes, libc::AT_RECURSIVE)?;
    Ok(tree)
}

/// Attaches a detached mount at `at`, relative to `directory`.
pub(super) fn attach(mount: &OwnedFd, directory: impl AsFd, at: &Path) -> io::Result<()> {
    Ok(move_mount(mount.as_fd(), "", directory, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Sets attributes of a mount; with the flag `AT_RECURSIVE` also of those below it.
pub(super) fn set_attributes(mount: &impl AsFd, attributes: u64, flags: i32) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: path and structure are valid for the call, and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
