//! Step `branch`: decides the commit that the agent starts from and checks it out.

use std::sync::Arc;

use orchestrator_contract::names::{docs_branch, fresh_branch, implementation_branch};
use orchestrator_contract::task::Mode;
use orchestrator_contract::{BranchName, Kind, Reason};

use super::fetch::{Fetched, blocking, open};
use super::instructions::{Instructions, read_instructions};
use super::recover::{recover, set_aside, worktree_has_content};
use super::state::{LastAttempt, TreeState, WorktreeStatus, read_last_attempt, stat_cache, write_tree_state};
use super::submodules::describe_submodules;
use super::working_directory::{PathKind, WorkPlace, decide_working_directory};
use super::worktree::{Access, open_worktree};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::checkout::{Checkout, CheckoutStats, checkout, create_folder};
use crate::git::{ControlRepository, EntryKind, MergeResult, NewCommit, Oid, StatCache};

/// Checked-out branch.
#[derive(Clone, Debug)]
pub struct PreparedBranch {
    /// Name of the branch.
    pub branch: String,
    /// Commit that the agent starts from.
    pub start: Oid,
    /// Commit of the base branch.
    pub base: Oid,
    /// Commit of the branch on the remote, if the remote has the branch.
    pub remote_tip: Option<Oid>,
    /// Directory that the agent works in.
    pub working_directory: WorkPlace,
    /// Result of merging the base branch into the branch.
    pub base_merge: BaseMerge,
    /// Notes for people, shown in the outcome and the pull request.
    pub notes: Vec<String>,
    /// Submodules whose directories are empty, in one sentence; `None` without any.
    pub submodules: Option<String>,
    /// The repository's own instructions; none in a docs run.
    pub instructions: Arc<Instructions>,
    /// Record of the previous attempt.
    pub last: Option<LastAttempt>,
}

/// Result of merging the base branch into the branch of a retry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BaseMerge {
    /// The branch contains the base commit.
    UpToDate,
    /// The base branch was merged.
    Merged {
        /// Name of the base branch.
        base: String,
    },
    /// The branches have no common history; nothing was merged.
    Unrelated {
        /// Name of the base branch.
        base: String,
    },
    /// The branches conflict; nothing was merged.
    Conflict {
        /// Name of the base branch.
        base: String,
        /// Conflicting paths, separated by commas; the first 20.
        paths: String,
    },
}

impl BaseMerge {
    /// Returns a note about the merge, or `None` if the branch is up to date.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        match self {
            Self::UpToDate => None,
            Self::Merged { base } => Some(format!("merged `{base}` into the branch")),
            Self::Unrelated { base } => {
                Some(format!("`{base}` and the branch have no common history; nothing was merged"))
            }
            Self::Conflict { base, paths } => {
                Some(format!("`{base}` conflicts with the branch in {paths}; it was not merged"))
            }
        }
    }
}

/// Maximum conflicting paths to show.
const MAX_SHOWN_PATHS: usize = 20;

/// Returns the branch name of this attempt.
///
/// Several agents write documents, so a new docs branch takes the first number, from the attempt's
/// on, for which `on_remote` returns false.
///
/// # Errors
/// Returns an error if the record of the previous attempt cannot be read.
pub(crate) fn branch_of(context: &Context, on_remote: impl Fn(&str) -> bool) -> Result<String, Failure> {
    let task = &context.task;
    let earlier = match task.mode {
        Mode::First | Mode::Fresh => None,
        Mode::Retry => last(context)?.map(|last| last.branch).filter(|branch| !branch.is_empty()),
    };
    if let Some(earlier) = earlier {
        return Ok(earlier);
    }
    if task.kind == Kind::Docs {
        let branches = (task.attempt..).map(|number| docs_branch(task.task_id, number).to_string());
        return Ok(branches.into_iter().find(|branch| !on_remote(branch)).unwrap_or_default());
    }
    let id = task.task_id.ok_or_else(|| Failure::new(Reason::InvalidTask, "missing task id"))?;
    Ok(match task.mode {
        Mode::First | Mode::Retry => implementation_branch(id).to_string(),
        Mode::Fresh => fresh_branch(id, task.attempt).to_string(),
    })
}

fn last(context: &Context) -> Result<Option<LastAttempt>, Failure> {
    read_last_attempt(&context.layout, &context.task.identity())
        .map_err(|error| Failure::io(&context.layout.supervisor_dir(), &error))
}

