//! Captures the agent's worktree as a tree object.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{AttrCheckFlags, Index, ObjectType, Oid, Repository};
use rustix::fs::{Mode, OFlags, openat, readlinkat};

use super::control::{ControlRepository, open_bare};
use super::error::GitError;
use super::index::index_entry;
use super::parallel::map_chunks;
use super::stat_cache::StatCache;
use super::tree::EntryKind;
use super::walk::{Tracked, WalkResult, WorktreeFile, open_below, open_root, open_view, split, walk};

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
    /// Paths that could not be read; the rest is in the tree.
    pub unsaved: Vec<Unsaved>,
    /// Messages about skipped paths.
    pub notes: Vec<String>,
    /// File stats after the snapshot.
    pub cache: StatCache,
}

/// A path that could not be saved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsaved {
    /// Path relative to the worktree.
    pub path: Vec<u8>,
    /// Why it could not be saved.
    pub why: String,
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

/// Captures the worktree.
///
/// Paths of `base_tree` and `also_tracked` are tracked, so never ignored. The agent's git
/// directory is not read.
///
/// # Errors
/// Returns an error if the worktree cannot be read or an object cannot be written.
pub fn capture(
    control: &ControlRepository,
    worktree: &Path,
    base_tree: Oid,
    also_tracked: Option<Oid>,
    cache: &StatCache,
) -> Result<Snapshot, GitError> {
    let base_entries = control.list_tree_recursive(base_tree)?;
    let mut base = Tracked::default();
    base.add(base_entries.clone());
    let mut tracked = Tracked::default();
    if let Some(tree) = also_tracked {
        tracked.add(control.list_tree_recursive(tree)?);
    }
    tracked.add(base_entries);

    let view = open_view(control, worktree)?;
    let mut fresh = StatCache::start_scan(control.path(), tracked.entries.len())?;
    let WalkResult { files, mut nested, submodules, unsupported, ignored: _ } =
        walk(worktree, &tracked, &view)?;
    let skipped = |path: &Vec<u8>| {
        format!("skipped `{}`: not a file, link or directory", String::from_utf8_lossy(path))
    };
    let mut notes: Vec<String> = unsupported.iter().map(skipped).collect();
    nested.sort();
    nested.dedup();

    let mut index = base_index(control, base_tree)?;
    let converts = files.iter().any(|file| split(&file.path).1 == b".gitattributes");
    if converts {
        view.set_index(&mut index).map_err(GitError::library("read the base tree"))?;
    }
    let unknown: Vec<&WorktreeFile> =
        files.iter().filter(|file| cache.content(&file.path, file.kind, &file.signature).is_none()).collect();
    let mut lfs_changed = Vec::new();
    let hashed = hash_all(control, worktree, &unknown, converts.then_some(&view), &mut lfs_changed)?;

    let mut hashed = hashed.into_iter();
    let mut present: HashSet<&[u8]> = submodules.iter().map(Vec::as_slice).collect();
    let mut changes: Vec<(&WorktreeFile, Oid, ChangeKind)> = Vec::new();
    for file in &files {
        let oid = match cache.content(&file.path, file.kind, &file.signature) {
            Some(oid) => oid,
            None => match hashed.next() {
                Some(Some(oid)) => oid,
                Some(None) | None => continue, // Deleted since the walk.
            },
        };
        present.insert(&file.path);
        fresh.record(file.path.clone(), file.kind, file.signature, oid);
        match base.entries.get(&file.path) {
            None => changes.push((file, oid, ChangeKind::Added)),
            Some(entry) if *entry == (file.kind, oid) => {}
            Some(_) => changes.push((file, oid, ChangeKind::Modified)),
        }
    }
    let removed = base.entries.keys().filter(|path| !present.contains(path.as_slice()));
    let changed = apply_changes(&mut index, removed, &changes, &mut notes)?;
    let tree =
        index.write_tree_to(&control.repository).map_err(GitError::library("write the snapshot's tree"))?;
    lfs_changed.retain(|path| changed.iter().any(|change| change.path == *path));
    Ok(Snapshot {
        tree,
        changed,
        lfs_changed,
        nested_repositories: nested,
        unsaved: Vec::new(),
        notes,
        cache: fresh,
    })
}

/// Returns an in-memory index with the base tree's entries.
fn base_index(control: &ControlRepository, base_tree: Oid) -> Result<Index, GitError> {
    let fail = || GitError::library("read the base tree");
    let mut index = Index::new().map_err(fail())?;
    let tree = control.repository.find_tree(base_tree).map_err(fail())?;
    index.read_tree(&tree).map_err(fail())?;
    Ok(index)
}

