//! Reads files and directories of a commit.

use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid, TreeWalkMode};

use super::control::ControlRepository;
use super::error::GitError;

/// Entry of a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Name; in recursive listings the full path.
    pub name: Vec<u8>,
    pub kind: EntryKind,
    pub oid: Oid,
}

/// Kind of a tree entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Executable file.
    Executable,
    /// Symbolic link.
    Link,
    /// Directory.
    Folder,
    /// Commit of another repository.
    Submodule,
}

impl EntryKind {
    pub(super) fn from_mode(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Folder,
            0o120_000 => Self::Link,
            0o160_000 => Self::Submodule,
            _ if mode & 0o100 != 0 => Self::Executable,
            _ => Self::File,
        }
    }

    pub(super) fn mode(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_000,
            Self::Folder => 0o040_000,
            Self::Submodule => 0o160_000,
        }
    }
}

impl ControlRepository {
    /// Returns the content of a file at a commit, or `None` if the path is not a regular file.
    ///
    /// # Errors
    /// Returns an error if the commit or one of its objects cannot be read.
    pub fn read_file(&self, commit: Oid, path: &Path) -> Result<Option<Vec<u8>>, GitError> {
        let fail = || GitError::library(format!("read `{}` at {commit}", path.display()));
        let tree = self.commit_object(commit)?.tree().map_err(fail())?;
        let entry = match tree.get_path(path) {
            Ok(entry) => entry,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(fail()(error)),
        };
        if entry.kind() != Some(ObjectType::Blob) || EntryKind::from_mode(entry.filemode()) == EntryKind::Link
        {
            return Ok(None);
        }
        let blob = self.repository.find_blob(entry.id()).map_err(fail())?;
        Ok(Some(blob.content().to_vec()))
    }

    /// Returns the entries of a directory at a commit, or `None` if the path is not a directory.
    ///
    /// The empty path is the root.
    ///
    /// # Errors
    /// Returns an error if the commit or one of its objects cannot be read.
    pub fn list_tree(&self, commit: Oid, path: &Path) -> Result<Option<Vec<Entry>>, GitError> {
        let fail = || GitError::library(format!("list `{}` at {commit}", path.display()));
        let root = self.commit_object(commit)?.tree().map_err(fail())?;
        let tree = if path.as_os_str().is_empty() || path == Path::new(".") {
            root
        } else {
            match root.get_path(path) {
                Ok(entry) if entry.kind() == Some(ObjectType::Tree) => {
                    self.repository.find_tree(entry.id()).map_err(fail())?
                }
                Ok(_) => return Ok(None),
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
                Err(error) => return Err(fail()(error)),
            }
        };
        Ok(Some(
            tree.iter()
                .map(|entry| Entry {
                    name: entry.name_bytes().to_vec(),
                    kind: EntryKind::from_mode(entry.filemode()),
                    oid: entry.id(),
                })
                .collect(),
        ))
    }

    /// Returns every file, link and submodule of a tree with its full path, in git's order.
    pub(super) fn list_tree_recursive(&self, tree: Oid) -> Result<Vec<Entry>, GitError> {
        let fail = || GitError::library(format!("read tree {tree}"));
        let mut entries = Vec::new();
        let walked = self.repository.find_tree(tree).map_err(fail())?;
        walked
            .walk(TreeWalkMode::PreOrder, |folder, entry| {
                let kind = EntryKind::from_mode(entry.filemode());
                if kind != EntryKind::Folder {
                    let mut name = Vec::with_capacity(folder.len() + entry.name_bytes().len());
                    name.extend_from_slice(folder.as_bytes());
                    name.extend_from_slice(entry.name_bytes());
                    entries.push(Entry { name, kind, oid: entry.id() });
                }
                git2::TreeWalkResult::Ok
            })
            .map_err(fail())?;
        Ok(entries)
    }
}