/// Saves work that an earlier run left, decides the start commit and checks it out.
///
/// # Errors
/// Returns an error if the checkout fails, or if local and remote branch conflict.
pub async fn prepare_branch(context: &Context, fetched: &Fetched) -> Result<PreparedBranch, Failure> {
    let recovered = recover(context, fetched.base_oid).await?;
    let (inner, fetched, notes) = (context.clone(), fetched.clone(), recovered.clone());
    let prepared = blocking(move || prepare(&inner, fetched, notes)).await;
    prepared.map_err(|failure| {
        // The notes of a run that ends here have no other place.
        let located = recovered.iter().map(|note| format!("; {note}")).collect::<String>();
        Failure::new(failure.reason, format!("{}{located}", failure.message))
    })
}

fn prepare(context: &Context, fetched: Fetched, mut notes: Vec<String>) -> Result<PreparedBranch, Failure> {
    let control = open(context, RepositoryRole::Target)?;
    let branch = fetched.branch.clone();
    let (start, base_merge) = decide_start(context, &control, &fetched, &branch, &mut notes)?;
    notes.extend(base_merge.note());
    let working_directory = working_directory(context, &control, start)?;
    notes.extend(checkout_worktree(context, &control, &fetched, &branch, start, &working_directory.path)?);
    let mut submodules = None;
    let mut instructions = Instructions::default();
    if context.task.kind == Kind::Implementation {
        notes.extend(working_directory.note(&context.task.service, &context.task.target.url));
        submodules = describe_submodules(&control, start);
        instructions = read_instructions(&control, start, &working_directory.path);
    }
    notes.extend(submodules.clone());
    let last = last(context)?;
    let Fetched { branch: _, base: _, base_oid, remote_tip } = fetched;
    Ok(PreparedBranch {
        branch,
        start,
        base: base_oid,
        remote_tip,
        working_directory,
        base_merge,
        notes,
        submodules,
        instructions: Arc::new(instructions),
        last,
    })
}

/// Decides the start commit, merging where a retry needs it.
fn decide_start(
    context: &Context,
    control: &ControlRepository,
    fetched: &Fetched,
    branch: &str,
    notes: &mut Vec<String>,
) -> Result<(Oid, BaseMerge), Failure> {
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    let base = fetched.base_oid;
    match context.task.mode {
        Mode::First | Mode::Fresh => Ok((base, BaseMerge::UpToDate)),
        Mode::Retry => {
            let local = control.resolve_ref(&format!("refs/heads/{branch}")).map_err(git)?;
            let tip = match (local, fetched.remote_tip) {
                (None, None) => {
                    notes.push("earlier attempts left no work; started from the base branch".to_owned());
                    return Ok((base, BaseMerge::UpToDate));
                }
                (Some(one), None) | (None, Some(one)) => one,
                (Some(local), Some(remote)) => merge_with_remote(context, control, local, remote, branch)?,
            };
            merge_base_branch(context, control, tip, fetched)
        }
    }
}

/// Merges the local with the remote branch; returns the newer one if one contains the other.
fn merge_with_remote(
    context: &Context,
    control: &ControlRepository,
    local: Oid,
    remote: Oid,
    branch: &str,
) -> Result<Oid, Failure> {
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    if control.is_ancestor(local, remote).map_err(git)? {
        return Ok(remote);
    }
    if control.is_ancestor(remote, local).map_err(git)? {
        return Ok(local);
    }
    match control.merge(remote, local).map_err(git)? {
        MergeResult::Clean(tree) => {
            let message = format!("Merge unpushed work of earlier attempts into {branch}\n");
            commit(context, control, tree, &[remote, local], &message)
        }
        MergeResult::Conflicts(paths) => Err(Failure::new(
            Reason::BranchDiverged,
            format!(
                "`{branch}` on the remote conflicts with unpushed work of an earlier attempt ({local}) in {}: \
                 merge them, or start fresh",
                join_paths(&paths)
            ),
        )),
    }
}

/// Merges the base branch into `tip` unless they conflict.
fn merge_base_branch(
    context: &Context,
    control: &ControlRepository,
    tip: Oid,
    fetched: &Fetched,
) -> Result<(Oid, BaseMerge), Failure> {
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    let (base, name) = (fetched.base_oid, fetched.base.branch.clone());
    if control.is_ancestor(base, tip).map_err(git)? {
        return Ok((tip, BaseMerge::UpToDate));
    }
    if control.merge_base(base, tip).map_err(git)?.is_none() {
        return Ok((tip, BaseMerge::Unrelated { base: name }));
    }
    match control.merge(tip, base).map_err(git)? {
        MergeResult::Clean(tree) => {
            let message = format!("Merge {name} into the branch\n");
            let merged = commit(context, control, tree, &[tip, base], &message)?;
            Ok((merged, BaseMerge::Merged { base: name }))
        }
        MergeResult::Conflicts(paths) => {
            Ok((tip, BaseMerge::Conflict { base: name, paths: join_paths(&paths) }))
        }
    }
}

