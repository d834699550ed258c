//! Records of the worktree and of the last attempt, as files that survive a crash.

use std::io;
use std::path::Path;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Kind, RunName, TaskKey};
use serde::{Deserialize, Serialize};

use crate::record::file::{read_json, write_json};

/// State of the worktree.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TreeState {
    /// Run that used it last.
    pub run: RunName,
    pub status: WorktreeStatus,
    /// Checked-out branch.
    pub branch: String,
    /// Commit that the agent started from.
    pub start: String,
    /// Commit of the base branch.
    pub base: String,
    /// Tree after the setup commands, if they changed files; what they left is not work of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
}

/// Whether the worktree can hold unsaved work.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorktreeStatus {
    /// A checkout is in progress: its content comes from the control repository.
    CheckingOut,
    /// The agent may have changed it.
    Dirty,
    /// The control repository has all of its content.
    Clean,
}

/// Reads the state of the worktree, or `None` if it was never recorded.
///
/// # Errors
/// Returns an error if the file exists but cannot be read.
pub fn read_tree_state(file: &Path) -> io::Result<Option<TreeState>> {
    read_json(file)
}

/// Records the state of the worktree and syncs it to disk.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_tree_state(file: &Path, state: &TreeState) -> io::Result<()> {
    write_json(file, state)
}

/// Record of a task's last attempt.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastAttempt {
    pub run: String,
    pub branch: String,
    /// Session to resume, if one was started.
    pub session: Option<String>,
    /// How it ended; empty while it is active.
    pub end: String,
    /// Summary of the agent's verdict.
    pub summary: String,
}

fn path(layout: &Layout, key: &TaskKey) -> std::path::PathBuf {
    layout.supervisor_dir().join("tasks").join(format!("{}.json", key.slug()))
}

/// Reads the record of the last attempt of a task key.
///
/// # Errors
/// Returns an error if the file exists but cannot be read.
pub fn read_last_attempt(layout: &Layout, key: &TaskKey) -> io::Result<Option<LastAttempt>> {
    read_json(&path(layout, key))
}

/// Records an attempt and syncs it to disk.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_last_attempt(layout: &Layout, key: &TaskKey, attempt: &LastAttempt) -> io::Result<()> {
    write_json(&path(layout, key), attempt)
}

/// Returns the path of the worktree's stat cache.
pub(crate) fn stat_cache(layout: &Layout, kind: Kind) -> std::path::PathBuf {
    layout.supervisor_dir().join(match kind {
        Kind::Implementation => "target-repo.stat",
        Kind::Docs => "docs-repo.stat",
    })
}
