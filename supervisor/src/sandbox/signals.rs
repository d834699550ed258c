//! Signals, children and exits of the wrapper's processes, which have one thread each.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Signals that the wrapper passes on to the program.
const FORWARDED: [i32; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// Signals of a faulty instruction; the kernel kills a process that blocks them.
const SYNCHRONOUS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// An event that a wrapper process waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// A child may have exited.
    Child,
    /// A signal to pass on, and whether its sender is outside of this pid namespace.
    Forward { signal: i32, from_outside: bool },
    /// The parent exited.
    ParentExited,
    /// Another signal, or none within the time.
    Other,
}

/// Returns the signal that the kernel sends when the parent exits.
pub(super) fn parent_exit_signal() -> i32 {
    libc::SIGRTMIN() + 5
}

fn blocked() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initializes the set, and `sigdelset` changes only the set.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in SYNCHRONOUS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks all signals, so that [`wait_for_event`] receives them.
pub(super) fn block() {
    let set = blocked();
    // SAFETY: the set is initialized; the old mask is not wanted.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Unblocks all signals: a program inherits the mask.
pub(super) fn unblock() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initializes the set before its use.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Waits for a blocked signal, at most for `limit` if there is one.
pub(super) fn wait_for_event(limit: Option<Duration>) -> Event {
    let set = blocked();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let signal = match limit {
        // SAFETY: both pointers are valid for the call.
        None => unsafe { libc::sigwaitinfo(&raw const set, info.as_mut_ptr()) },
        Some(limit) => {
            let limit = libc::timespec {
                tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: limit.subsec_nanos().into(),
            };
            // SAFETY: the pointers are valid for the call.
            unsafe { libc::sigtimedwait(&raw const set, info.as_mut_ptr(), &raw const limit) }
        }
    };
    if signal == libc::SIGCHLD {
        return Event::Child;
    }
    if signal == parent_exit_signal() {
        return Event::ParentExited;
    }
    if !FORWARDED.contains(&signal) {
        return Event::Other;
    }
    // SAFETY: the kernel filled the structure in for a signal that a process or terminal sent.
    let sender = unsafe { info.assume_init().si_pid() };
    Event::Forward { signal, from_outside: sender == 0 }
}

/// Asks the kernel to send `signal` when the thread that started this process exits.
pub(super) fn on_parent_exit(signal: i32) {
    // SAFETY: this option takes one integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

/// Sends a signal to a process, or to a group with a negative id.
pub(super) fn send(process: i32, signal: i32) -> bool {
    // SAFETY: takes integers only.
    unsafe { libc::kill(process, signal) == 0 }
}

/// Which process returns from [`fork`].
pub(super) enum Forked {
    Parent(i32),
    Child,
}

/// Starts a copy of this process, which must have one thread.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: with one thread no lock is held, so the child may allocate and run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(child)),
    }
}

/// Reaps an exited child, any with -1, without waiting; returns its id and status as in wait(2).
pub(super) fn reap(process: i32) -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    let child = unsafe { libc::waitpid(process, &raw mut status, libc::WNOHANG) };
    (child > 0).then_some((child, status))
}

/// Exits without running destructors.
pub(super) fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process; nothing is buffered.
    unsafe { libc::_exit(code.into()) }
}

/// Ends this process as the program ended: with its exit code or by its signal.
pub(super) fn exit_like(status: i32) -> ! {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        let mut set = MaybeUninit::uninit();
        // SAFETY: the set is initialized before its use, and the default action needs no handler.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::kill(libc::getpid(), signal);
        }
        exit_now(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    exit_now(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
}
