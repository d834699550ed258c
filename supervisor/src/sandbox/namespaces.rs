//! The kind `namespaces`: three processes of ours around the program.
//!
//! The *wrapper* is the supervisor's child. It makes the namespaces, starts the *init* and passes
//! signals on to it. The init is process 1 of the new pid namespace: it makes the file system, starts
//! the program, passes signals on to the program's process group and reports the program's status.
//! When the init ends, the kernel kills everything in the namespace; it ends with the program, and
//! the kernel kills it with the wrapper.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::{getegid, geteuid};

use super::command::Request;
use super::execute::{CANNOT_RUN, complain, execute};
use super::signals::{self, Event, Forked};
use super::spec::NetworkView;
use super::{filter, rights, root, rules};

/// How often to look for the parent, besides the signal of its end.
const PARENT_INTERVAL: Duration = Duration::from_secs(1);

/// Makes the sandbox, runs the program in it and ends as it ends.
pub(super) fn run(request: &Request) -> u8 {
    signals::block();
    signals::on_parent_exit(signals::parent_exit_signal());
    match start_init(request) {
        Ok((init, status)) => attend_init(request, init, status),
        Err(error) => {
            complain(&error);
            CANNOT_RUN
        }
    }
}

/// Makes the namespaces and starts the init; returns its id and the pipe of the program's status.
fn start_init(request: &Request) -> Result<(i32, OwnedFd), String> {
    let failed = |what: &str, error: std::io::Error| format!("cannot {what}: {error}");
    let directory = std::env::current_dir().map_err(|error| failed("read the working directory", error))?;
    let (status, status_tx) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("make a pipe", error.into()))?;
    unshare(request.spec.network).map_err(|error| failed("make namespaces", error))?;
    match signals::fork().map_err(|error| failed("start a process in the namespaces", error))? {
        Forked::Parent(init) => {
            drop(status_tx);
            // The new namespaces gave this process capabilities in them.
            rights::drop_capabilities().map_err(|error| failed("drop capabilities", error))?;
            rights::set_dumpable(false);
            // The capabilities that changed may have reset it.
            signals::on_parent_exit(signals::parent_exit_signal());
            Ok((init, status))
        }
        Forked::Child => {
            drop(status);
            signals::on_parent_exit(libc::SIGKILL);
            let code = match init(request, &directory, status_tx) {
                Ok(()) => 0,
                Err(error) => {
                    complain(&error);
                    CANNOT_RUN
                }
            };
            signals::exit_now(code)
        }
    }
}

/// Moves into new namespaces, in which this user and group keep their numbers and no other exists.
fn unshare(network: NetworkView) -> std::io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if network == NetworkView::None {
        flags |= libc::CLONE_NEWNET;
    }
    // SAFETY: takes an integer; this process has one thread and shares nothing with others.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // Without capabilities outside, a group is mapped only after this, see user_namespaces(7).
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Passes signals on to the init until it ends, and ends as the program ended.
fn attend_init(request: &Request, init: i32, status: OwnedFd) -> u8 {
    loop {
        if std::os::unix::process::parent_id() != request.parent.unsigned_abs() {
            signals::send(init, libc::SIGKILL);
            return CANNOT_RUN;
        }
        match signals::wait_for_event(Some(PARENT_INTERVAL)) {
            Event::Forward { signal, from_outside: _ } => {
                signals::send(init, signal);
            }
            Event::Child | Event::ParentExited | Event::Other => {}
        }
        if let Some((_, init_status)) = signals::reap(init) {
            let mut report = [0; 4];
            match File::from(status).read_exact(&mut report) {
                Ok(()) => signals::exit_like(i32::from_ne_bytes(report)),
                // The init ended before the program: killed, or without a sandbox.
                Err(_) => signals::exit_like(init_status),
            }
        }
    }
}

/// Process 1 of the pid namespace: makes the file system, starts the program and waits for its end.
fn init(request: &Request, directory: &Path, status_tx: OwnedFd) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("cannot {what}: {error}");
    // The wrapper may have ended before it could kill this process with itself.
    if is_broken(&status_tx) {
        return Ok(());
    }
    rustix::process::setsid().map_err(|error| failed("make a session", error.into()))?;
    root::enter(&request.spec)?;
    // The limit of this namespace: nothing in it can make a user namespace, which gives capabilities.
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")
        .map_err(|error| failed("turn off nested namespaces", error))?;
    root::protect_proc().map_err(|error| failed("protect /proc", error))?;
    rights::drop_capabilities().map_err(|error| failed("drop capabilities", error))?;
    signals::on_parent_exit(libc::SIGKILL);
    rights::set_dumpable(false);
    if is_broken(&status_tx) {
        return Ok(());
    }
    match signals::fork().map_err(|error| failed("start the program", error))? {
        Forked::Parent(program) => {
            attend_program(program, status_tx);
            Ok(())
        }
        Forked::Child => {
            drop(status_tx);
            signals::exit_now(start(request, directory))
        }
    }
}

/// Returns whether the reader of a pipe is gone.
fn is_broken(pipe: &OwnedFd) -> bool {
    let mut polled = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is valid for the call, and its array has one entry.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents & libc::POLLERR != 0
}

/// Reaps everything and passes signals on until the program ends, and reports its status.
fn attend_program(program: i32, status_tx: OwnedFd) {
    loop {
        match signals::wait_for_event(None) {
            Event::Forward { signal, from_outside: true } => {
                // It has no group of its own before its first instruction.
                if !signals::send(-program, signal) {
                    signals::send(program, signal);
                }
            }
            // Programs cannot address others through process 1.
            Event::Forward { from_outside: false, .. }
            | Event::Child
            | Event::ParentExited
            | Event::Other => {}
        }
        while let Some((child, status)) = signals::reap(-1) {
            if child == program {
                drop(File::from(status_tx).write_all(&status.to_ne_bytes()));
                return;
            }
        }
    }
}

/// Confines what namespaces leave open and executes the program; returns only on failure.
fn start(request: &Request, directory: &Path) -> u8 {
    let confine = || -> Result<(), String> {
        let failed = |error: rustix::io::Errno| error.to_string();
        rustix::process::setsid().map_err(failed)?;
        std::env::set_current_dir(directory)
            .map_err(|error| format!("cannot enter {}: {error}", directory.display()))?;
        rules::confine_scopes()?;
        filter::apply(&request.spec)
    };
    match confine() {
        Ok(()) => execute(request),
        Err(error) => {
            complain(&error);
            CANNOT_RUN
        }
    }
}
