//! The wrapper of the kinds without a pid namespace: a guardian outside of the sandbox.
//!
//! The program is its child and in its process group, so a signal to the group reaches both. It
//! adopts what the program leaves behind. When the program or the supervisor ends, it kills the rest.

use std::time::Duration;

use super::command::Request;
use super::execute::CANNOT_RUN;
use super::signals::{self, Event, Forked};
use crate::process::kill_all_descendants;

/// How long killed processes have: one that hangs in the kernel does not exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How often to look for the supervisor, besides the signal of its end.
const PARENT_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the program and ends as it ends. `start` confines the child and executes the program.
pub(super) fn run(request: &Request, start: impl FnOnce(&Request) -> u8) -> u8 {
    signals::block();
    signals::on_parent_exit(signals::parent_exit_signal());
    crate::process::become_subreaper();
    let guardian = std::process::id();
    let program = match signals::fork() {
        Ok(Forked::Parent(program)) => program,
        Ok(Forked::Child) => {
            signals::on_parent_exit(libc::SIGKILL);
            // The guardian may have ended before that.
            let orphan = std::os::unix::process::parent_id() != guardian;
            signals::exit_now(if orphan { CANNOT_RUN } else { start(request) });
        }
        Err(_) => return CANNOT_RUN,
    };
    let status = loop {
        if std::os::unix::process::parent_id() != request.parent.unsigned_abs() {
            break None;
        }
        match signals::wait_for_event(Some(PARENT_INTERVAL)) {
            // The program got a signal to the group itself. A thread of the parent may have ended.
            Event::Child | Event::Forward { .. } | Event::ParentExited | Event::Other => {}
        }
        if let Some(status) = reap_all(program) {
            break Some(status);
        }
    };
    kill_all_descendants(KILL_TIMEOUT);
    match status {
        Some(status) => signals::exit_like(status),
        None => CANNOT_RUN,
    }
}

/// Reaps exited children; returns the status of the program if it is one of them.
fn reap_all(program: i32) -> Option<i32> {
    let mut found = None;
    while let Some((child, status)) = signals::reap(-1) {
        if child == program {
            found = Some(status);
        }
    }
    found
}
