//! Index entries, and the index file of the agent's git directory.

use std::path::Path;

use git2::{Index, IndexEntry, IndexTime, Oid};
use rustix::fs::Stat;

use super::error::GitError;
use super::tree::{Entry, EntryKind};

/// Returns an index entry without file stats.
pub(super) fn index_entry(path: &[u8], kind: EntryKind, oid: Oid) -> IndexEntry {
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

/// Entries of an index file.
pub(super) struct GitIndex {
    entries: Vec<IndexEntry>,
}

impl GitIndex {
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries) }
    }

    /// Adds an entry with its file stats. The index format stores the low 32 bits of each number.
    pub(super) fn add(&mut self, entry: &Entry, stat: &Stat) {
        let mut new = index_entry(&entry.name, entry.kind, entry.oid);
        new.ctime = IndexTime::new(stat.st_ctime as i32, stat.st_ctime_nsec as u32);
        new.mtime = IndexTime::new(stat.st_mtime as i32, stat.st_mtime_nsec as u32);
        new.dev = stat.st_dev as u32;
        new.ino = stat.st_ino as u32;
        new.uid = stat.st_uid;
        new.gid = stat.st_gid;
        new.file_size = if entry.kind == EntryKind::Submodule { 0 } else { stat.st_size as u32 };
        self.entries.push(new);
    }

    pub(super) fn write(self, file: &Path) -> Result<(), GitError> {
        let fail = || GitError::library("write the index");
        let mut index = Index::open(file).map_err(fail())?;
        for entry in &self.entries {
            index.add(entry).map_err(fail())?;
        }
        index.write().map_err(fail())
    }
}
