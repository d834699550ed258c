//! Captures the agent's worktree as a tree object, through its guest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{Index, Oid};

use super::control::ControlRepository;
use super::error::GitError;
use super::index::index_entry;
use super::lfs::Pointer;
use super::names::shown;
use super::rules::Rules;
use super::save_files::{Stored, store_files};
use super::stat_cache::StatCache;
use super::tree::EntryKind;
pub use super::walk::Unsaved;
use super::walk::{Tracked, WalkResult, WorktreeFile, walk};
use crate::guest::Guest;

/// Maximum unsaved paths to list.
const MAX_UNSAVED: usize = 10_000;

/// Content of a worktree as a tree object.
#[derive(Debug)]
pub struct Snapshot {
    /// Tree object.
    pub tree: Oid,
    /// Differences from the base tree, by path.
    pub changed: Vec<Change>,
    /// Changed Git LFS files that are not pointers; they cannot be committed as they are.
    pub lfs_changed: Vec<Vec<u8>>,
    /// Directories with a git directory of their own; their files are in the tree.
    pub nested_repositories: Vec<Vec<u8>>,
    /// Paths that are not in the tree as they are in the worktree, by path. Of a tracked one the
    /// tree has what the agent committed last.
    pub unsaved: Vec<Unsaved>,
    /// Messages about the snapshot as a whole.
    pub notes: Vec<String>,
    /// File stats after the snapshot.
    pub cache: StatCache,
}

/// Difference at one path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Path relative to the worktree.
    pub path: Vec<u8>,
    /// Kind of the difference.
    pub kind: ChangeKind,
}

/// Kind of a difference from the base tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// The base tree does not have the path.
    Added,
    /// Content or mode differ.
    Modified,
    /// Only the base tree has the path.
    Removed,
}

/// Kind and object of a tree's entry.
type Node = (EntryKind, Oid);

/// Captures the worktree.
///
/// `head_tree` is the tree of the agent's last commit, by default the base tree. Paths of both
/// are tracked, so never ignored; submodules are those of the head. The agent's git directory is
/// not read. What cannot be read or stored is listed in [`Snapshot::unsaved`].
///
/// # Errors
/// Returns an error if the guest is broken or an object cannot be written.
pub fn capture(
    control: &ControlRepository,
    guest: &Guest,
    base_tree: Oid,
    head_tree: Option<Oid>,
    cache: &StatCache,
) -> Result<Snapshot, GitError> {
    let base_entries = control.list_tree_recursive(base_tree)?;
    let base: BTreeMap<Vec<u8>, Node> =
        base_entries.iter().map(|entry| (entry.name.clone(), (entry.kind, entry.oid))).collect();
    let head_tree = head_tree.unwrap_or(base_tree);
    let head_entries =
        if head_tree == base_tree { base_entries.clone() } else { control.list_tree_recursive(head_tree)? };
    let head: BTreeMap<Vec<u8>, Node> =
        head_entries.iter().map(|entry| (entry.name.clone(), (entry.kind, entry.oid))).collect();
    let mut tracked = Tracked::default();
    tracked.add(base_entries);
    tracked.add(head_entries);

    let mut rules = Rules::new(control)?;
    let mut fresh = StatCache::start_scan(control.path(), tracked.entries.len())?;
    let WalkResult { files, mut nested, submodules, odd, unread, ignored: _ } =
        walk(guest, &tracked, &mut rules)?;
    nested.sort();
    nested.dedup();
    let mut index = read_index(control, head_tree)?;
    if rules.has_attributes() {
        rules.view().set_index(&mut index).map_err(GitError::library("read the tree"))?;
    }

    let cached = |file: &WorktreeFile| cache.content(&file.path, file.kind, &file.signature());
    let unknown: Vec<&WorktreeFile> = files.iter().filter(|file| cached(file).is_none()).collect();
    let pointers = pointers(control, &unknown, &rules, &[&head, &base]);
    let mut stored = store_files(control, guest, &unknown, &rules, &pointers)?.into_iter();

    let mut captured = Captured::new(head, unread, odd);
    for file in &files {
        let known = cached(file).map(|oid| Stored::Blob(oid, file.signature()));
        match known.or_else(|| stored.next()).unwrap_or(Stored::Gone) {
            Stored::Gone => {}
            Stored::Unsaved(why) => captured.keep(&file.path, why),
            Stored::Blob(oid, signature) => {
                fresh.record(file.path.clone(), file.kind, signature, oid);
                captured.nodes.insert(file.path.clone(), (file.kind, oid));
            }
        }
    }
    for path in submodules {
        if let Some(node) = tracked.entries.get(&path) {
            captured.nodes.insert(path, *node);
        }
    }
    captured.write(&mut index)?;
    let tree =
        index.write_tree_to(&control.repository).map_err(GitError::library("write the snapshot's tree"))?;
    let changed = differences(&base, &captured.nodes);
    let lfs_changed = changed_content(control, &rules, &changed, &captured.nodes);
    Ok(Snapshot {
        tree,
        changed,
        lfs_changed,
        nested_repositories: nested,
        unsaved: captured.unsaved(),
        notes: Vec::new(),
        cache: fresh,
    })
}

/// Returns an in-memory index with a tree's entries.
fn read_index(control: &ControlRepository, tree: Oid) -> Result<Index, GitError> {
    let fail = || GitError::library("read the tree");
    let mut index = Index::new().map_err(fail())?;
    let tree = control.repository.find_tree(tree).map_err(fail())?;
    index.read_tree(&tree).map_err(fail())?;
    Ok(index)
}

