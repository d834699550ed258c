//! Saves what an earlier run left in the worktree, before the worktree is changed.
//!
//! What cannot be saved is moved aside whole, so that the next run goes on and nothing is deleted.

use std::path::{Path, PathBuf};

use orchestrator_contract::{Kind, RunName};

use super::aside::{has_content, move_aside, move_record_aside};
use super::fetch::{blocking, open};
use super::state::{RecordedTree, TreeHint, TreeState, WorktreeStatus, read_tree_state, write_tree_state};
use crate::context::{Context, RepositoryRole};
use crate::docs;
use crate::failure::Failure;
use crate::git::{GitError, Oid};
use crate::process::kill_strays;
use crate::publish::save::{SavedWork, WorktreeBase, save_recovered, save_tree};
use crate::record::file::write_atomically;
use crate::site::Site;

/// Maximum times that a recovery is started; one that never ends kills the supervisor each time.
const MAX_TRIES: u32 = 2;

/// Maximum unsaved paths to list in a note.
const MAX_LISTED_PATHS: usize = 20;

/// How long processes of an earlier run may take to exit after they were killed.
const STRAY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// What may be unsaved in the worktree.
enum Leftovers {
    /// Work of a run that was killed.
    Of(TreeState),
    /// Anything: the record of the worktree is missing or unusable.
    Unrecorded {
        /// What is wrong with the record.
        why: String,
        hint: TreeHint,
    },
    /// Files that the run could not save.
    Unsavable(TreeState),
}

impl Leftovers {
    /// Returns the name of the run that left them.
    fn owner(&self) -> String {
        match self {
            Self::Of(state) | Self::Unsavable(state) => state.run.to_string(),
            Self::Unrecorded { hint, .. } => {
                hint.run.as_ref().map_or_else(|| "unknown".to_owned(), RunName::to_string)
            }
        }
    }
}

/// Saves unsaved work of an earlier run. Pushes nothing: a retry of that task builds on it.
///
/// Work without a usable record is saved on top of `base`, a commit of the base branch. Returns
/// notes for people.
///
/// # Errors
/// Returns an error if the workspace cannot be written; the worktree is not changed then.
pub async fn recover(context: &Context, base: Oid) -> Result<Vec<String>, Failure> {
    let strays = match &context.agent_site {
        Site::Machine { .. } => kill_strays(&context.layout.agent_dir(), STRAY_TIMEOUT).await,
        // Its container is new.
        Site::Container(_) => Vec::new(),
    };
    let context = context.clone();
    blocking(move || {
        let mut notes = Vec::new();
        if !strays.is_empty() {
            notes.push(format!("killed processes of an earlier run: {strays:?}"));
        }
        if let Some(leftovers) = find_leftovers(&context)? {
            notes.extend(recover_leftovers(&context, base, &leftovers)?);
        }
        Ok(notes)
    })
    .await
}

fn find_leftovers(context: &Context) -> Result<Option<Leftovers>, Failure> {
    if !worktree_has_content(context)? {
        return Ok(None);
    }
    Ok(match read_tree_state(&context.tree_state()) {
        RecordedTree::Known(state) => match state.status {
            WorktreeStatus::Clean | WorktreeStatus::CheckingOut => None,
            WorktreeStatus::PartlySaved => Some(Leftovers::Unsavable(state)),
            WorktreeStatus::Dirty => Some(Leftovers::Of(state)),
        },
        RecordedTree::Missing => {
            Some(Leftovers::Unrecorded { why: "it is missing".to_owned(), hint: TreeHint::default() })
        }
        RecordedTree::Unknown { why, hint } => Some(Leftovers::Unrecorded { why, hint }),
    })
}

fn recover_leftovers(context: &Context, base: Oid, leftovers: &Leftovers) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    let tries = Tries::start(context)?;
    let saved = match leftovers {
        Leftovers::Unsavable(_) => Err("files of it could not be saved".to_owned()),
        Leftovers::Of(_) | Leftovers::Unrecorded { .. } if tries.count > MAX_TRIES => {
            Err(format!("{MAX_TRIES} runs ended while they saved it"))
        }
        Leftovers::Of(state) => save_work_of(context, state),
        Leftovers::Unrecorded { why, hint } => save_unrecorded(context, base, why, hint),
    };
    let why = match saved {
        Ok(Saved { note, work }) => {
            notes.extend(note);
            notes.extend(work.notes.iter().cloned());
            let unsaved = work.unsaved.summary(MAX_LISTED_PATHS);
            if work.unsaved.has_content() {
                unsaved
            } else {
                notes.extend(unsaved);
                None
            }
        }
        Err(why) => Some(why),
    };
    if let Some(why) = why {
        notes.push(set_aside(context, &leftovers.owner(), &why)?);
    }
    settle_record(context, leftovers)?;
    tries.end();
    Ok(notes)
}

/// Saved leftovers, with a note that says where.
struct Saved {
    note: Option<String>,
    work: SavedWork,
}

