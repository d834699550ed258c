//! Step `branch`: where the agent starts, and a tree that holds just that.

use git2::Oid;
use orchestrator_contract::names::{docs_branch, fresh_branch, implementation_branch};
use orchestrator_contract::task::Mode;
use orchestrator_contract::{BranchName, Kind, Reason};

use super::fetch::{Fetched, blocking, open};
use super::recover::recover;
use super::state::{LastAttempt, TreeState, WorktreeStatus, read_last_attempt, write_tree_state};
use super::working_directory::{PathKind, decide_working_directory};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::checkout::{Checkout, checkout};
use crate::git::{ControlRepository, EntryKind, MergeResult, NewCommit, StatCache};

/// The branch and its tree.
#[derive(Clone, Debug)]
pub struct PreparedBranch {
    /// The branch.
    pub branch: String,
    /// The commit that the agent starts from.
    pub start: Oid,
    /// The base's commit.
    pub base: Oid,
    /// The branch's commit on the remote; none if it is not there.
    pub remote_tip: Option<Oid>,
    /// Where the agent works, relative to the repository.
    pub working_directory: String,
    /// What a person, and the agent, should know.
    pub notes: Vec<String>,
    /// What is known of the attempt before.
    pub last: Option<LastAttempt>,
}

/// The branch of this attempt.
///
/// `on_remote` says which branches there are: documents are written more than once, by
/// several agents, so a new branch of them takes the first free number from the attempt's on.
///
/// # Errors
/// What is known of earlier attempts cannot be read.
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
    let id = task.task_id.ok_or_else(|| Failure::new(Reason::InvalidTask, "the run has no task"))?;
    Ok(match task.mode {
        Mode::First | Mode::Retry => implementation_branch(id).to_string(),
        Mode::Fresh => fresh_branch(id, task.attempt).to_string(),
    })
}

fn last(context: &Context) -> Result<Option<LastAttempt>, Failure> {
    read_last_attempt(&context.layout, &context.task.identity())
        .map_err(|error| Failure::io(&context.layout.supervisor_dir(), &error))
}

/// Saves what an earlier run left, decides the start and lays out the tree.
///
/// # Errors
/// The tree cannot be made, or our branch and the remote's cannot be brought together.
pub async fn prepare_branch(context: &Context, fetched: &Fetched) -> Result<PreparedBranch, Failure> {
    let recovered = recover(context).await?;
    let (context, fetched) = (context.clone(), fetched.clone());
    blocking(move || {
        let mut notes = Vec::new();
        if let Some(recovered) = recovered {
            notes.push(format!(
                "work that {} had left unsaved was saved on `{}` ({})",
                recovered.run, recovered.branch, recovered.oid
            ));
        }
        let control = open(&context, RepositoryRole::Target)?;
        let branch = fetched.branch.clone();
        let start = decide_start(&context, &control, &fetched, &branch, &mut notes)?;
        let working_directory = working_directory(&context, &control, start)?;
        checkout_worktree(&context, &control, &fetched, &branch, start)?;
        let last = last(&context)?;
        let folder = context.working_directory(&working_directory);
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let Fetched { branch: _, base: _, base_oid, remote_tip } = fetched;
        Ok(PreparedBranch { branch, start, base: base_oid, remote_tip, working_directory, notes, last })
    })
    .await
}

/// Where the agent starts.
fn decide_start(
    context: &Context,
    control: &ControlRepository,
    fetched: &Fetched,
    branch: &str,
    notes: &mut Vec<String>,
) -> Result<Oid, Failure> {
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    let base = fetched.base_oid;
    match context.task.mode {
        Mode::First | Mode::Fresh => Ok(base),
        Mode::Retry => {
            let ours = control.resolve_ref(&format!("refs/heads/{branch}")).map_err(git)?;
            let tip = match (ours, fetched.remote_tip) {
                (None, None) => {
                    notes.push("no earlier attempt left anything: this one starts from the base".to_owned());
                    return Ok(base);
                }
                (Some(one), None) | (None, Some(one)) => one,
                (Some(ours), Some(theirs)) => merge_with_remote(context, control, ours, theirs, branch)?,
            };
            merge_base_branch(context, control, tip, fetched, notes)
        }
    }
}

