//! Every commit, name and blob that a branch adds: what a push would publish.

use std::collections::HashSet;
use std::ops::ControlFlow;

use git2::{ObjectType, Oid, Sort};

use super::control::EntryKind;
use super::{ControlRepository, GitError};

/// A name and an address as they stand in a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The e-mail address.
    pub email: &'a [u8],
}

/// Something that a push would publish.
#[derive(Clone, Copy, Debug)]
pub enum NewObject<'a> {
    /// A commit.
    Commit {
        /// Its id.
        oid: Oid,
        /// Its whole header, with fields that nobody reads.
        header: &'a [u8],
        /// Its message.
        message: &'a [u8],
        /// Who did the work.
        author: Signature<'a>,
        /// Who committed it.
        committer: Signature<'a>,
    },
    /// A path that the base does not have.
    Path(&'a [u8]),
    /// A content that the base does not have, even if a later commit removed it.
    Blob {
        /// A path that it has.
        path: &'a [u8],
        /// Its id.
        oid: Oid,
        /// Its length.
        size: u64,
        /// Its bytes.
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
    /// Visits every commit that `head` has and `base` has not, oldest first, and
    /// every path and blob that comes with them, each exactly once.
    ///
    /// # Errors
    /// An object cannot be read.
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

    /// Without a visitor, only remembers what is there.
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