/// Saves the work of a killed run on its branch.
fn save_work_of(context: &Context, state: &TreeState) -> Result<Saved, String> {
    let start = Oid::from_str(&state.start).map_err(|error| error.to_string())?;
    let setup = state.setup.as_deref().and_then(|setup| Oid::from_str(setup).ok());
    let base = WorktreeBase { start, branch: state.branch.clone(), run: state.run.clone(), setup };
    save_on_branch(context, &base).map_err(|failure| failure.message)
}

fn save_on_branch(context: &Context, base: &WorktreeBase) -> Result<Saved, Failure> {
    let message = format!("Unsaved work of {}\n\nThe run was killed before it saved its work.\n", base.run);
    let work = match context.task.kind {
        Kind::Implementation => save_tree(context, base, &message)?,
        Kind::Docs => {
            let control = open(context, RepositoryRole::Target)?;
            let git = |error: GitError| Failure::from_error(error.reason(), &error);
            let tip = control.resolve_ref(&format!("refs/heads/{}", base.branch)).map_err(git)?;
            // Another run may have reused the branch name.
            let tip = tip.filter(|tip| control.is_ancestor(base.start, *tip).unwrap_or(false));
            docs::collect::save(context, base, tip.unwrap_or(base.start))?
        }
    };
    let WorktreeBase { start, branch, run, setup: _ } = base;
    let note = format!("saved unsaved work of {run} on `{branch}` ({})", work.tip);
    Ok(Saved { note: (work.tip != *start).then_some(note), work })
}

/// Saves everything in a worktree whose record cannot be trusted.
///
/// If the record still names run, branch and start, the work goes to that branch.
fn save_unrecorded(context: &Context, base: Oid, why: &str, hint: &TreeHint) -> Result<Saved, String> {
    let in_control = |oid: &Oid| open(context, RepositoryRole::Target).is_ok_and(|c| c.contains(*oid));
    let start = hint.start.filter(in_control);
    if let (Some(start), Some(branch), Some(run)) = (start, &hint.branch, &hint.run) {
        let base = WorktreeBase { start, branch: branch.to_string(), run: run.clone(), setup: None };
        return save_on_branch(context, &base).map_err(|failure| failure.message);
    }
    let start = start.unwrap_or(base);
    let name = uuid::Uuid::new_v4().simple().to_string();
    let message = format!("Files of a worktree without a valid record\n\nThe record: {why}\n");
    let (work, reference) =
        save_recovered(context, start, &name, &message).map_err(|failure| failure.message)?;
    let note = format!(
        "the record of the worktree was unusable ({why}); saved all of its files as `{reference}` ({})",
        work.tip
    );
    Ok(Saved { note: (work.tip != start).then_some(note), work })
}

/// Returns whether the worktree can hold anything to save.
///
/// # Errors
/// Returns an error if the workspace cannot be read.
pub(super) fn worktree_has_content(context: &Context) -> Result<bool, Failure> {
    let guest = context.agent_site.open(context.layout.root())?;
    has_content(&guest, &context.worktree()).map_err(|error| Failure::from_error(error.reason(), &error))
}

/// Moves the worktree aside and returns a note that says where.
///
/// # Errors
/// Returns an error if the workspace cannot be written.
pub(super) fn set_aside(context: &Context, owner: &str, why: &str) -> Result<String, Failure> {
    let guest = context.agent_site.open(context.layout.root())?;
    let to = move_aside(&guest, &context.layout, &context.worktree(), owner, why)?;
    Ok(format!("moved the worktree of {owner} to `{}`: {why}", to.display()))
}

/// Records that nothing is left to save. A record that another program may have written is kept.
fn settle_record(context: &Context, leftovers: &Leftovers) -> Result<(), Failure> {
    let file = context.tree_state();
    match leftovers {
        Leftovers::Of(state) | Leftovers::Unsavable(state) => {
            let clean = TreeState { status: WorktreeStatus::Clean, ..state.clone() };
            write_tree_state(&file, &clean).map_err(|error| Failure::io(&file, &error))
        }
        Leftovers::Unrecorded { .. } if file.symlink_metadata().is_ok() => {
            move_record_aside(&context.layout, &file).map(drop)
        }
        Leftovers::Unrecorded { .. } => Ok(()),
    }
}

/// Counts started recoveries in a file that the end of one removes.
struct Tries {
    file: PathBuf,
    count: u32,
}

impl Tries {
    fn start(context: &Context) -> Result<Self, Failure> {
        let file = context.tree_state().with_extension("recovering");
        let count = read_count(&file).saturating_add(1);
        write_atomically(&file, count.to_string().as_bytes()).map_err(|error| Failure::io(&file, &error))?;
        Ok(Self { file, count })
    }

    fn end(self) {
        drop(std::fs::remove_file(self.file));
    }
}

/// Returns the number of started recoveries. A damaged file was written by one at least.
fn read_count(file: &Path) -> u32 {
    match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().unwrap_or(1),
        Err(_) => 0,
    }
}
