//! Step `save`: everything that the agent left becomes commits of our own repository.

use git2::Oid;
use orchestrator_contract::RunName;

use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::import::History;
use crate::git::{GitError, NewCommit, StatCache, import, snapshot};
use crate::record::file::write_atomically;
use crate::workspace::branch::stat_cache;
use crate::workspace::fetch::open;

/// How often the tree is looked at until two looks agree: nothing that changes it is alive.
const MAX_SNAPSHOTS: usize = 4;

/// What was left in the working tree.
#[derive(Clone, Debug)]
pub struct WorktreeBase {
    /// The commit that the agent got.
    pub start: Oid,
    /// The branch.
    pub branch: String,
    /// The run that left it.
    pub run: RunName,
}

/// The work, saved.
#[derive(Clone, Debug)]
pub struct SavedWork {
    /// The branch's commit, which has everything.
    pub tip: Oid,
    /// Authors other than the agent.
    pub other_authors: Vec<String>,
    /// Files of large-file storage whose content changed: they cannot be pushed as they are.
    pub changed_lfs: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Takes the agent's commits as they are where they descend from the start, commits what is
/// left on top, and moves our own branch there.
///
/// # Errors
/// The tree cannot be read or the objects not be written.
pub fn save_tree(context: &Context, left: &WorktreeBase, message: &str) -> Result<SavedWork, Failure> {
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    let worktree = context.worktree();
    let scratch = context.layout.supervisor_dir().join("import");
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::io(&scratch, &error))?;
    let identity = context.task.commit_identity_or_default();
    let imported =
        import::import_commits(&control, &worktree, left.start, &identity, &scratch).map_err(git)?;
    let mut notes = imported.notes;
    let (head, other_authors) = match imported.head {
        History::Usable { head, descends_from_base: true, foreign } => (head, foreign),
        History::Usable { head, descends_from_base: false, foreign: _ } => {
            notes.push(format!("the agent rewrote history; its tree was committed on {}", left.start));
            let kept = format!("refs/orchestrator/{}/rewritten", left.run);
            control.update_ref(&kept, head, "history that the agent rewrote").map_err(git)?;
            (left.start, Vec::new())
        }
        History::Unusable { why } => {
            notes.push(format!("the agent left no usable git history ({why}); its tree was committed"));
            (left.start, Vec::new())
        }
    };
    for (name, tip) in &imported.others {
        let kept = format!("refs/orchestrator/{}/{}", left.run, name.trim_start_matches("refs/"));
        control.update_ref(&kept, *tip, "other work of the agent").map_err(git)?;
        notes.push(format!("the agent's `{name}` is kept in the workspace as `{kept}`"));
    }
    let base_tree = control.commit_tree(left.start).map_err(git)?;
    let head_tree = control.commit_tree(head).map_err(git)?;
    let look = |cache: &StatCache| {
        snapshot::capture(&control, &worktree, base_tree, Some(head_tree), cache).map_err(git)
    };
    let mut seen = look(&StatCache::load(&stat_cache(context)))?;
    for _ in 1..MAX_SNAPSHOTS {
        let again = look(&seen.cache)?;
        let same = again.tree == seen.tree;
        seen = again;
        if same {
            break;
        }
    }
    notes.extend(seen.notes);
    for nested in &seen.nested_repositories {
        let nested = String::from_utf8_lossy(nested);
        notes.push(format!("`{nested}` is a repository of its own; its files were committed as plain files"));
    }
    let tip = if head_tree == seen.tree {
        head
    } else {
        let seconds = jiff::Timestamp::now().as_second();
        let new = NewCommit {
            tree: seen.tree,
            parents: &[head],
            author: &identity,
            committer: &identity,
            message,
            seconds,
        };
        control.commit(&new).map_err(git)?
    };
    control.update_ref(&format!("refs/heads/{}", left.branch), tip, "saved").map_err(git)?;
    control.sync().map_err(git)?;
    seen.cache.save(&stat_cache(context)).map_err(git)?;
    let changed_lfs =
        seen.lfs_changed.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    Ok(SavedWork { tip, other_authors, changed_lfs, notes })
}

/// Longest patch that is kept for people, bytes.
const LONGEST_PATCH: usize = 1024 * 1024;

/// Writes down what the branch changes, for people who want to see it without a clone. It is a
/// convenience: what goes wrong with it is told and ends nothing.
pub fn write_patch(context: &Context, base: Oid, tip: Oid) {
    let path = context.layout.run_dir(&context.task.run).diff();
    let write = || -> Result<(), Box<dyn std::error::Error>> {
        let control = open(context, RepositoryRole::Target).map_err(|failure| failure.message)?;
        // A base that moved on and was not merged is not this branch's doing.
        let from = control.merge_base(base, tip)?.unwrap_or(base);
        let patch = control.patch(from, tip, LONGEST_PATCH)?;
        let mut text = context.redactor.redact_bytes(&patch.text).into_owned();
        if patch.truncated {
            text.extend_from_slice(format!("# cut here; {} files differ\n", patch.files).as_bytes());
        }
        Ok(write_atomically(&path, &text)?)
    };
    if let Err(error) = write() {
        context.journal.warn(format!("the patch of this run was not written: {error}"));
    }
}