/// Applies removals, then additions, to the index; returns the changes, sorted by path.
///
/// A path that git rejects is skipped with a note.
fn apply_changes<'p>(
    index: &mut Index,
    removed: impl Iterator<Item = &'p Vec<u8>>,
    changes: &[(&WorktreeFile, Oid, ChangeKind)],
    notes: &mut Vec<String>,
) -> Result<Vec<Change>, GitError> {
    let mut changed = Vec::new();
    for path in removed {
        index
            .remove(Path::new(OsStr::from_bytes(path)), 0)
            .map_err(GitError::library(format!("remove `{}`", String::from_utf8_lossy(path))))?;
        changed.push(Change { path: path.clone(), kind: ChangeKind::Removed });
    }
    for (file, oid, kind) in changes {
        match index.add(&index_entry(&file.path, file.kind, *oid)) {
            Ok(()) => changed.push(Change { path: file.path.clone(), kind: *kind }),
            Err(error) => {
                let name = String::from_utf8_lossy(&file.path);
                notes.push(format!("skipped `{name}`: git rejects the path: {}", error.message()));
            }
        }
    }
    changed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changed)
}

/// Writes file contents as blobs, in parallel; returns `None` for files deleted since the walk.
fn hash_all(
    control: &ControlRepository,
    worktree: &Path,
    files: &[&WorktreeFile],
    view: Option<&Repository>,
    lfs_changed: &mut Vec<Vec<u8>>,
) -> Result<Vec<Option<Oid>>, GitError> {
    let mut oids = vec![None; files.len()];
    let mut plain: Vec<(usize, &WorktreeFile)> = Vec::with_capacity(files.len());
    for (at, file) in files.iter().enumerate() {
        let Some(view) = view.filter(|_| file.kind != EntryKind::Link) else {
            plain.push((at, file));
            continue;
        };
        let path = Path::new(OsStr::from_bytes(&file.path));
        let is_lfs = attribute(view, path, "filter").as_deref() == Some(b"lfs");
        if is_lfs && !is_lfs_pointer(worktree, &file.path) {
            lfs_changed.push(file.path.clone());
        }
        if is_lfs || !is_converted(view, path) {
            plain.push((at, file));
            continue;
        }
        let oid = view
            .blob_path(&worktree.join(path))
            .map_err(GitError::library(format!("hash `{}`", path.display())))?;
        oids[at] = Some(oid);
    }
    let store = control.path();
    let results = map_chunks(&plain, |chunk| hash_batch(store, worktree, chunk))?;
    for (at, oid) in results {
        oids[at] = oid;
    }
    Ok(oids)
}

fn hash_batch(
    control: &Path,
    worktree: &Path,
    files: &[(usize, &WorktreeFile)],
) -> Result<Vec<(usize, Option<Oid>)>, GitError> {
    let repository = open_bare(control)?;
    let odb = repository.odb().map_err(GitError::library("open the object store"))?;
    let mut hashed = Vec::with_capacity(files.len());
    for (at, file) in files {
        let content = match read(worktree, file) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                hashed.push((*at, None));
                continue;
            }
            Err(error) => {
                return Err(GitError::file("read", &worktree.join(OsStr::from_bytes(&file.path)))(error));
            }
        };
        let oid = odb
            .write(ObjectType::Blob, &content)
            .map_err(GitError::library(format!("store `{}`", String::from_utf8_lossy(&file.path))))?;
        hashed.push((*at, Some(oid)));
    }
    Ok(hashed)
}

fn read(worktree: &Path, file: &WorktreeFile) -> io::Result<Vec<u8>> {
    let root = open_root(worktree).map_err(io::Error::other)?;
    let (folder, name) = split(&file.path);
    let folder = open_below(root.as_fd(), folder)?;
    if file.kind == EntryKind::Link {
        return Ok(readlinkat(&folder, OsStr::from_bytes(name), Vec::new())?.into_bytes());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(&folder, OsStr::from_bytes(name), flags, Mode::empty())?;
    let mut content = Vec::with_capacity(usize::try_from(file.signature.size).unwrap_or_default());
    std::fs::File::from(opened).read_to_end(&mut content)?;
    Ok(content)
}

fn attribute(view: &Repository, path: &Path, name: &str) -> Option<Vec<u8>> {
    view.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX).ok().flatten().map(<[u8]>::to_vec)
}

/// Returns whether git converts the content between worktree and tree.
fn is_converted(view: &Repository, path: &Path) -> bool {
    ["text", "eol", "crlf", "ident"].iter().any(|name| {
        // How libgit2 represents an unset attribute.
        attribute(view, path, name).is_some_and(|value| value != b"[internal]__FALSE__")
    })
}

/// Returns whether a file is a Git LFS pointer.
fn is_lfs_pointer(worktree: &Path, path: &[u8]) -> bool {
    let mut head = Vec::new();
    let mut open = || -> io::Result<()> {
        let root = open_root(worktree).map_err(io::Error::other)?;
        let (folder, name) = split(path);
        let folder = open_below(root.as_fd(), folder)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(openat(&folder, OsStr::from_bytes(name), flags, Mode::empty())?);
        file.take(1025).read_to_end(&mut head)?;
        Ok(())
    };
    open().is_ok() && head.len() <= 1024 && head.starts_with(b"version https://git-lfs.github.com/spec/v1")
}
