//! The workspaces of services: what is in them, and their removal.
//!
//! The attempt numbers stay, and so do the locks: a supervisor that waits for one must not get another file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use orchestrator_contract::ServiceName;
use orchestrator_contract::layout::Layout;
use serde_json::Value;

use super::handle::Local;
use super::lock;
use crate::error::Error;
use crate::files::{self, tree};
use crate::task::event_fold::LockState;
use crate::task::workspace::{FoundWorkspace, WorkspaceSize, size_text};

/// Prefix of workspaces that are being removed.
const REMOVED_PREFIX: &str = ".removed-";

/// Prefix of workspaces, see [`Layout::name`].
const PREFIX: &str = "workspace-";

/// What a removal keeps of the supervisor's directory.
const KEPT: [&str; 4] = ["attempts", "attempts.lock", "lock", "queue"];

/// Maximum bytes of a worktree's record; the supervisor writes a few hundred.
const STATE_MAX_BYTES: u64 = 64 * 1024;

impl Local {
    fn workspaces_folder(&self) -> PathBuf {
        self.root.join("workspaces")
    }

    /// Returns the workspaces that have more than what a removal keeps.
    pub(super) fn found_workspaces(&self) -> Result<Vec<FoundWorkspace>, Error> {
        let names = files::list_names(&self.workspaces_folder())?;
        let services = names.iter().filter_map(|name| ServiceName::new(name.strip_prefix(PREFIX)?).ok());
        services.filter_map(|service| self.found_workspace(service).transpose()).collect()
    }

    fn found_workspace(&self, service: ServiceName) -> Result<Option<FoundWorkspace>, Error> {
        let layout = self.layout(&service);
        if removable(&layout)?.is_empty() {
            return Ok(None);
        }
        let size = tree::measure(layout.root());
        let modified = fs::metadata(layout.lock()).and_then(|meta| meta.modified()).ok();
        Ok(Some(FoundWorkspace {
            service,
            size: WorkspaceSize::Used { bytes: size.bytes, is_lower_bound: size.is_lower_bound },
            last_used: modified.and_then(|time| Timestamp::try_from(time).ok()),
            unpushed: unpushed(&layout),
            data: kept_data(&layout),
        }))
    }

    /// Removes a workspace; returns false if a run uses it.
    pub(super) async fn removed_workspace(&self, service: &ServiceName) -> Result<bool, Error> {
        // Runs start with this lock held, and a supervisor holds the other one.
        let _submissions = self.lock_submissions(service).await?;
        for run in self.stored_runs()?.into_iter().filter(|run| run.task.service == *service) {
            if run.lock_state()? == LockState::Held {
                return Ok(false);
            }
        }
        let layout = self.layout(service);
        let held = lock::open(&layout.lock())?;
        if !lock::try_acquire(&held, &layout.lock())? {
            return Ok(false);
        }
        let trash = self.workspaces_folder().join(format!("{REMOVED_PREFIX}{}", Layout::name(service)));
        remove(&trash)?;
        let trash_state = trash.join(".orchestrator");
        files::create_folder(&trash_state)?;
        // Renamed first, so that no run uses a partly removed tree.
        for path in removable(&layout)? {
            let inside = path.parent() == Some(&*layout.supervisor_dir());
            let to = if inside { &trash_state } else { &trash };
            let to = to.join(path.file_name().unwrap_or_default());
            tree::move_entry(&path, &to).map_err(|error| files::problem("move", &path, &error))?;
        }
        remove(&trash)?;
        Ok(true)
    }

    /// Removes what interrupted removals left.
    pub(super) async fn sweep_workspaces(&self) -> Result<(), Error> {
        let Ok(entries) = fs::read_dir(self.workspaces_folder()) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(workspace) = name.strip_prefix(REMOVED_PREFIX) else { continue };
            let service = workspace.strip_prefix(PREFIX).and_then(|name| ServiceName::new(name).ok());
            // Another gc may be filling it.
            let _submissions = match &service {
                Some(service) => Some(self.lock_submissions(service).await?),
                None => None,
            };
            remove(&entry.path())?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    tree::remove(path).map_err(|error| {
        let problem = files::problem("remove", path, &error);
        if error.kind() == io::ErrorKind::PermissionDenied {
            problem.with_hint("Another user owns files in it: remove it as that user or as root.")
        } else {
            problem
        }
    })
}

/// Returns the entries of a workspace that a removal removes: those of the root first, which have the worktrees.
fn removable(layout: &Layout) -> Result<Vec<PathBuf>, Error> {
    let state = layout.supervisor_dir();
    let mut all = entries(layout.root())?;
    all.retain(|path| *path != state);
    if state.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        let is_kept = |path: &PathBuf| KEPT.iter().any(|kept| path.ends_with(kept));
        all.extend(entries(&state)?.into_iter().filter(|path| !is_kept(path)));
    } else if state.symlink_metadata().is_ok() {
        all.push(state);
    }
    Ok(all)
}

/// Returns the paths of all entries of a folder, sorted; none if it does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> = match listed {
        Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(files::problem("list", folder, &error)),
    };
    paths.sort_unstable();
    Ok(paths)
}

/// Describes work that the supervisor's records say is in the workspace only.
fn unpushed(layout: &Layout) -> Vec<String> {
    let states = [(layout.state(), layout.target_repo()), (layout.docs_state(), layout.docs_repo())];
    let mut all: Vec<String> =
        states.iter().filter_map(|(record, worktree)| unsaved(record, worktree)).collect();
    let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    // A folder that cannot be read is one whose content is unknown, and the run's record counts.
    let runs = entries(&layout.runs()).unwrap_or_default();
    let rescued = runs.iter().filter(|run| entries(&run.join("rescue")).is_ok_and(|files| !files.is_empty()));
    all.extend(rescued.filter_map(name).map(|run| format!("files in `rescue` of {run}")));
    let aside = entries(&layout.aside()).unwrap_or_default();
    let aside = aside.iter().filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()));
    all.extend(aside.filter_map(name).map(|run| format!("worktree `aside/{run}`, which could not be saved")));
    all
}

/// Describes the content of a worktree that its record does not call saved.
fn unsaved(record: &Path, worktree: &Path) -> Option<String> {
    worktree.symlink_metadata().ok()?;
    let name = worktree.file_name()?.to_string_lossy().into_owned();
    let state: Option<Value> =
        files::read_small(record, STATE_MAX_BYTES).and_then(|text| serde_json::from_str(&text).ok());
    let field = |name: &str| state.as_ref().and_then(|state| state.get(name)).and_then(Value::as_str);
    match (field("status"), field("run")) {
        (Some("clean" | "checking_out"), _) => None,
        (Some("dirty" | "partly_saved"), Some(run)) => Some(format!("changes of {run} in `{name}`")),
        (Some(_) | None, _) => {
            Some(format!("possibly changes in `{name}`, whose record is missing or damaged"))
        }
    }
}

/// Describes what MCP servers keep, such as the agent's memory.
fn kept_data(layout: &Layout) -> Vec<String> {
    let kept = entries(&layout.kept()).unwrap_or_default();
    let describe = |server: &PathBuf| {
        let name = server.file_name()?.to_string_lossy();
        let size = tree::measure(server);
        Some(format!("data of MCP server `{name}` ({})", size_text(size.bytes)))
    };
    kept.iter().filter_map(describe).collect()
}
