//! Which workspaces gc removes, and what would be lost with them.

use jiff::Timestamp;
use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{RunName, ServiceName};
use serde::Serialize;

use super::status::Status;
use super::text::age;

/// A workspace, as its backend finds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundWorkspace {
    pub service: ServiceName,
    pub size: WorkspaceSize,
    /// When it was last used, as far as the backend knows without the records of runs.
    pub last_used: Option<Timestamp>,
    /// Work in it that is nowhere else, one phrase each.
    pub unpushed: Vec<String>,
    /// Other data that is lost with it, one phrase each.
    pub data: Vec<String>,
}

/// Size of a workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WorkspaceSize {
    /// Used disk space.
    Used {
        bytes: u64,
        /// Whether it has more: not all of it could be measured.
        is_lower_bound: bool,
    },
    /// Capacity of the volume, in the notation of Kubernetes.
    Capacity(String),
    /// The backend does not tell it cheaply.
    Unknown,
}

impl WorkspaceSize {
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Used { bytes, .. } => Some(*bytes),
            Self::Capacity(_) | Self::Unknown => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Used { bytes, is_lower_bound: false } => size_text(*bytes),
            Self::Used { bytes, is_lower_bound: true } => format!("more than {}", size_text(*bytes)),
            Self::Capacity(capacity) => format!("volume of {capacity}"),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// What gc does with a workspace.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceAction {
    /// It is removed once the removal is confirmed.
    Remove,
    /// It was removed.
    Removed,
    /// An active run uses it.
    KeepActive,
    /// It has unpushed work, and was not named.
    KeepUnpushed,
}

/// A workspace, what would be lost with it, and what gc does with it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct WorkspacePlan {
    pub service: ServiceName,
    /// Directory, volume or claim.
    pub workspace: String,
    /// Used disk space, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Size as text.
    pub size: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_run: Option<RunName>,
    /// Work that is only there, one phrase each.
    pub unpushed: Vec<String>,
    /// Other data that is lost, one phrase each.
    pub data: Vec<String>,
    pub action: WorkspaceAction,
}

/// A run of the workspace's service.
#[derive(Clone, Debug)]
pub struct WorkspaceRun {
    pub status: Status,
    pub mode: Mode,
}

impl WorkspacePlan {
    /// Decides about a workspace, given the runs of its service, newest first.
    ///
    /// `is_named` says that the user named the service: only then is unpushed work removed.
    #[must_use]
    pub fn new(
        found: FoundWorkspace,
        workspace: String,
        newest_first: &[WorkspaceRun],
        is_named: bool,
    ) -> Self {
        let FoundWorkspace { service, size, last_used, unpushed: found_unpushed, mut data } = found;
        let active = newest_first.iter().find(|run| !run.status.phase.is_final());
        let mut unpushed = unpushed_runs(newest_first);
        unpushed.extend(found_unpushed);
        match newest_first.len() {
            0 => {}
            1 => data.push("transcript and diff of 1 run".to_owned()),
            runs => data.push(format!("transcripts and diffs of {runs} runs")),
        }
        let ends = newest_first.iter().map(|run| run.status.finished_at.unwrap_or(run.status.submitted_at));
        let action = if active.is_some() {
            WorkspaceAction::KeepActive
        } else if !unpushed.is_empty() && !is_named {
            WorkspaceAction::KeepUnpushed
        } else {
            WorkspaceAction::Remove
        };
        Self {
            service,
            workspace,
            bytes: size.bytes(),
            size: size.describe(),
            last_used: ends.chain(last_used).max(),
            active_run: active.map(|run| run.status.run.clone()),
            unpushed,
            data,
            action,
        }
    }

    /// Renders the plan for people.
    #[must_use]
    pub fn render(&self, now: Timestamp) -> String {
        let Self { service, workspace, size, .. } = self;
        let used = self.last_used.map_or(String::new(), |at| format!(", last used {} ago", age(at, now)));
        let mut text = format!("{service}: {workspace}\n  size: {size}{used}\n");
        for (what, lost) in [("unpushed", &self.unpushed), ("lost", &self.data)] {
            text.extend(lost.iter().map(|lost| format!("  {what}: {lost}\n")));
        }
        let action = match (self.action, &self.active_run) {
            (WorkspaceAction::Remove, _) => "would be removed".to_owned(),
            (WorkspaceAction::Removed, _) => "removed".to_owned(),
            (WorkspaceAction::KeepActive, Some(run)) => format!("kept: {run} is active"),
            (WorkspaceAction::KeepActive, None) => "kept: it is in use".to_owned(),
            (WorkspaceAction::KeepUnpushed, _) => {
                format!("kept: it has unpushed work; `--service {service}` includes it")
            }
        };
        format!("{text}  {action}\n")
    }
}

/// Describes the finished runs with work that is only in the workspace.
fn unpushed_runs(newest_first: &[WorkspaceRun]) -> Vec<String> {
    let mut all = Vec::new();
    for (index, WorkspaceRun { status, .. }) in newest_first.iter().enumerate() {
        let mut newer_attempts = newest_first[..index].iter().filter(|other| {
            let key = |status: &Status| (status.agent.clone(), status.kind, status.task_id);
            key(&other.status) == key(status) && other.mode == Mode::Retry
        });
        let location = |status: &Status| status.work.as_ref().map(|work| work.location);
        // A retry first saves what earlier attempts left, and pushes it with its own work.
        let was_pushed = newer_attempts.any(|newer| location(&newer.status) == Some(WorkLocation::Remote));
        if !status.phase.is_final() || was_pushed {
            continue;
        }
        match location(status) {
            Some(WorkLocation::Workspace) => all.push(format!("work of {}", status.run)),
            None => all.push(format!("possibly work of {}, which ended without an outcome", status.run)),
            Some(WorkLocation::Remote | WorkLocation::None) => {}
        }
    }
    all
}

/// Formats a number of bytes, such as `1.5 GiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{size:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests;
