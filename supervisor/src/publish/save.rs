//! Step `commit`: imports and commits the agent's work into the control repository.

use orchestrator_contract::{Reason, RunName};

use super::unsaved::UnsavedPaths;
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::import::{History, ImportedHistory};
use crate::git::snapshot::Snapshot;
use crate::git::{ControlRepository, GitError, NewCommit, Oid, StatCache, import, snapshot};
use crate::guest::Guest;
use crate::record::file::write_atomically;
use crate::workspace::fetch::open;
use crate::workspace::reserve;
use crate::workspace::state::stat_cache;
use crate::workspace::worktree::{Access, open_worktree};

/// Maximum snapshots until two are equal; no process of the agent is left that writes.
const MAX_SNAPSHOTS: usize = 4;

/// Base of the work in the worktree.
#[derive(Clone, Debug)]
pub struct WorktreeBase {
    /// Commit that the agent started from.
    pub start: Oid,
    /// Branch of the work.
    pub branch: String,
    /// Run that did the work.
    pub run: RunName,
    /// Tree after the setup commands, if they changed files.
    pub setup: Option<Oid>,
}

/// Saved work.
#[derive(Clone, Debug)]
pub struct SavedWork {
    /// Commit with all of the work.
    pub tip: Oid,
    /// Authors and committers other than the agent.
    pub other_authors: Vec<String>,
    /// Changed Git LFS files that are not pointers; they cannot be pushed.
    pub changed_lfs: Vec<String>,
    /// Paths that are not in the commit because they could not be saved.
    pub unsaved: UnsavedPaths,
    /// Notes for people.
    pub notes: Vec<String>,
}

/// Where a worktree is saved to.
struct Destination<'a> {
    /// Commit that the agent started from.
    start: Oid,
    /// Tree after the setup commands, if they changed files.
    setup: Option<Oid>,
    /// Ref of the work.
    reference: String,
    /// Name for other refs of the work: `refs/orchestrator/{owner}/...`.
    owner: &'a str,
    /// Message of the commit.
    message: &'a str,
    /// File stats that prove which blobs the control repository has.
    cache: StatCache,
}

fn git(error: GitError) -> Failure {
    Failure::from_error(error.reason(), &error)
}

/// Imports the agent's commits, commits the rest of the worktree on top, and updates the branch.
///
/// Commits that do not descend from the start are only kept under a ref of their own. Paths that
/// cannot be saved are left out and listed.
///
/// # Errors
/// Returns an error if the worktree cannot be read or an object cannot be written.
pub fn save_tree(context: &Context, base: &WorktreeBase, message: &str) -> Result<SavedWork, Failure> {
    let destination = Destination {
        start: base.start,
        setup: base.setup,
        reference: format!("refs/heads/{}", base.branch),
        owner: base.run.as_str(),
        message,
        cache: StatCache::load(&stat_cache(&context.layout, context.task.kind)),
    };
    with_reserve(context, || save_to(context, &destination))
}

/// Saves a worktree whose branch is unknown, as `refs/orchestrator/recovered/{name}`.
///
/// # Errors
/// As [`save_tree`].
pub fn save_recovered(
    context: &Context,
    start: Oid,
    name: &str,
    message: &str,
) -> Result<(SavedWork, String), Failure> {
    let reference = format!("refs/orchestrator/recovered/{name}");
    let owner = format!("recovered-{name}");
    // The file with the stats may be of another worktree.
    let cache = StatCache::default();
    let destination =
        Destination { start, setup: None, reference: reference.clone(), owner: &owner, message, cache };
    let saved = with_reserve(context, || save_to(context, &destination))?;
    Ok((saved, reference))
}

/// Saves; if the disk is full, gives the reserve back and saves again.
pub(crate) fn with_reserve<T>(
    context: &Context,
    save: impl Fn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    match save() {
        Err(failure) if failure.reason == Reason::DiskFull && reserve::release(&context.layout) => {
            context.journal.warn(format!("{}; using the disk reserve", failure.message));
            save()
        }
        result => result,
    }
}

fn save_to(context: &Context, destination: &Destination<'_>) -> Result<SavedWork, Failure> {
    let control = open(context, RepositoryRole::Target)?;
    let guest = open_worktree(context, Access::Existing)?;
    let (head, other_authors, mut notes) = import_history(context, &control, &guest, destination)?;
    let head_tree = control.commit_tree(head).map_err(git)?;
    let Snapshot { tree, changed: _, lfs_changed, nested_repositories, unsaved, notes: skipped, cache } =
        stable_snapshot(&control, &guest, destination, head_tree)?;
    let start_tree = control.commit_tree(destination.start).map_err(git)?;
    let setup = destination.setup.unwrap_or(start_tree);
    let tree = control.tree_without_setup(tree, start_tree, setup).map_err(git)?;
    notes.extend(skipped);
    for nested in &nested_repositories {
        let nested = String::from_utf8_lossy(nested);
        notes.push(format!("`{nested}` is a git repository; committed its files without its history"));
    }
    let tip = if head_tree == tree {
        head
    } else {
        let identity = context.task.commit_identity_or_default();
        let new = NewCommit {
            tree,
            parents: &[head],
            author: &identity,
            committer: &identity,
            message: destination.message,
            seconds: jiff::Timestamp::now().as_second(),
        };
        control.commit(&new).map_err(git)?
    };
    notes.extend(keep_replaced(&control, &destination.reference, tip)?);
    control.update_ref(&destination.reference, tip, "saved").map_err(git)?;
    control.sync().map_err(git)?;
    cache.save(&stat_cache(&context.layout, context.task.kind)).map_err(git)?;
    let mut skipped = UnsavedPaths::default();
    for path in &unsaved {
        skipped.record(&path.path, &path.why);
    }
    let changed_lfs = lfs_changed.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    Ok(SavedWork { tip, other_authors, changed_lfs, unsaved: skipped, notes })
}

