//! Keeps a process alive through SIGTERM, until it chooses to exit.

use std::sync::atomic::{AtomicBool, Ordering};

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Keeps this process alive through SIGTERM; [`is_terminated`] tells whether it came.
///
/// With a handler, not by ignoring it: children would inherit that, and no program could be terminated.
#[expect(unsafe_code, reason = "rustix has no signal handlers")]
pub fn outlive_sigterm() {
    extern "C" fn remember(_signal: libc::c_int) {
        TERMINATED.store(true, Ordering::Relaxed);
    }
    let handler = remember as extern "C" fn(libc::c_int);
    // SAFETY: the handler only stores to an atomic, so it may interrupt any code.
    let _before = unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// Returns whether this process got SIGTERM after [`outlive_sigterm`].
#[must_use]
pub fn is_terminated() -> bool {
    TERMINATED.load(Ordering::Relaxed)
}
