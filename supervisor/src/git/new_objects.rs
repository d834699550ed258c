//! Visits every commit, path and blob that a push would publish.

use std::collections::HashSet;
use std::ops::ControlFlow;

use git2::{ObjectType, Oid, Sort, Tree};

use super::control::ControlRepository;
use super::error::GitError;
use super::names::MAX_PATH;
use super::tree::{EntryKind, MAX_TREE_DEPTH};

/// Maximum size of the paths of all visited trees together; a few objects can stand for billions of
/// paths.
const MAX_SEEN_BYTES: usize = 512 << 20;

/// Approximate size of a path in a set, beside its bytes.
const SEEN_OVERHEAD: usize = 64;

/// Author or committer, as written in a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature<'a> {
    pub name: &'a [u8],
    pub email: &'a [u8],
}

/// Object that a push would publish.
#[derive(Clone, Copy, Debug)]
pub enum NewObject<'a> {
    /// Commit.
    Commit {
        oid: Oid,
        /// Complete header, including unknown fields.
        header: &'a [u8],
        message: &'a [u8],
        author: Signature<'a>,
        committer: Signature<'a>,
    },
    /// Path that the base does not have.
    Path(&'a [u8]),
    /// Blob that the base does not have, even if a later commit removed it.
    Blob {
        /// One of its paths.
        path: &'a [u8],
        oid: Oid,
        /// Length in bytes.
        size: u64,
        data: &'a [u8],
    },
}

type Proceed<'p> = &'p dyn Fn() -> bool;
type Visit<'v> = &'v mut dyn FnMut(NewObject<'_>) -> ControlFlow<()>;

/// Tree that is being visited.
struct OpenTree<'r> {
    tree: Tree<'r>,
    /// Index of its next entry.
    next: usize,
    /// Length of its path, with a slash.
    folder: usize,
}

#[derive(Default)]
struct Visited {
    trees: HashSet<(Vec<u8>, Oid)>,
    blobs: HashSet<Oid>,
    paths: HashSet<Vec<u8>>,
    /// Size of the paths in these sets.
    bytes: usize,
}

impl Visited {
    /// Returns whether a tree is new at this path.
    fn insert_tree(&mut self, path: &[u8], tree: Oid) -> Result<bool, GitError> {
        let new = self.trees.insert((path.to_vec(), tree));
        self.count(path, new)
    }

    /// Returns whether a path is new.
    fn insert_path(&mut self, path: &[u8]) -> Result<bool, GitError> {
        let new = !self.paths.contains(path) && self.paths.insert(path.to_vec());
        self.count(path, new)
    }

    fn count(&mut self, path: &[u8], new: bool) -> Result<bool, GitError> {
        if new {
            self.bytes += path.len() + SEEN_OVERHEAD;
        }
        if self.bytes > MAX_SEEN_BYTES {
            let limit = MAX_SEEN_BYTES >> 20;
            let message = format!("the trees of the commits have too many paths (limit: {limit} MiB)");
            return Err(GitError::Unsupported(message));
        }
        Ok(new)
    }
}

impl ControlRepository {
    /// Visits the commits of `head` that `base` does not have, oldest first, and their new paths
    /// and blobs, each exactly once. Ends when `proceed` returns false.
    ///
    /// # Errors
    /// Returns an error if an object cannot be read, or the trees are too large or nested too deeply.
    pub fn walk_new(
        &self,
        base: Option<Oid>,
        head: Oid,
        proceed: Proceed<'_>,
        visit: Visit<'_>,
    ) -> Result<(), GitError> {
        let fail = || GitError::library(format!("read the commits up to {head}"));
        let mut walk = self.repository.revwalk().map_err(fail())?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(fail())?;
        walk.push(head).map_err(fail())?;
        if let Some(base) = base {
            walk.hide(base).map_err(fail())?;
        }
        let mut seen = Visited::default();
        if let Some(base) = base
            && self.visit_tree(self.commit_tree(base)?, &mut seen, proceed, None)?.is_break()
        {
            return Ok(());
        }
        for commit in walk {
            let commit = self.commit_object(commit.map_err(fail())?)?;
            let (author, committer) = (commit.author(), commit.committer());
            let object = NewObject::Commit {
                oid: commit.id(),
                header: commit.raw_header_bytes(),
                message: commit.message_raw_bytes(),
                author: Signature { name: author.name_bytes(), email: author.email_bytes() },
                committer: Signature { name: committer.name_bytes(), email: committer.email_bytes() },
            };
            if !proceed()
                || visit(object).is_break()
                || self.visit_tree(commit.tree_id(), &mut seen, proceed, Some(&mut *visit))?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Visits a tree; without a visitor, only marks its objects as seen.
    fn visit_tree(
        &self,
        root: Oid,
        seen: &mut Visited,
        proceed: Proceed<'_>,
        mut visit: Option<Visit<'_>>,
    ) -> Result<ControlFlow<()>, GitError> {
        let mut path = Vec::new();
        let mut open = Vec::new();
        self.open_tree(root, &path, seen, &mut open)?;
        while let Some(top) = open.last_mut() {
            if !proceed() {
                return Ok(ControlFlow::Break(()));
            }
            path.truncate(top.folder);
            let Some(entry) = top.tree.get(top.next) else {
                open.pop();
                continue;
            };
            top.next += 1;
            path.extend_from_slice(entry.name_bytes());
            let (oid, kind) = (entry.id(), EntryKind::from_mode(entry.filemode()));
            drop(entry);
            if seen.insert_path(&path)?
                && let Some(visit) = &mut visit
                && visit(NewObject::Path(&path)).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            match kind {
                EntryKind::Folder => {
                    path.push(b'/');
                    self.open_tree(oid, &path, seen, &mut open)?;
                }
                EntryKind::File | EntryKind::Executable | EntryKind::Link => {
                    if seen.blobs.insert(oid)
                        && let Some(visit) = &mut visit
                        && self.visit_blob(oid, &path, visit)?.is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                EntryKind::Submodule => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Opens a tree that was not seen at this path.
    fn open_tree<'r>(
        &'r self,
        tree: Oid,
        path: &[u8],
        seen: &mut Visited,
        open: &mut Vec<OpenTree<'r>>,
    ) -> Result<(), GitError> {
        // The path ends with a slash.
        if open.len() >= MAX_TREE_DEPTH || path.len() > MAX_PATH + 1 {
            return Err(GitError::Unsupported(format!(
                "the commits have more than {MAX_TREE_DEPTH} nested folders, or a path longer than {MAX_PATH} bytes"
            )));
        }
        if seen.insert_tree(path, tree)? {
            let found = self.repository.find_tree(tree);
            let tree = found.map_err(GitError::library(format!("read tree {tree}")))?;
            open.push(OpenTree { tree, next: 0, folder: path.len() });
        }
        Ok(())
    }

    fn visit_blob(&self, oid: Oid, path: &[u8], visit: Visit<'_>) -> Result<ControlFlow<()>, GitError> {
        let fail = || GitError::library(format!("read blob {oid}"));
        let odb = self.repository.odb().map_err(fail())?;
        let object = odb.read(oid).map_err(fail())?;
        if object.kind() != ObjectType::Blob {
            return Ok(ControlFlow::Continue(()));
        }
        let data = object.data();
        Ok(visit(NewObject::Blob { path, oid, size: data.len() as u64, data }))
    }
}
