//! The agent's folder, taken as a tree.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{AttrCheckFlags, Index, IndexEntry, IndexTime, ObjectType, Oid, Repository};
use rustix::fs::{Mode, OFlags, openat, readlinkat};

use super::control::{EntryKind, open_bare};
use super::walk::{Tracked, WalkResult, WorktreeFile, open_below, open_root, open_view, split, walk};
use super::{ControlRepository, GitError, StatCache};

/// A folder's content as an object.
#[derive(Debug)]
pub struct Snapshot {
    /// The tree.
    pub tree: Oid,
    /// What differs from the base's tree, by path.
    pub changed: Vec<Change>,
    /// Changed files that belong to Git LFS and are no pointers: they cannot be committed as they are.
    pub lfs_changed: Vec<Vec<u8>>,
    /// Folders with a git directory of their own; their files are in the tree.
    pub nested_repositories: Vec<Vec<u8>>,
    /// What could not be taken, in words.
    pub notes: Vec<String>,
    /// What is known of the files now.
    pub cache: StatCache,
}

/// A path that differs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The path.
    pub path: Vec<u8>,
    /// In which way.
    pub kind: ChangeKind,
}

/// How a path differs from the base.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content or mode is another.
    Modified,
    /// It is gone.
    Removed,
}

/// Takes the folder as it is. What `base_tree` or `also_tracked` have is tracked
/// and never ignored; the agent's git directory is not looked at.
///
/// # Errors
/// The folder cannot be read or an object cannot be written.
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
    let WalkResult { files, mut nested, submodules, unsupported: special, ignored: _ } =
        walk(worktree, &tracked, &view)?;
    let mut notes: Vec<String> = special
        .iter()
        .map(|path| {
            format!("`{}` is no file, link or folder and was left out", String::from_utf8_lossy(path))
        })
        .collect();
    nested.sort();
    nested.dedup();

    let mut index = Index::new().map_err(GitError::library("make an index"))?;
    let tree = control.repository.find_tree(base_tree).map_err(GitError::library("read the base's tree"))?;
    index.read_tree(&tree).map_err(GitError::library("read the base's tree"))?;
    let converts = files.iter().any(|found| split(&found.path).1 == b".gitattributes");
    if converts {
        view.set_index(&mut index).map_err(GitError::library("read the base's tree"))?;
    }
    let unknown: Vec<&WorktreeFile> = files
        .iter()
        .filter(|found| cache.content(&found.path, found.kind, &found.signature).is_none())
        .collect();
    let mut lfs_changed = Vec::new();
    let hashed = hash_all(control, worktree, &unknown, converts.then_some(&view), &mut lfs_changed)?;

    let mut changed = Vec::new();
    let mut hashed = hashed.into_iter().peekable();
    let mut present: HashSet<&[u8]> = submodules.iter().map(Vec::as_slice).collect();
    let mut changes: Vec<(&WorktreeFile, Oid)> = Vec::new();
    for found in &files {
        let oid = match cache.content(&found.path, found.kind, &found.signature) {
            Some(oid) => oid,
            None => match hashed.next() {
                Some(Some(oid)) => oid,
                Some(None) | None => continue, // Gone meanwhile: as if it had not been found.
            },
        };
        present.insert(&found.path);
        fresh.remember(found.path.clone(), found.kind, found.signature, oid);
        let kind = match base.entries.get(&found.path) {
            None => ChangeKind::Added,
            Some(known) if *known == (found.kind, oid) => continue,
            Some(_) => ChangeKind::Modified,
        };
        changed.push(Change { path: found.path.clone(), kind });
        changes.push((found, oid));
    }
    for path in base.entries.keys().filter(|path| !present.contains(path.as_slice())) {
        index
            .remove(Path::new(OsStr::from_bytes(path)), 0)
            .map_err(GitError::library(format!("remove `{}`", String::from_utf8_lossy(path))))?;
        changed.push(Change { path: path.clone(), kind: ChangeKind::Removed });
    }
    for (found, oid) in changes {
        if let Err(error) = index.add(&entry(&found.path, found.kind, oid)) {
            let name = String::from_utf8_lossy(&found.path);
            notes.push(format!("`{name}` cannot be in a git tree and was left out: {}", error.message()));
            changed.retain(|change| change.path != found.path);
        }
    }
    let tree =
        index.write_tree_to(&control.repository).map_err(GitError::library("write the snapshot's tree"))?;
    lfs_changed.retain(|path| changed.iter().any(|change| change.path == *path));
    changed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Snapshot { tree, changed, lfs_changed, nested_repositories: nested, notes, cache: fresh })
}

