//! The last step of a wrapper process: executing the program.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use super::command::Request;
use super::signals;
use crate::process::{Environment, ProcessGroup, blocking_command};

/// Exit codes of the wrapper, as in env(1): program not found, or not executable.
const NOT_FOUND: u8 = 127;
pub(super) const CANNOT_RUN: u8 = 126;

/// Prints why the wrapper fails; the supervisor shows the end of standard error.
pub(super) fn complain(problem: &str) {
    drop(writeln!(std::io::stderr(), "supervisor confined: {problem}"));
}

/// Executes the program; returns only on failure.
pub(super) fn execute(request: &Request) -> u8 {
    let environment: Environment = std::env::vars_os().collect();
    // The program inherits standard input, process group and session.
    signals::unblock();
    let error = blocking_command(&request.program, &environment, ProcessGroup::Inherit)
        .args(&request.arguments)
        .stdin(Stdio::inherit())
        .exec();
    complain(&format!("cannot run {}: {error}", request.program.display()));
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
}
