//! What the working tree holds, and what is known of a task's earlier attempts:
//! small files that survive a crash.

use std::io;
use std::path::Path;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{RunName, TaskKey};
use serde::{Deserialize, Serialize};

use crate::record::file::{read_json, write_json};

/// What the working tree holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TreeState {
    /// The run that used it last.
    pub run: RunName,
    /// Whether it can hold work that is nowhere else.
    pub status: WorktreeStatus,
    /// The branch.
    pub branch: String,
    /// The commit that the branch had when the agent got it.
    pub start: String,
    /// The base's commit.
    pub base: String,
}

/// Whether the working tree can hold work that is nowhere else.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorktreeStatus {
    /// It is being made: what is in it comes from the control repository.
    CheckingOut,
    /// An agent may have worked in it.
    Dirty,
    /// Everything in it is in the control repository.
    Clean,
}

/// What the working tree holds; none if it was never made, or nobody can say.
///
/// # Errors
/// The file is there but cannot be read.
pub fn read_tree_state(file: &Path) -> io::Result<Option<TreeState>> {
    read_json(file)
}

/// Records what the working tree holds. It is on disk when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn write_tree_state(file: &Path, state: &TreeState) -> io::Result<()> {
    write_json(file, state)
}

/// What is known of a task's last attempt.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastAttempt {
    /// The run.
    pub run: String,
    /// Its branch.
    pub branch: String,
    /// The conversation to resume; none if it never began.
    pub session: Option<String>,
    /// How it ended; empty while it has not.
    pub end: String,
    /// What the agent said at its end.
    pub summary: String,
}

fn path(layout: &Layout, identity: &TaskKey) -> std::path::PathBuf {
    layout.supervisor_dir().join("tasks").join(format!("{}.json", identity.slug()))
}

/// What is known of the last attempt of an identity.
///
/// # Errors
/// The file is there but cannot be read.
pub fn read_last_attempt(layout: &Layout, identity: &TaskKey) -> io::Result<Option<LastAttempt>> {
    read_json(&path(layout, identity))
}

/// Records an attempt. It is on disk when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn write_last_attempt(layout: &Layout, identity: &TaskKey, attempt: &LastAttempt) -> io::Result<()> {
    write_json(&path(layout, identity), attempt)
}
