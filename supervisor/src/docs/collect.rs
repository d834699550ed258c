//! Reads what an agent wrote, and commits what counts, task by task.
//!
//! Only the documents that were asked for are read, through no link. Whatever else is in
//! the tree is kept aside and named, and never published.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use git2::Oid;
use orchestrator_contract::Reason;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::plan::{DocsTask, Plan};
use super::review::{DOCUMENT_MAX, review};
use crate::context::{Context, RepositoryRole, failure, io_failure};
use crate::git::{GitError, NewCommit, StatCache, snapshot};
use crate::publish::policy::Policy;
use crate::publish::save::{SavedWork, WorktreeBase};
use crate::publish::text::render_commit_message;
use crate::run::{DocsSessionResult, Failure};
use crate::workspace::fetch::open;
use crate::workspace::state::stat_cache;

/// Most that is read of a file: enough to say that it is too long.
const READ_MAX: u64 = 4 * DOCUMENT_MAX as u64;

/// Paths that are named when something was left out.
const MAX_LISTED_PATHS: usize = 10;

/// The branch as it grows, one commit a task.
#[derive(Clone, Debug)]
pub struct DocsBranch {
    name: String,
    tip: Arc<Mutex<Oid>>,
}

impl DocsBranch {
    /// The branch before anything was written.
    #[must_use]
    pub fn new(name: &str, start: Oid) -> Self {
        Self { name: name.to_owned(), tip: Arc::new(Mutex::new(start)) }
    }

    /// Its last commit.
    #[must_use]
    pub fn tip(&self) -> Oid {
        *self.tip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the folder that the agent of one task writes in.
///
/// # Errors
/// Something on the way is no folder, or the disk refuses.
pub fn make_folder(tree: &Path, relative: &str) -> Result<PathBuf, Failure> {
    let mut path = tree.to_owned();
    for part in relative.split('/') {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => {}
            // A link could lead anywhere.
            Ok(_) => {
                let message = format!("`{relative}` cannot be written: `{part}` is a file or a link");
                return Err(Failure::new(Reason::InvalidTask, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(&path).map_err(|error| io_failure(&path, &error))?;
            }
            Err(error) => return Err(io_failure(&path, &error)),
        }
    }
    Ok(path)
}

/// The content of a regular file below `tree`, reached through no link; none if there is none.
fn read_beneath(tree: &Path, relative: &str) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let none = |errno: rustix::io::Errno| {
        use rustix::io::Errno;
        // Missing, or a link, or a file where a folder should be: nothing that was asked for.
        if [Errno::NOENT, Errno::LOOP, Errno::NOTDIR, Errno::XDEV].contains(&errno) {
            Ok(None)
        } else {
            Err(io::Error::from(errno))
        }
    };
    let folder =
        match rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => folder,
            Err(errno) => return none(errno),
        };
    // Not blocking: a pipe of that name would have us wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match rustix::fs::openat2(&folder, relative, flags, Mode::empty(), beneath) {
        Ok(file) => std::fs::File::from(file),
        Err(errno) => return none(errno),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(READ_MAX).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Looks at what was written about one task and commits it if it counts.
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
    let tree = context.worktree();
    let policy = Policy::new(context.redactor.clone(), &context.task.protected_paths)
        .map_err(|error| failure(error.reason(), &error))?;
    let (mut findings, mut files) = (Vec::new(), Vec::new());
    for document in &subject.missing {
        let path = format!("{}/{}", plan.folder_of(subject.task), document.file());
        let content = read_beneath(&tree, &path).map_err(|error| io_failure(&tree.join(&path), &error))?;
        findings.extend(review(*document, content.as_deref(), &policy));
        files.extend(content.map(|content| (path, content)));
    }
    Ok(if findings.is_empty() { Review::Accepted(files) } else { Review::Rejected(findings) })
}

/// One commit on the branch. Conversations end in any order: one commit at a time.
fn commit(context: &Context, branch: &DocsBranch, subject: &DocsTask, files: &Files) -> Result<(), Failure> {
    let git = |error: GitError| failure(error.reason(), &error);
    let mut tip = branch.tip.lock().unwrap_or_else(PoisonError::into_inner);
    let control = open(context, RepositoryRole::Target)?;
    let tree = control.tree_with_files(*tip, files).map_err(git)?;
    if tree == control.commit_tree(*tip).map_err(git)? {
        // Written again with the same words.
        return Ok(());
    }
    let task = &context.task;
    let title = format!("documents: {}", subject.entry.title);
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

/// The end of a docs run: everything that counts is committed already; what else is in the
/// tree, such as a draft, is kept under a ref of ours and named.
///
/// # Errors
/// The tree cannot be read or the objects not be written.
pub fn save(context: &Context, left: &WorktreeBase, tip: Oid) -> Result<SavedWork, Failure> {
    let git = |error: GitError| failure(error.reason(), &error);
    let control = open(context, RepositoryRole::Target)?;
    let base = control.commit_tree(left.start).map_err(git)?;
    let head = control.commit_tree(tip).map_err(git)?;
    let cache = StatCache::load(&stat_cache(&context.layout, context.task.kind));
    let seen = snapshot::capture(&control, &context.worktree(), base, Some(head), &cache).map_err(git)?;
    control.update_ref(&format!("refs/heads/{}", left.branch), tip, "saved").map_err(git)?;
    let mut notes = Vec::new();
    if seen.tree != head {
        let identity = context.task.commit_identity_or_default();
        let seconds = jiff::Timestamp::now().as_second();
        let message = format!("What {} left out\n", left.run);
        let new = NewCommit {
            tree: seen.tree,
            parents: &[tip],
            author: &identity,
            committer: &identity,
            message: &message,
            seconds,
        };
        let drafts = control.commit(&new).map_err(git)?;
        let kept = format!("refs/orchestrator/{}/uncommitted", left.run);
        control.update_ref(&kept, drafts, "files that are no finished documents").map_err(git)?;
        let paths = control.changed_paths(tip, drafts).map_err(git)?;
        let named: Vec<_> =
            paths.iter().take(MAX_LISTED_PATHS).map(|path| String::from_utf8_lossy(path)).collect();
        let more = paths.len().saturating_sub(MAX_LISTED_PATHS);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        notes.push(format!("left out, and kept in the workspace as `{kept}`: {}{more}", named.join(", ")));
    }
    control.sync().map_err(git)?;
    seen.cache.save(&stat_cache(&context.layout, context.task.kind)).map_err(git)?;
    Ok(SavedWork { tip, other_authors: Vec::new(), changed_lfs: Vec::new(), notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_beneath_returns_regular_files_only() {
        let tree = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let folder = make_folder(tree.path(), ".taskmaster/docs/task-1").unwrap();
        std::fs::write(folder.join("task.md"), "text").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.join("prompt.md")).unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.path().join("link")).unwrap();
        std::fs::create_dir(folder.join("acceptance-criteria.md")).unwrap();
        let read = |path: &str| read_beneath(tree.path(), path).unwrap();
        assert_eq!(read(".taskmaster/docs/task-1/task.md"), Some(b"text".to_vec()));
        assert_eq!(read(".taskmaster/docs/task-1/prompt.md"), None);
        assert_eq!(read(".taskmaster/docs/task-1/acceptance-criteria.md"), None);
        assert_eq!(read(".taskmaster/docs/task-2/task.md"), None);
        assert_eq!(read("link/secret"), None);
        assert_eq!(read("../secret"), None);
        let refused = make_folder(tree.path(), "link/docs").unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidTask);
    }
}
