//! Visits every commit, path and blob that a push would publish.

use std::collections::HashSet;
use std::ops::ControlFlow;

use git2::{ObjectType, Oid, Sort};

use super::control::ControlRepository;
use super::error::GitError;
use super::tree::EntryKind;

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

type Visit<'v> = &'v mut dyn FnMut(NewObject<'_>) -> ControlFlow<()>;

struct Visited {
    trees: HashSet<(Vec<u8>, Oid)>,
    blobs: HashSet<Oid>,
    paths: HashSet<Vec<u8>>,
}

impl ControlRepository {
    /// Visits the commits of `head` that `base` does not have, oldest first, and their new paths
    /// and blobs, each exactly once.
    ///
    /// # Errors
    /// Returns an error if an object cannot be read.
    pub fn walk_new(&self, base: Option<Oid>, head: Oid, visit: Visit<'_>) -> Result<(), GitError> {
        let fail = || GitError::library(format!("read the commits up to {head}"));
        let mut walk = self.repository.revwalk().map_err(fail())?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(fail())?;
        walk.push(head).map_err(fail())?;
        if let Some(base) = base {
            walk.hide(base).map_err(fail())?;
        }
        let mut seen = Visited { trees: HashSet::new(), blobs: HashSet::new(), paths: HashSet::new() };
        if let Some(base) = base {
            _ = self.visit_tree(self.commit_tree(base)?, &mut Vec::new(), &mut seen, None)?;
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
            if visit(object).is_break()
                || self
                    .visit_tree(commit.tree_id(), &mut Vec::new(), &mut seen, Some(&mut *visit))?
                    .is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Visits a tree; without a visitor, only marks its objects as seen.
    fn visit_tree(
        &self,
        tree: Oid,
        folder: &mut Vec<u8>,
        seen: &mut Visited,
        mut visit: Option<Visit<'_>>,
    ) -> Result<ControlFlow<()>, GitError> {
        if !seen.trees.insert((folder.clone(), tree)) {
            return Ok(ControlFlow::Continue(()));
        }
        let tree = self.repository.find_tree(tree).map_err(GitError::library(format!("read tree {tree}")))?;
        for entry in &tree {
            let length = folder.len();
            folder.extend_from_slice(entry.name_bytes());
            if seen.paths.insert(folder.clone())
                && let Some(visit) = &mut visit
                && visit(NewObject::Path(folder)).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            match EntryKind::from_mode(entry.filemode()) {
                EntryKind::Folder => {
                    folder.push(b'/');
                    let inner: Option<Visit<'_>> = match &mut visit {
                        Some(visit) => Some(&mut **visit),
                        None => None,
                    };
                    if self.visit_tree(entry.id(), folder, seen, inner)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                EntryKind::File | EntryKind::Executable | EntryKind::Link => {
                    let new = seen.blobs.insert(entry.id());
                    if new
                        && let Some(visit) = &mut visit
                        && self.visit_blob(entry.id(), folder, visit)?.is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                EntryKind::Submodule => {}
            }
            folder.truncate(length);
        }
        Ok(ControlFlow::Continue(()))
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