fn commit(
    context: &Context,
    control: &ControlRepository,
    tree: Oid,
    parents: &[Oid],
    message: &str,
) -> Result<Oid, Failure> {
    let identity = context.task.commit_identity_or_default();
    let seconds = jiff::Timestamp::now().as_second();
    control
        .commit(&NewCommit { tree, parents, author: &identity, committer: &identity, message, seconds })
        .map_err(|error| Failure::from_error(error.reason(), &error))
}

fn join_paths(paths: &[Vec<u8>]) -> String {
    let names: Vec<_> =
        paths.iter().take(MAX_SHOWN_PATHS).map(|path| String::from_utf8_lossy(path)).collect();
    names.join(", ")
}

fn working_directory(
    context: &Context,
    control: &ControlRepository,
    start: Oid,
) -> Result<WorkPlace, Failure> {
    let task = &context.task;
    if task.kind == Kind::Docs {
        // Decided later, when the documents are planned.
        return Ok(WorkPlace::default());
    }
    let list = |folder: &str| {
        control.list_tree(start, std::path::Path::new(folder)).ok().flatten().unwrap_or_default()
    };
    let kind_of = |path: &str| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match list(parent).iter().find(|entry| entry.name == name.as_bytes()).map(|entry| entry.kind) {
            Some(EntryKind::Folder) => PathKind::Directory,
            Some(_) => PathKind::File,
            None => PathKind::Missing,
        }
    };
    let requested = task.target.working_directory.as_ref();
    let directories: Vec<String> = list("")
        .iter()
        .filter(|entry| entry.kind == EntryKind::Folder)
        .filter_map(|entry| String::from_utf8(entry.name.clone()).ok())
        .collect();
    decide_working_directory(requested, &task.service, &task.target.url, &directories, kind_of)
        .map_err(|error| Failure::from_error(Reason::InvalidTask, &error))
}

/// Checks out `start` and creates the agent's working directory in it.
///
/// The state of the worktree is recorded before and after, so that a crash in between is not
/// mistaken for work of the agent. A worktree that cannot be changed is moved aside; the returned
/// note says where.
fn checkout_worktree(
    context: &Context,
    control: &ControlRepository,
    fetched: &Fetched,
    branch: &str,
    start: Oid,
    working_directory: &str,
) -> Result<Option<String>, Failure> {
    let record = |status| {
        let state = TreeState {
            run: context.task.run.clone(),
            status,
            branch: branch.to_owned(),
            start: start.to_string(),
            base: fetched.base.oid.clone(),
            setup: None,
        };
        write_tree_state(&context.tree_state(), &state)
            .map_err(|error| Failure::io(&context.tree_state(), &error))
    };
    record(WorktreeStatus::CheckingOut)?;
    let identity = context.task.commit_identity_or_default();
    let name = |text: &str| {
        BranchName::new(text).map_err(|error| Failure::from_error(Reason::InternalError, &error))
    };
    let (branch, base) = (name(branch)?, name(&fetched.base.branch)?);
    let cache_file = stat_cache(&context.layout, context.task.kind);
    let request = Checkout {
        commit: start,
        branch: &branch,
        base: Some((&base, fetched.base_oid)),
        identity: &identity,
        clean: context.task.clean,
        cache: &StatCache::load(&cache_file),
    };
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    let mut note = None;
    let check_out = || -> Result<CheckoutStats, Failure> {
        let guest = open_worktree(context, Access::Create)?;
        let stats = checkout(control, &guest, &request).map_err(git)?;
        create_folder(&guest, working_directory).map_err(git)?;
        Ok(stats)
    };
    let stats = match check_out() {
        // A refused tree is not the worktree's fault.
        Err(failure)
            if !matches!(failure.reason, Reason::DiskFull | Reason::UnsupportedRepository)
                && worktree_has_content(context)? =>
        {
            // Its content is saved, but an earlier agent made it unusable.
            let why = format!("it cannot be changed: {}", failure.message);
            note = Some(set_aside(context, "an earlier run", &why)?);
            check_out()?
        }
        checked_out => checked_out?,
    };
    stats.cache.save(&cache_file).map_err(git)?;
    record(WorktreeStatus::Dirty)?;
    Ok(note)
}