pub(super) fn entry(path: &[u8], kind: EntryKind, oid: Oid) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode: kind.mode(),
        uid: 0,
        gid: 0,
        file_size: 0,
        id: oid,
        flags: 0,
        flags_extended: 0,
        path: path.to_vec(),
    }
}

/// Writes the contents as blobs, on all processors; none for a file that is gone.
fn hash_all(
    control: &ControlRepository,
    worktree: &Path,
    files: &[&WorktreeFile],
    view: Option<&Repository>,
    lfs_changed: &mut Vec<Vec<u8>>,
) -> Result<Vec<Option<Oid>>, GitError> {
    let mut oids = vec![None; files.len()];
    let mut plain: Vec<(usize, &WorktreeFile)> = Vec::with_capacity(files.len());
    for (at, found) in files.iter().enumerate() {
        let Some(view) = view.filter(|_| found.kind != EntryKind::Link) else {
            plain.push((at, found));
            continue;
        };
        let path = Path::new(OsStr::from_bytes(&found.path));
        let is_lfs = attribute(view, path, "filter").as_deref() == Some(b"lfs");
        if is_lfs && !is_lfs_pointer(worktree, &found.path) {
            lfs_changed.push(found.path.clone());
        }
        if is_lfs || !is_converted(view, path) {
            plain.push((at, found));
            continue;
        }
        let oid = view
            .blob_path(&worktree.join(path))
            .map_err(GitError::library(format!("take `{}`", path.display())))?;
        oids[at] = Some(oid);
    }
    let threads = super::checkout::threads(plain.len());
    let store = control.path();
    let results = std::thread::scope(|scope| {
        let chunks = plain.chunks(plain.len().div_ceil(threads).max(1));
        let running: Vec<_> =
            chunks.map(|chunk| scope.spawn(move || hash_batch(store, worktree, chunk))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    for (at, oid) in results.into_iter().flatten() {
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
    for (at, found) in files {
        let content = match read(worktree, found) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                hashed.push((*at, None));
                continue;
            }
            Err(error) => {
                return Err(GitError::file("read", &worktree.join(OsStr::from_bytes(&found.path)))(error));
            }
        };
        let oid = odb
            .write(ObjectType::Blob, &content)
            .map_err(GitError::library(format!("store `{}`", String::from_utf8_lossy(&found.path))))?;
        hashed.push((*at, Some(oid)));
    }
    Ok(hashed)
}

fn read(worktree: &Path, found: &WorktreeFile) -> io::Result<Vec<u8>> {
    let root = open_root(worktree).map_err(io::Error::other)?;
    let (folder, name) = split(&found.path);
    let folder = open_below(root.as_fd(), folder)?;
    if found.kind == EntryKind::Link {
        return Ok(readlinkat(&folder, OsStr::from_bytes(name), Vec::new())?.into_bytes());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&folder, OsStr::from_bytes(name), flags, Mode::empty())?;
    let mut content = Vec::with_capacity(usize::try_from(found.signature.size).unwrap_or_default());
    std::fs::File::from(file).read_to_end(&mut content)?;
    Ok(content)
}

fn attribute(view: &Repository, path: &Path, name: &str) -> Option<Vec<u8>> {
    view.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX).ok().flatten().map(<[u8]>::to_vec)
}

/// Whether git changes the content between folder and tree.
pub(super) fn is_converted(view: &Repository, path: &Path) -> bool {
    ["text", "eol", "crlf", "ident"].iter().any(|name| {
        // libgit2 shows "unset" as this word.
        attribute(view, path, name).is_some_and(|value| value != b"[internal]__FALSE__")
    })
}

/// Whether a file is what Git LFS puts in place of a content.
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