/// Returns the Git LFS pointers that trees have in the place of files.
fn pointers(
    control: &ControlRepository,
    files: &[&WorktreeFile],
    rules: &Rules,
    trees: &[&BTreeMap<Vec<u8>, Node>],
) -> HashMap<Vec<u8>, Pointer> {
    let mut pointers = HashMap::new();
    if !rules.has_attributes() {
        return pointers;
    }
    for file in files.iter().filter(|file| rules.is_lfs(&file.path)) {
        let blobs = trees.iter().filter_map(|tree| tree.get(&file.path)).map(|(_, oid)| *oid);
        let mut known = blobs.filter_map(|blob| Pointer::read(&control.repository, blob));
        if let Some(pointer) = known.find(|pointer| pointer.size == file.stat.size) {
            pointers.insert(file.path.clone(), pointer);
        }
    }
    pointers
}

/// Tree that is being captured.
struct Captured {
    head: BTreeMap<Vec<u8>, Node>,
    /// Entries of the new tree.
    nodes: HashMap<Vec<u8>, Node>,
    unsaved: Vec<Unsaved>,
    more: usize,
}

impl Captured {
    /// Starts with the head's entries below folders that could not be read.
    fn new(head: BTreeMap<Vec<u8>, Node>, unread: Vec<Unsaved>, odd: Vec<Unsaved>) -> Self {
        let folders: HashSet<&[u8]> = unread.iter().map(|folder| folder.path.as_slice()).collect();
        let is_unread = |path: &[u8]| {
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            folders.contains(b"".as_slice()) || ends.into_iter().any(|end| folders.contains(&path[..end]))
        };
        let nodes = if folders.is_empty() {
            HashMap::new()
        } else {
            head.iter()
                .filter(|(path, _)| is_unread(path))
                .map(|(path, node)| (path.clone(), *node))
                .collect()
        };
        let mut captured = Self { head, nodes, unsaved: Vec::new(), more: 0 };
        for unsaved in unread.into_iter().chain(odd) {
            captured.report(unsaved);
        }
        captured
    }

    fn report(&mut self, unsaved: Unsaved) {
        if self.unsaved.len() < MAX_UNSAVED {
            self.unsaved.push(unsaved);
        } else {
            self.more += 1;
        }
    }

    /// Keeps the head's entry of a path that could not be saved.
    fn keep(&mut self, path: &[u8], why: String) {
        if let Some(node) = self.head.get(path) {
            self.nodes.insert(path.to_vec(), *node);
        }
        self.report(Unsaved { path: path.to_vec(), why });
    }

    /// Writes the differences from the head into its index: removals, then additions.
    fn write(&mut self, index: &mut Index) -> Result<(), GitError> {
        for path in self.head.keys().filter(|path| !self.nodes.contains_key(*path)) {
            let removed = index.remove(Path::new(OsStr::from_bytes(path)), 0);
            removed.map_err(GitError::library(format!("remove `{}`", shown(path))))?;
        }
        let mut added: Vec<(Vec<u8>, Node)> = self
            .nodes
            .iter()
            .filter(|(path, node)| self.head.get(*path) != Some(node))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        added.sort_by(|one, other| one.0.cmp(&other.0));
        for (path, (kind, oid)) in added {
            if let Err(error) = index.add(&index_entry(&path, kind, oid)) {
                self.nodes.remove(&path);
                self.report(Unsaved {
                    path,
                    why: format!("has a path that git rejects: {}", error.message()),
                });
            }
        }
        Ok(())
    }

    /// Returns the paths that were not saved, sorted.
    fn unsaved(mut self) -> Vec<Unsaved> {
        self.unsaved.sort_by(|one, other| one.path.cmp(&other.path));
        if self.more > 0 {
            let why = format!("are {} more paths that could not be saved", self.more);
            self.unsaved.push(Unsaved { path: b"...".to_vec(), why });
        }
        self.unsaved
    }
}

/// Returns the differences between two trees, sorted by path.
fn differences(base: &BTreeMap<Vec<u8>, Node>, nodes: &HashMap<Vec<u8>, Node>) -> Vec<Change> {
    let removed = base.keys().filter(|path| !nodes.contains_key(*path));
    let removed = removed.map(|path| Change { path: path.clone(), kind: ChangeKind::Removed });
    let written = nodes.iter().filter_map(|(path, node)| {
        let kind = match base.get(path) {
            None => ChangeKind::Added,
            Some(old) if old == node => return None,
            Some(_) => ChangeKind::Modified,
        };
        Some(Change { path: path.clone(), kind })
    });
    let mut changed: Vec<Change> = removed.chain(written).collect();
    changed.sort_by(|one, other| one.path.cmp(&other.path));
    changed
}

/// Returns the changed Git LFS files whose blob is their content instead of a pointer.
fn changed_content(
    control: &ControlRepository,
    rules: &Rules,
    changed: &[Change],
    nodes: &HashMap<Vec<u8>, Node>,
) -> Vec<Vec<u8>> {
    if !rules.has_attributes() {
        return Vec::new();
    }
    let is_content = |change: &&Change| match nodes.get(&change.path) {
        Some((EntryKind::File | EntryKind::Executable, oid)) => {
            rules.is_lfs(&change.path)
                && Pointer::read(&control.repository, *oid).is_none()
                // Git LFS has no pointer for an empty file.
                && !control.is_empty_blob(*oid)
        }
        Some((EntryKind::Link | EntryKind::Folder | EntryKind::Submodule, _)) | None => false,
    };
    changed.iter().filter(is_content).map(|change| change.path.clone()).collect()
}
