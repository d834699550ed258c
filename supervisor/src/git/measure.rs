//! Checks trees that the agent wrote, before anything walks them.
//!
//! A tree may name the same folder many times, so a few objects can stand for billions of paths.
//! Each tree object is measured once.

use std::collections::{HashMap, HashSet};

use git2::{ObjectType, Oid, Repository};

use super::error::GitError;
use super::names::{MAX_PATH, check_name, shown};
use super::tree::{EntryKind, MAX_TREE_DEPTH, MAX_TREE_ENTRIES};

/// Maximum size of a tree object in bytes; one of a million entries has about 40 MiB.
const MAX_TREE_BYTES: usize = 128 << 20;

/// Size of a tree with all of its folders.
#[derive(Clone, Copy, Debug)]
struct Measure {
    /// Nested folders, with the tree itself.
    height: usize,
    entries: usize,
    /// Length of the longest path below it.
    path: usize,
}

/// Measures trees of one repository.
pub(super) struct Measures<'r> {
    repository: &'r Repository,
    known: HashMap<Oid, Measure>,
}

struct Open {
    oid: Oid,
    /// Folders that are still to be measured.
    pending: Vec<Oid>,
    /// Folders with the length of their names.
    folders: Vec<(Oid, usize)>,
    longest_name: usize,
    entries: usize,
}

impl<'r> Measures<'r> {
    pub(super) fn new(repository: &'r Repository) -> Self {
        Self { repository, known: HashMap::new() }
    }

    /// Checks names, depth and size of a tree with all of its folders.
    ///
    /// # Errors
    /// Returns an error if a name is refused, the tree is too large or too deep, or an object
    /// cannot be read.
    pub(super) fn check(&mut self, tree: Oid) -> Result<(), GitError> {
        let mut stack = vec![self.open(tree)?];
        while let Some(top) = stack.last_mut() {
            if let Some(next) = top.pending.pop() {
                if !self.known.contains_key(&next) {
                    if stack.len() >= MAX_TREE_DEPTH {
                        return Err(too_large(tree));
                    }
                    let opened = self.open(next)?;
                    stack.push(opened);
                }
                continue;
            }
            let mut measure = Measure { height: 1, entries: top.entries, path: top.longest_name };
            for (folder, name) in &top.folders {
                let Some(inside) = self.known.get(folder) else { continue };
                measure.height = measure.height.max(inside.height + 1);
                measure.entries = measure.entries.saturating_add(inside.entries);
                measure.path = measure.path.max(name + 1 + inside.path);
            }
            if measure.height > MAX_TREE_DEPTH
                || measure.entries > MAX_TREE_ENTRIES
                || measure.path > MAX_PATH
            {
                return Err(too_large(tree));
            }
            self.known.insert(top.oid, measure);
            stack.pop();
        }
        Ok(())
    }

    fn open(&self, oid: Oid) -> Result<Open, GitError> {
        let fail = || GitError::library(format!("read tree {oid}"));
        let (size, kind) = self.repository.odb().and_then(|odb| odb.read_header(oid)).map_err(fail())?;
        if kind != ObjectType::Tree || size > MAX_TREE_BYTES {
            return Err(GitError::Unsupported(format!(
                "tree {oid} is none, or larger than {MAX_TREE_BYTES} bytes"
            )));
        }
        let tree = self.repository.find_tree(oid).map_err(fail())?;
        let mut open =
            Open { oid, pending: Vec::new(), folders: Vec::new(), longest_name: 0, entries: tree.len() };
        let mut names = HashSet::with_capacity(tree.len());
        for entry in &tree {
            let name = entry.name_bytes();
            let refuse = |why: &str| {
                GitError::Unsupported(format!("tree {oid} has an entry `{}`, which {why}", shown(name)))
            };
            check_name(name).map_err(|problem| refuse(&problem.to_string()))?;
            if !names.insert(name.to_vec()) {
                return Err(refuse("occurs twice"));
            }
            open.longest_name = open.longest_name.max(name.len());
            if EntryKind::from_mode(entry.filemode()) == EntryKind::Folder {
                open.pending.push(entry.id());
                open.folders.push((entry.id(), name.len()));
            }
        }
        Ok(open)
    }
}

fn too_large(tree: Oid) -> GitError {
    GitError::Unsupported(format!(
        "tree {tree} has more than {MAX_TREE_ENTRIES} entries, {MAX_TREE_DEPTH} nested folders, or a path longer \
         than {MAX_PATH} bytes"
    ))
}
