//! Builds commands: environment, process group, standard input.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

/// The complete environment of a child.
pub type Environment = BTreeMap<OsString, OsString>;

/// Which process group a child joins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProcessGroup {
    /// A new one, so that it can be signaled with its descendants.
    New,
    /// That of its parent, so that it is signaled with the parent.
    Inherit,
}

/// Builds a tokio command with exactly this environment and no standard input.
///
/// The child is killed when its handle is dropped.
#[must_use]
pub fn command(
    program: impl AsRef<OsStr>,
    environment: &Environment,
    group: ProcessGroup,
) -> tokio::process::Command {
    let mut command = tokio::process::Command::from(blocking_command(program, environment, group));
    command.kill_on_drop(true);
    command
}

/// Builds a command for code outside of an async runtime.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that may call it")]
pub fn blocking_command(
    program: impl AsRef<OsStr>,
    environment: &Environment,
    group: ProcessGroup,
) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env_clear().envs(environment).stdin(Stdio::null());
    if group == ProcessGroup::New {
        command.process_group(0);
    }
    command
}
