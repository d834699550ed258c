//! Records of the worktree and of the last attempt, as files that survive a crash.
//!
//! A record that this version did not write as it stands is never trusted: the worktree may then
//! hold unsaved work, see [`RecordedTree`].

use std::io;
use std::path::Path;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{BranchName, Kind, Outcome, RunName, TaskKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attempts::recorded_runs;
use crate::git::Oid;
use crate::record::file::{read_json, write_json};

/// Version of the records that this supervisor writes and reads.
const VERSION: u64 = 1;

/// Field of a record that contains its version.
const VERSION_FIELD: &str = "version";

/// State of the worktree.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
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
    /// The control repository has all of its content, except files that could not be saved.
    PartlySaved,
    /// The control repository has all of its content.
    Clean,
}

/// What is recorded about the worktree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RecordedTree {
    /// There is no record.
    Missing,
    /// A supervisor of this version wrote the record.
    Known(TreeState),
    /// The record is damaged, or another program or version wrote it.
    Unknown {
        /// What is wrong with it.
        why: String,
        /// The parts that are valid.
        hint: TreeHint,
    },
}

/// Valid parts of a record that as a whole is not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TreeHint {
    pub run: Option<RunName>,
    pub branch: Option<BranchName>,
    /// Commit that the agent started from.
    pub start: Option<Oid>,
}

/// Returns the tree after the setup commands that a usable record of the worktree has.
#[must_use]
pub fn recorded_setup(file: &Path) -> Option<Oid> {
    match read_tree_state(file) {
        RecordedTree::Known(state) => Oid::from_str(&state.setup?).ok(),
        RecordedTree::Missing | RecordedTree::Unknown { .. } => None,
    }
}

/// Reads the record of the worktree. A file that cannot be read is [`RecordedTree::Unknown`].
#[must_use]
pub fn read_tree_state(file: &Path) -> RecordedTree {
    let unknown = |why: String, hint| RecordedTree::Unknown { why, hint };
    let value: Value = match std::fs::read(file) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(value) => value,
            Err(error) => return unknown(format!("it is not JSON: {error}"), TreeHint::default()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return RecordedTree::Missing,
        Err(error) => return unknown(error.to_string(), TreeHint::default()),
    };
    match parse_tree_state(value.clone()) {
        Ok(state) => RecordedTree::Known(state),
        Err(why) => unknown(why, hint(&value)),
    }
}

fn parse_tree_state(mut value: Value) -> Result<TreeState, String> {
    check_version(&mut value)?;
    let state: TreeState = serde_json::from_value(value).map_err(|error| error.to_string())?;
    BranchName::new(state.branch.clone()).map_err(|error| error.to_string())?;
    for oid in [&state.start, &state.base].into_iter().chain(&state.setup) {
        Oid::from_str(oid).map_err(|_| format!("`{oid}` is not a commit id"))?;
    }
    Ok(state)
}

/// Removes the version from a record and checks it.
fn check_version(value: &mut Value) -> Result<(), String> {
    let object = value.as_object_mut().ok_or("it is not an object")?;
    match object.remove(VERSION_FIELD) {
        Some(version) if version.as_u64() == Some(VERSION) => Ok(()),
        Some(version) => Err(format!("it has version {version}, not {VERSION}")),
        None => Err("it has no version".to_owned()),
    }
}

fn hint(value: &Value) -> TreeHint {
    let text = |name: &str| value.get(name)?.as_str();
    TreeHint {
        run: text("run").and_then(|run| RunName::new(run).ok()),
        branch: text("branch").and_then(|branch| BranchName::new(branch).ok()),
        // Abbreviated ids are no evidence.
        start: text("start").filter(|oid| oid.len() == 40).and_then(|oid| Oid::from_str(oid).ok()),
    }
}

/// Records the state of the worktree and syncs it to disk.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_tree_state(file: &Path, state: &TreeState) -> io::Result<()> {
    write_versioned(file, state)
}

/// Writes a record with its version.
fn write_versioned(file: &Path, record: &impl Serialize) -> io::Result<()> {
    let mut value = serde_json::to_value(record)?;
    if let Some(object) = value.as_object_mut() {
        object.insert(VERSION_FIELD.to_owned(), VERSION.into());
    }
    write_json(file, &value)
}

/// Record of a task's last attempt.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastAttempt {
    pub run: String,
    pub branch: String,
    /// Session to resume, if one was started and the model API did not refuse its conversation.
    pub session: Option<String>,
    /// Whether the model API refused to continue the conversation.
    #[serde(default)]
    pub refused: bool,
    /// How it ended; empty while it is active.
    pub end: String,
    /// Summary of the agent's verdict.
    pub summary: String,
}

impl LastAttempt {
    /// Adds the conversation of an earlier attempt, which this one did not continue.
    #[must_use]
    pub fn continuing(self, earlier: &Self) -> Self {
        Self {
            session: earlier.session.clone(),
            refused: earlier.refused,
            summary: earlier.summary.clone(),
            ..self
        }
    }
}

fn path(layout: &Layout, key: &TaskKey) -> std::path::PathBuf {
    layout.supervisor_dir().join("tasks").join(format!("{}.json", key.slug()))
}

/// Reads the record of the last attempt of a task key.
///
/// Instead of a missing or unreadable record, returns what the outcomes of the earlier runs say.
///
/// # Errors
/// Returns an error if the directory of the runs cannot be read.
pub fn read_last_attempt(layout: &Layout, key: &TaskKey) -> io::Result<Option<LastAttempt>> {
    let text = std::fs::read(path(layout, key)).unwrap_or_default();
    let recorded = serde_json::from_slice(&text).ok().and_then(|mut value: Value| {
        check_version(&mut value).ok()?;
        serde_json::from_value(value).ok()
    });
    match recorded {
        Some(attempt) => Ok(Some(attempt)),
        None => attempt_of_outcomes(layout, key),
    }
}

/// Returns the last attempt that left an outcome with a branch.
fn attempt_of_outcomes(layout: &Layout, key: &TaskKey) -> io::Result<Option<LastAttempt>> {
    for (_, run) in recorded_runs(layout, key)?.into_iter().rev() {
        let outcome = layout.run_dir(&run).outcome();
        // A damaged outcome says nothing.
        let Some(outcome) = read_json::<Outcome>(&outcome).ok().flatten() else { continue };
        if let Some(branch) = &outcome.work.branch {
            return Ok(Some(LastAttempt {
                run: run.to_string(),
                branch: branch.clone(),
                session: outcome.sessions.last().cloned(),
                refused: false,
                end: format!("{}: {}", outcome.reason, outcome.message),
                summary: outcome.verdict.map(|verdict| verdict.summary).unwrap_or_default(),
            }));
        }
    }
    Ok(None)
}

/// Records an attempt and syncs it to disk.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_last_attempt(layout: &Layout, key: &TaskKey, attempt: &LastAttempt) -> io::Result<()> {
    write_versioned(&path(layout, key), attempt)
}

/// Returns the path of the worktree's stat cache.
pub(crate) fn stat_cache(layout: &Layout, kind: Kind) -> std::path::PathBuf {
    layout.supervisor_dir().join(match kind {
        Kind::Implementation => "target-repo.stat",
        Kind::Docs => "docs-repo.stat",
    })
}

#[cfg(test)]
mod tests;