/// Our branch and the remote's: the one that has the other, or a clean merge.
fn merge_with_remote(
    context: &Context,
    control: &ControlRepository,
    ours: Oid,
    theirs: Oid,
    branch: &str,
) -> Result<Oid, Failure> {
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    if control.is_ancestor(ours, theirs).map_err(git)? {
        return Ok(theirs);
    }
    if control.is_ancestor(theirs, ours).map_err(git)? {
        return Ok(ours);
    }
    match control.merge(theirs, ours).map_err(git)? {
        MergeResult::Clean(tree) => {
            let message = format!("Merge unpushed work of earlier attempts into {branch}\n");
            commit(context, control, tree, &[theirs, ours], &message)
        }
        MergeResult::Conflicts(paths) => Err(Failure::new(
            Reason::BranchDiverged,
            format!(
                "`{branch}` was changed on the remote in a way that conflicts with unpushed work {ours} of an \
                 earlier attempt, in {}: bring them together, or start fresh",
                join_paths(&paths)
            ),
        )),
    }
}

/// The base merged in if it merges cleanly, else left and said.
fn merge_base_branch(
    context: &Context,
    control: &ControlRepository,
    tip: Oid,
    fetched: &Fetched,
    notes: &mut Vec<String>,
) -> Result<Oid, Failure> {
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    let base = fetched.base_oid;
    if control.is_ancestor(base, tip).map_err(git)? {
        return Ok(tip);
    }
    if control.merge_base(base, tip).map_err(git)?.is_none() {
        notes.push(format!(
            "`{}` and the branch have no common history; nothing was merged",
            fetched.base.branch
        ));
        return Ok(tip);
    }
    match control.merge(tip, base).map_err(git)? {
        MergeResult::Clean(tree) => {
            notes.push(format!("`{}` was merged into the branch", fetched.base.branch));
            let message = format!("Merge {} into the branch\n", fetched.base.branch);
            commit(context, control, tree, &[tip, base], &message)
        }
        MergeResult::Conflicts(paths) => {
            notes.push(format!(
                "`{}` has moved and conflicts with the branch in {}; it was not merged",
                fetched.base.branch,
                join_paths(&paths)
            ));
            Ok(tip)
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
    let names: Vec<_> = paths.iter().take(20).map(|path| String::from_utf8_lossy(path)).collect();
    names.join(", ")
}

fn working_directory(context: &Context, control: &ControlRepository, start: Oid) -> Result<String, Failure> {
    let task = &context.task;
    if task.kind == Kind::Docs {
        // The folder that holds `.taskmaster` is looked for together with the documents.
        return Ok(String::new());
    }
    let look = |path: &str| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let entries =
            control.list_tree(start, std::path::Path::new(parent)).ok().flatten().unwrap_or_default();
        match entries.iter().find(|entry| entry.name == name.as_bytes()).map(|entry| entry.kind) {
            Some(EntryKind::Folder) => PathKind::Directory,
            Some(_) => PathKind::File,
            None => PathKind::Missing,
        }
    };
    decide_working_directory(task.target.working_directory.as_ref(), &task.service, &task.target.url, look)
        .map_err(|error| Failure::from_error(Reason::InvalidTask, &error))
}

/// Where it is kept what the working tree's files were when their content was last known.
pub(crate) fn stat_cache(context: &Context) -> std::path::PathBuf {
    context.layout.supervisor_dir().join(match context.task.kind {
        Kind::Implementation => "target-repo.stat",
        Kind::Docs => "docs-repo.stat",
    })
}

/// Lays out the tree. What it holds is recorded before and after, so that a crash in
/// between is never taken for an agent's work.
fn checkout_worktree(
    context: &Context,
    control: &ControlRepository,
    fetched: &Fetched,
    branch: &str,
    start: Oid,
) -> Result<(), Failure> {
    let record = |content| {
        let state = TreeState {
            run: context.task.run.clone(),
            status: content,
            branch: branch.to_owned(),
            start: start.to_string(),
            base: fetched.base.oid.clone(),
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
    let cache_file = stat_cache(context);
    let wanted = Checkout {
        commit: start,
        branch: &branch,
        base: Some((&base, fetched.base_oid)),
        identity: &identity,
        clean: context.task.clean,
        cache: &StatCache::load(&cache_file),
    };
    let git = |error: crate::git::GitError| Failure::from_error(error.reason(), &error);
    let done = checkout(control, &context.worktree(), &wanted).map_err(git)?;
    done.cache.save(&cache_file).map_err(git)?;
    record(WorktreeStatus::Dirty)
}
