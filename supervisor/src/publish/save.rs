//! Step `commit`: imports and commits the agent's work into the control repository.

use orchestrator_contract::RunName;

use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::import::History;
use crate::git::{GitError, NewCommit, Oid, StatCache, Unsaved, import, snapshot};
use crate::record::file::write_atomically;
use crate::workspace::fetch::open;
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
    /// Notes for people.
    pub notes: Vec<String>,
}

/// Imports the agent's commits, commits the rest of the worktree on top, and updates the branch.
///
/// Commits that do not descend from the start are only kept under a ref of their own.
///
/// # Errors
/// Returns an error if the worktree cannot be read or an object cannot be written.
pub fn save_tree(context: &Context, base: &WorktreeBase, message: &str) -> Result<SavedWork, Failure> {
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    let guest = open_worktree(context, Access::Existing)?;
    let scratch = context.layout.supervisor_dir().join("import");
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::io(&scratch, &error))?;
    let identity = context.task.commit_identity_or_default();
    let imported =
        import::import_commits(&control, &guest, base.start, &identity, &scratch).map_err(git)?;
    let mut notes = imported.notes;
    let (head, other_authors) = match imported.head {
        History::Usable { head, descends_from_base: true, other_authors } => (head, other_authors),
        History::Usable { head, descends_from_base: false, other_authors: _ } => {
            notes.push(format!("the agent rewrote history; committed its files on {}", base.start));
            let kept = format!("refs/orchestrator/{}/rewritten", base.run);
            control.update_ref(&kept, head, "history that the agent rewrote").map_err(git)?;
            (base.start, Vec::new())
        }
        History::Unusable { why } => {
            notes.push(format!("no usable git history ({why}); committed the files of the agent"));
            (base.start, Vec::new())
        }
    };
    for (name, tip) in &imported.others {
        let kept = format!("refs/orchestrator/{}/{}", base.run, name.trim_start_matches("refs/"));
        control.update_ref(&kept, *tip, "other work of the agent").map_err(git)?;
        notes.push(format!("kept `{name}` of the agent in the workspace as `{kept}`"));
    }
    let base_tree = control.commit_tree(base.start).map_err(git)?;
    let head_tree = control.commit_tree(head).map_err(git)?;
    let capture = |cache: &StatCache| {
        snapshot::capture(&control, &guest, base_tree, Some(head_tree), cache).map_err(git)
    };
    let mut snapshot = capture(&StatCache::load(&stat_cache(&context.layout, context.task.kind)))?;
    for _ in 1..MAX_SNAPSHOTS {
        let next = capture(&snapshot.cache)?;
        let is_stable = next.tree == snapshot.tree;
        snapshot = next;
        if is_stable {
            break;
        }
    }
    notes.extend(snapshot.notes);
    notes.extend(snapshot.unsaved.iter().map(unsaved_note));
    for nested in &snapshot.nested_repositories {
        let nested = String::from_utf8_lossy(nested);
        notes.push(format!("`{nested}` is a git repository; committed its files without its history"));
    }
    let tip = if head_tree == snapshot.tree {
        head
    } else {
        let seconds = jiff::Timestamp::now().as_second();
        let new = NewCommit {
            tree: snapshot.tree,
            parents: &[head],
            author: &identity,
            committer: &identity,
            message,
            seconds,
        };
        control.commit(&new).map_err(git)?
    };
    control.update_ref(&format!("refs/heads/{}", base.branch), tip, "saved").map_err(git)?;
    control.sync().map_err(git)?;
    snapshot.cache.save(&stat_cache(&context.layout, context.task.kind)).map_err(git)?;
    let changed_lfs =
        snapshot.lfs_changed.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    Ok(SavedWork { tip, other_authors, changed_lfs, notes })
}

/// Returns a note about a path that could not be saved.
fn unsaved_note(unsaved: &Unsaved) -> String {
    format!("skipped `{}`: it {}", String::from_utf8_lossy(&unsaved.path), unsaved.why)
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