/// Imports the agent's commits; returns the head to commit on, authors and notes.
fn import_history(
    context: &Context,
    control: &ControlRepository,
    guest: &Guest,
    destination: &Destination<'_>,
) -> Result<(Oid, Vec<String>, Vec<String>), Failure> {
    let Destination { start, owner, .. } = *destination;
    let scratch = context.layout.supervisor_dir().join("import");
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::io(&scratch, &error))?;
    let identity = context.task.commit_identity_or_default();
    let ImportedHistory { head, branch: _, others, mut notes } =
        import::import_commits(control, guest, start, &identity, &scratch).map_err(git)?;
    let (head, other_authors) = match head {
        History::Usable { head, descends_from_base: true, other_authors } => (head, other_authors),
        History::Usable { head, descends_from_base: false, other_authors: _ } => {
            notes.push(format!("the agent rewrote history; committed its files on {start}"));
            let kept = format!("refs/orchestrator/{owner}/rewritten");
            control.update_ref(&kept, head, "history that the agent rewrote").map_err(git)?;
            (start, Vec::new())
        }
        History::Unusable { why } => {
            notes.push(format!("no usable git history ({why}); committed the files of the agent"));
            (start, Vec::new())
        }
    };
    for (name, tip) in &others {
        let kept = format!("refs/orchestrator/{owner}/{}", name.trim_start_matches("refs/"));
        control.update_ref(&kept, *tip, "other work of the agent").map_err(git)?;
        notes.push(format!("kept `{name}` of the agent in the workspace as `{kept}`"));
    }
    Ok((head, other_authors, notes))
}

/// Captures the worktree until two snapshots are equal.
fn stable_snapshot(
    control: &ControlRepository,
    guest: &Guest,
    destination: &Destination<'_>,
    head_tree: Oid,
) -> Result<Snapshot, Failure> {
    let base_tree = control.commit_tree(destination.start).map_err(git)?;
    let capture =
        |cache: &StatCache| snapshot::capture(control, guest, base_tree, Some(head_tree), cache).map_err(git);
    let mut snapshot = capture(&destination.cache)?;
    for _ in 1..MAX_SNAPSHOTS {
        let next = capture(&snapshot.cache)?;
        let is_stable = next.tree == snapshot.tree;
        snapshot = next;
        if is_stable {
            break;
        }
    }
    Ok(snapshot)
}

/// Keeps the commit of a ref that is about to point to another history; returns a note.
pub(crate) fn keep_replaced(
    control: &ControlRepository,
    reference: &str,
    tip: Oid,
) -> Result<Option<String>, Failure> {
    let Some(old) = control.resolve_ref(reference).map_err(git)? else { return Ok(None) };
    if old == tip || control.is_ancestor(old, tip).unwrap_or(false) {
        return Ok(None);
    }
    let kept = format!("refs/orchestrator/replaced/{old}");
    control.update_ref(&kept, old, "replaced by other work").map_err(git)?;
    Ok(Some(format!("`{reference}` had other work; kept it in the workspace as `{kept}`")))
}

/// Maximum size of the patch, in bytes.
const MAX_PATCH_BYTES: usize = 1024 * 1024;

/// Writes the changes of the branch as a patch, for people without a clone.
///
/// A failure is only logged.
pub fn write_patch(context: &Context, base: Oid, tip: Oid) {
    let path = context.layout.run_dir(&context.task.run).diff();
    let write = || -> Result<(), Box<dyn std::error::Error>> {
        let control = open(context, RepositoryRole::Target).map_err(|failure| failure.message)?;
        // Excludes commits of the base that were not merged.
        let from = control.merge_base(base, tip)?.unwrap_or(base);
        let patch = control.patch(from, tip, MAX_PATCH_BYTES)?;
        let mut text = context.redactor.redact_bytes(&patch.text).into_owned();
        if patch.truncated {
            text.extend_from_slice(format!("# truncated; {} files differ\n", patch.files).as_bytes());
        }
        Ok(write_atomically(&path, &text)?)
    };
    if let Err(error) = write() {
        context.journal.warn(format!("cannot write patch: {error}"));
    }
}
