//! How a child is started: environment, process group, standard input.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

/// The whole environment of a child.
pub type Environment = BTreeMap<OsString, OsString>;

/// Which process group a child joins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProcessGroup {
    /// One of its own, so that it can be signalled with all it starts.
    New,
    /// That of its parent, so that it ends with it.
    Inherit,
}

/// A child to be started by tokio: nothing inherited but what is named, no standard
/// input, killed when its handle is dropped.
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

/// A child to be started where there is no async runtime.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the rule names")]
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
