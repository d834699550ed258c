//! Writes the files of a tree: through a guest into a worktree, or into a folder of the supervisor.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::control::{ControlRepository, open_bare};
use super::error::GitError;
use super::parallel::map_chunks;
use super::tree::{Entry, EntryKind};
use crate::guest::answers::NewEntry;
use crate::guest::beneath::split;
use crate::guest::tree::{LastParent, Tree};
use crate::guest::{Guest, MAX_BATCH, NodeStat, WriteKind};

/// Files in one request.
const BATCH_FILES: usize = 128;

/// Bytes in one request, except for a single larger file.
const BATCH_BYTES: usize = 4 << 20;

/// Contents of files that git converts, by path.
pub(super) type Converted = HashMap<Vec<u8>, Vec<u8>>;

/// Returns the folders of all entries, parents first.
fn folders_of<'e>(entries: &[&'e Entry]) -> BTreeSet<&'e [u8]> {
    let mut folders = BTreeSet::new();
    for entry in entries {
        let folder = if entry.kind == EntryKind::Submodule { &entry.name[..] } else { split(&entry.name).0 };
        for (at, _) in folder.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            folders.insert(&folder[..at]);
        }
        if !folder.is_empty() {
            folders.insert(folder);
        }
    }
    folders
}

/// Creates the parent directories of all entries in a worktree, replacing files in the way.
pub(super) fn make_folders(guest: &Guest, entries: &[&Entry]) -> Result<(), GitError> {
    let folders: Vec<&[u8]> = folders_of(entries).into_iter().collect();
    for batch in folders.chunks(MAX_BATCH) {
        guest.make_folders(batch)?.map_err(GitError::file("create folders in", guest.root()))?;
    }
    Ok(())
}

fn write_kind(kind: EntryKind) -> Option<WriteKind> {
    match kind {
        EntryKind::File => Some(WriteKind::File),
        EntryKind::Executable => Some(WriteKind::Executable),
        EntryKind::Link => Some(WriteKind::Link),
        EntryKind::Folder | EntryKind::Submodule => None,
    }
}

fn failed(path: &[u8]) -> impl FnOnce(io::Error) -> GitError {
    GitError::file("write", Path::new(OsStr::from_bytes(path)))
}

/// Writes entries into a worktree in parallel; returns the stat of each, or `None` for submodules.
pub(super) fn write_all(
    control: &ControlRepository,
    guest: &Guest,
    entries: &[&Entry],
    converted: &Converted,
) -> Result<Vec<Option<NodeStat>>, GitError> {
    let store = control.path();
    map_chunks(entries, |chunk| write_chunk(store, guest, chunk, converted))
}

fn write_chunk(
    control: &Path,
    guest: &Guest,
    entries: &[&Entry],
    converted: &Converted,
) -> Result<Vec<Option<NodeStat>>, GitError> {
    let repository = open_bare(control)?;
    let odb = repository.odb().map_err(GitError::library("open the object store"))?;
    let mut stats = vec![None; entries.len()];
    let mut batch: Vec<(usize, WriteKind, Cow<'_, [u8]>)> = Vec::new();
    let mut bytes = 0;
    let mut send = |batch: &mut Vec<(usize, WriteKind, Cow<'_, [u8]>)>| -> Result<(), GitError> {
        let new: Vec<NewEntry<'_>> = batch
            .iter()
            .map(|(at, kind, content)| NewEntry { path: &entries[*at].name, kind: *kind, content })
            .collect();
        for ((at, _, _), written) in batch.iter().zip(guest.write(&new)?) {
            stats[*at] = Some(written.map_err(failed(&entries[*at].name))?);
        }
        batch.clear();
        Ok(())
    };
    for (at, entry) in entries.iter().enumerate() {
        let Some(kind) = write_kind(entry.kind) else { continue };
        let content = match converted.get(&entry.name) {
            Some(content) => Cow::Borrowed(content.as_slice()),
            None => {
                let object = odb.read(entry.oid);
                let object = object.map_err(GitError::library(format!("read blob {}", entry.oid)))?;
                Cow::Owned(object.data().to_vec())
            }
        };
        bytes += content.len();
        batch.push((at, kind, content));
        if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
            send(&mut batch)?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        send(&mut batch)?;
    }
    Ok(stats)
}

/// Writes entries into an empty folder of the supervisor.
pub(super) fn export_all(
    control: &ControlRepository,
    folder: &Path,
    entries: &[&Entry],
) -> Result<(), GitError> {
    let tree = Tree::open(folder).map_err(GitError::file("open", folder))?;
    tree.make_folders(folders_of(entries).into_iter()).map_err(GitError::file("write in", folder))?;
    let store = control.path();
    let write = |chunk: &[&Entry]| -> Result<Vec<()>, GitError> {
        let repository = open_bare(store)?;
        let odb = repository.odb().map_err(GitError::library("open the object store"))?;
        let tree = Tree::open(folder).map_err(GitError::file("open", folder))?;
        let mut parents = LastParent::default();
        for entry in chunk {
            let Some(kind) = write_kind(entry.kind) else { continue };
            let object =
                odb.read(entry.oid).map_err(GitError::library(format!("read blob {}", entry.oid)))?;
            let content = object.data();
            let mut write = |file: &mut std::fs::File| file.write_all(content);
            tree.write(&mut parents, &entry.name, kind, &mut write, content).map_err(failed(&entry.name))?;
        }
        Ok(Vec::new())
    };
    map_chunks(entries, write).map(drop)
}
