//! Collects the documents that agents wrote: reviews and commits them task by task.
//!
//! Only planned documents are read, and no symlink is followed. Other files in the worktree are
//! saved under a private ref, listed in the notes and never pushed.

use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_contract::Reason;

use super::plan::{DocsTask, Plan};
use super::review::{DOCUMENT_MAX_BYTES, review, too_long};
use crate::context::{Context, RepositoryRole};
use crate::failure::Failure;
use crate::git::{GitError, NewCommit, Oid, StatCache, snapshot};
use crate::homes::{ReadError, read_file};
use crate::publish::policy::Policy;
use crate::publish::save::{SavedWork, WorktreeBase, keep_replaced, with_reserve};
use crate::publish::text::render_commit_message;
use crate::publish::unsaved::UnsavedPaths;
use crate::run::DocsSessionResult;
use crate::workspace::fetch::open;
use crate::workspace::state::stat_cache;
use crate::workspace::worktree::{Access, open_worktree};

/// Maximum skipped paths to list in a note.
const MAX_LISTED_PATHS: usize = 10;

/// Branch of a docs run; each task adds a commit.
#[derive(Clone, Debug)]
pub struct DocsBranch {
    name: String,
    tip: Arc<Mutex<Oid>>,
}

impl DocsBranch {
    /// Creates the branch at the commit that the run starts from.
    #[must_use]
    pub fn new(name: &str, start: Oid) -> Self {
        Self { name: name.to_owned(), tip: Arc::new(Mutex::new(start)) }
    }

    /// Returns its last commit.
    #[must_use]
    pub fn tip(&self) -> Oid {
        *self.tip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reviews one task's documents and commits them if they pass.
#[must_use]
pub fn collect(context: &Context, branch: &DocsBranch, plan: &Plan, subject: &DocsTask) -> DocsSessionResult {
    match review_files(context, plan, subject) {
        Ok(Review::Rejected(findings)) => DocsSessionResult::Rejected(findings),
        Ok(Review::Accepted(files)) => match commit(context, branch, subject, &files) {
            Ok(()) => DocsSessionResult::Written,
            Err(failure) => DocsSessionResult::Failed(failure),
        },
        Err(failure) => DocsSessionResult::Failed(failure),
    }
}

type Files = Vec<(String, Vec<u8>)>;

enum Review {
    Accepted(Files),
    Rejected(Vec<String>),
}

fn review_files(context: &Context, plan: &Plan, subject: &DocsTask) -> Result<Review, Failure> {
    let guest = open_worktree(context, Access::Existing)?;
    let task = &context.task;
    let policy = Policy::new(context.redactor.clone(), &task.protected_paths, &task.protected_paths_allow)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    let (mut findings, mut files) = (Vec::new(), Vec::new());
    for document in &subject.missing {
        let path = format!("{}/{}", plan.folder_of(subject.task), document.file());
        let content = match read_file(&guest, path.as_bytes(), DOCUMENT_MAX_BYTES as u64) {
            Ok(content) => content,
            // A link is never followed.
            Err(ReadError::NotRegular) => None,
            Err(ReadError::TooLarge { .. }) => {
                findings.push(too_long(*document));
                continue;
            }
            Err(error @ (ReadError::Io(_) | ReadError::Guest(_))) => {
                return Err(Failure::from_error(Reason::IoError, &error));
            }
        };
        findings.extend(review(*document, content.as_deref(), &policy));
        files.extend(content.map(|content| (path, content)));
    }
    Ok(if findings.is_empty() { Review::Accepted(files) } else { Review::Rejected(findings) })
}

/// Commits documents to the branch; the lock orders commits of concurrent sessions.
fn commit(context: &Context, branch: &DocsBranch, subject: &DocsTask, files: &Files) -> Result<(), Failure> {
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let mut tip = branch.tip.lock().unwrap_or_else(PoisonError::into_inner);
    let control = open(context, RepositoryRole::Target)?;
    let tree = control.tree_with_files(*tip, files).map_err(git)?;
    if tree == control.commit_tree(*tip).map_err(git)? {
        // The documents are unchanged.
        return Ok(());
    }
    let task = &context.task;
    let title = format!("documents: {}", context.redactor.redact(&subject.entry.title));
    let message = render_commit_message(&task.service, Some(subject.task), &title, &task.run);
    let identity = task.commit_identity_or_default();
    let seconds = jiff::Timestamp::now().as_second();
    let new = NewCommit {
        tree,
        parents: &[*tip],
        author: &identity,
        committer: &identity,
        message: &message,
        seconds,
    };
    let oid = control.commit(&new).map_err(git)?;
    control.update_ref(&format!("refs/heads/{}", branch.name), oid, "documents").map_err(git)?;
    control.sync().map_err(git)?;
    *tip = oid;
    Ok(())
}

/// Saves a docs run whose accepted documents are committed already.
///
/// Other changes in the worktree, such as drafts, are saved under a private ref and listed in
/// the notes.
///
/// # Errors
/// Returns an error if the worktree cannot be read or git objects cannot be written.
pub fn save(context: &Context, worktree: &WorktreeBase, tip: Oid) -> Result<SavedWork, Failure> {
    with_reserve(context, || save_to(context, worktree, tip))
}

fn save_to(context: &Context, worktree: &WorktreeBase, tip: Oid) -> Result<SavedWork, Failure> {
    let git = |error: GitError| Failure::from_error(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    let base = control.commit_tree(worktree.start).map_err(git)?;
    let head = control.commit_tree(tip).map_err(git)?;
    let cache = StatCache::load(&stat_cache(&context.layout, context.task.kind));
    let guest = open_worktree(context, Access::Existing)?;
    let snapshot = snapshot::capture(&control, &guest, base, Some(head), &cache).map_err(git)?;
    let reference = format!("refs/heads/{}", worktree.branch);
    let mut notes = Vec::from_iter(keep_replaced(&control, &reference, tip)?);
    control.update_ref(&reference, tip, "saved").map_err(git)?;
    if snapshot.tree != head {
        let identity = context.task.commit_identity_or_default();
        let seconds = jiff::Timestamp::now().as_second();
        let message = format!("Uncommitted files of {}\n", worktree.run);
        let new = NewCommit {
            tree: snapshot.tree,
            parents: &[tip],
            author: &identity,
            committer: &identity,
            message: &message,
            seconds,
        };
        let drafts = control.commit(&new).map_err(git)?;
        let saved_ref = format!("refs/orchestrator/{}/uncommitted", worktree.run);
        control.update_ref(&saved_ref, drafts, "uncommitted files").map_err(git)?;
        let paths = control.changed_paths(tip, drafts).map_err(git)?;
        let listed: Vec<_> =
            paths.iter().take(MAX_LISTED_PATHS).map(|path| String::from_utf8_lossy(path)).collect();
        let more = paths.len().saturating_sub(MAX_LISTED_PATHS);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        notes.push(format!(
            "skipped files, saved in the workspace as `{saved_ref}`: {}{more}",
            listed.join(", ")
        ));
    }
    control.sync().map_err(git)?;
    snapshot.cache.save(&stat_cache(&context.layout, context.task.kind)).map_err(git)?;
    let mut unsaved = UnsavedPaths::default();
    for path in &snapshot.unsaved {
        unsaved.record(&path.path, &path.why);
    }
    Ok(SavedWork { tip, other_authors: Vec::new(), changed_lfs: Vec::new(), unsaved, notes })
}
