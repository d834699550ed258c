//! Confines processes of ours where they are: a guest, once its directory is open, and a transfer.
//!
//! Defense in depth, for the case that an enemy's data finds a fault in them.

use std::os::fd::BorrowedFd;

use super::spec::{Kind, NetworkView, Role, SandboxSpec};
use super::{filter, rules};

/// Confines this thread and those that it starts, for good, to files below `root`.
///
/// Goes on without what the kernel does not have: the guest is trusted without it.
pub(crate) fn confine_guest(root: BorrowedFd<'_>) {
    // Both mechanisms need it; fails on no kernel that has them.
    let _ = rustix::thread::set_no_new_privs(true);
    drop(rules::confine_to(root));
    let spec = SandboxSpec { network: NetworkView::None, ..SandboxSpec::new(Role::Guest, Kind::Landlock) };
    drop(filter::apply_to_ours(&spec));
}

/// Denies this thread and what it starts the system calls that no program of a sandbox gets, whatever
/// filter the container's engine has.
///
/// # Errors
/// Returns an error if the kernel has no system call filters.
pub(crate) fn confine_container() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
    filter::apply(&SandboxSpec::new(Role::Agent, Kind::Namespaces))
}

/// Confines a transfer that starts no program: it keeps its files and the network, and can reach no
/// Unix socket, no other process and no program.
///
/// Goes on without what the kernel does not have.
pub(crate) fn confine_transfer() {
    let _ = rustix::thread::set_no_new_privs(true);
    drop(filter::apply_to_ours(&SandboxSpec::new(Role::Tool, Kind::Landlock)));
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::sandbox::rules::{OLDEST_ABI, landlock_abi};

    /// Calls `look` in a confined thread; the other threads of the test stay as they are.
    fn confined(root: &Path, look: impl FnOnce() + Send) {
        let opened = File::open(root).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                confine_guest(opened.as_fd());
                look();
            });
            thread.join().unwrap();
        });
    }

    #[test]
    fn confined_guest_works_below_its_root_only() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        for path in [&root.join("a"), &root.join("b"), &outside] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(outside.join("file"), "secret").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        confined(&root, || {
            fs::write(root.join("a/file"), "x").unwrap();
            fs::rename(root.join("a/file"), root.join("b/file")).unwrap();
            fs::set_permissions(root.join("b/file"), fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(fs::read(root.join("b/file")).unwrap(), b"x");
            if landlock_abi() < OLDEST_ABI {
                return;
            }
            for path in [outside.join("file"), root.join("link/file"), "/etc/passwd".into()] {
                assert_eq!(File::open(&path).unwrap_err().kind(), ErrorKind::PermissionDenied, "{path:?}");
            }
            assert!(fs::write(outside.join("new"), "").is_err());
            assert!(fs::read_dir(&outside).is_err());
            assert!(fs::rename(root.join("b/file"), outside.join("file")).is_err());
        });
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"secret");
    }

    #[test]
    fn confined_transfer_keeps_network_without_programs() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                confine_transfer();
                std::net::TcpStream::connect(address).unwrap();
                let unix = std::os::unix::net::UnixDatagram::unbound();
                assert_eq!(unix.unwrap_err().raw_os_error(), Some(libc::EPERM));
                let none = std::ptr::null::<libc::c_char>();
                // SAFETY: without a path the call fails in any case.
                let result = unsafe { libc::syscall(libc::SYS_execve, none, none, none) };
                let error = std::io::Error::last_os_error();
                assert_eq!((result, error.raw_os_error()), (-1, Some(libc::EPERM)));
            });
            thread.join().unwrap();
        });
    }

    #[test]
    fn confined_guest_starts_no_program_and_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        confined(folder.path(), || {
            let none = std::ptr::null::<libc::c_char>();
            for (name, number) in [
                ("execve", libc::SYS_execve),
                ("execveat", libc::SYS_execveat),
                ("socket", libc::SYS_socket),
                ("connect", libc::SYS_connect),
                ("ptrace", libc::SYS_ptrace),
                ("mount", libc::SYS_mount),
                ("unshare", libc::SYS_unshare),
                ("setns", libc::SYS_setns),
                ("io_uring_setup", libc::SYS_io_uring_setup),
                ("bpf", libc::SYS_bpf),
                ("kill", libc::SYS_kill),
                // Without flags it would make a process.
                ("clone", libc::SYS_clone),
            ] {
                // SAFETY: every argument is zero; what is not denied fails for them, or makes a process
                // that the assertion ends.
                let result = unsafe { libc::syscall(number, none, none, none, none, none) };
                let error = std::io::Error::last_os_error();
                if result == 0 && number == libc::SYS_clone {
                    // SAFETY: this is the process that should not exist, or its parent.
                    unsafe { libc::_exit(1) };
                }
                assert_eq!((result, error.raw_os_error()), (-1, Some(libc::EPERM)), "{name}");
            }
            // Threads of a guest work.
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        });
    }
}
