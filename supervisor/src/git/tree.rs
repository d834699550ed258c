//! Reads files and directories of a commit.

use std::collections::HashSet;
use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid};

use super::control::ControlRepository;
use super::error::GitError;
use super::names::{MAX_PATH, check_name, shown};

/// Maximum entries of a tree, with all its folders. A tree can name the same folder many times.
pub(super) const MAX_TREE_ENTRIES: usize = 2_000_000;

/// Maximum nested folders of a tree: libgit2 writes trees recursively.
pub(super) const MAX_TREE_DEPTH: usize = 1000;

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

/// What a path is at a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathNode {
    pub kind: EntryKind,
    /// Content of a file or target of a link; absent for others, and if it has more bytes than were asked for.
    pub content: Option<Vec<u8>>,
    /// Size of a file or of a link's target.
    pub size: usize,
}

impl ControlRepository {
    /// Returns the content of a file at a commit, or `None` if the path is not a regular file of up to `max` bytes.
    ///
    /// # Errors
    /// Returns an error if the commit or one of its objects cannot be read.
    pub fn read_file_up_to(&self, commit: Oid, path: &Path, max: usize) -> Result<Option<Vec<u8>>, GitError> {
        let node = self.read_node(commit, path, max)?;
        let is_file = |kind: &EntryKind| matches!(kind, EntryKind::File | EntryKind::Executable);
        Ok(node.filter(|node| is_file(&node.kind)).and_then(|node| node.content))
    }

    /// Returns what a path is at a commit, with up to `max` bytes of content, or `None` if it does not exist.
    ///
    /// No link is followed.
    ///
    /// # Errors
    /// Returns an error if the commit or one of its objects cannot be read.
    pub fn read_node(&self, commit: Oid, path: &Path, max: usize) -> Result<Option<PathNode>, GitError> {
        let fail = || GitError::library(format!("read `{}` at {commit}", path.display()));
        let tree = self.commit_object(commit)?.tree().map_err(fail())?;
        let entry = match tree.get_path(path) {
            Ok(entry) => entry,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(fail()(error)),
        };
        let kind = EntryKind::from_mode(entry.filemode());
        let (content, size) = if entry.kind() == Some(ObjectType::Blob) {
            self.read_blob_up_to(entry.id(), max).map_err(fail())?
        } else {
            (None, 0)
        };
        Ok(Some(PathNode { kind, content, size }))
    }

    /// Returns the content of a blob, or `None` if it has more than `max` bytes, and its size.
    fn read_blob_up_to(&self, blob: Oid, max: usize) -> Result<(Option<Vec<u8>>, usize), git2::Error> {
        // The header alone: a larger object is not loaded.
        let (size, _) = self.repository.odb()?.read_header(blob)?;
        if size > max {
            return Ok((None, size));
        }
        Ok((Some(self.repository.find_blob(blob)?.content().to_vec()), size))
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
    ///
    /// # Errors
    /// Returns `Unsupported` if the tree has a name that no worktree may have, has the same name
    /// twice, or is too large or too deep.
    pub(super) fn list_tree_recursive(&self, tree: Oid) -> Result<Vec<Entry>, GitError> {
        let mut entries = Vec::new();
        let mut visited = 0;
        // Trees to continue with: their path, their entries in reverse.
        let mut open = vec![(Vec::new(), self.checked_entries(tree, b"")?)];
        while let Some((folder, rest)) = open.last_mut() {
            let Some(Entry { name, kind, oid }) = rest.pop() else {
                open.pop();
                continue;
            };
            visited += 1;
            let mut path = folder.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if visited > MAX_TREE_ENTRIES || open.len() > MAX_TREE_DEPTH || path.len() > MAX_PATH {
                return Err(GitError::Unsupported(format!(
                    "the tree has more than {MAX_TREE_ENTRIES} entries, {MAX_TREE_DEPTH} nested folders, or a path \
                     longer than {MAX_PATH} bytes, at `{}`",
                    shown(&path)
                )));
            }
            if kind == EntryKind::Folder {
                let inside = self.checked_entries(oid, &path)?;
                open.push((path, inside));
            } else {
                entries.push(Entry { name: path, kind, oid });
            }
        }
        Ok(entries)
    }

    /// Returns the entries of one tree in reverse, with checked names.
    fn checked_entries(&self, tree: Oid, folder: &[u8]) -> Result<Vec<Entry>, GitError> {
        let tree = self.repository.find_tree(tree).map_err(GitError::library(format!("read tree {tree}")))?;
        let mut entries = Vec::with_capacity(tree.len());
        let mut names = HashSet::with_capacity(tree.len());
        for entry in tree.iter().rev() {
            let name = entry.name_bytes();
            let refuse = |why: &str| {
                let place = if folder.is_empty() {
                    "at its top".to_owned()
                } else {
                    format!("in `{}`", shown(folder))
                };
                GitError::Unsupported(format!("the tree has an entry `{}` {place}, which {why}", shown(name)))
            };
            check_name(name).map_err(|problem| refuse(&problem.to_string()))?;
            if !names.insert(name.to_vec()) {
                return Err(refuse("occurs twice"));
            }
            let kind = EntryKind::from_mode(entry.filemode());
            entries.push(Entry { name: name.to_vec(), kind, oid: entry.id() });
        }
        Ok(entries)
    }
}
