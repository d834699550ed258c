//! Index entries, and the index file of the agent's git directory.

use std::path::Path;

use git2::{Index, IndexEntry, IndexTime, Oid};

use super::error::GitError;
use super::tree::{Entry, EntryKind};
use crate::guest::NodeStat;

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
    pub(super) fn add(&mut self, entry: &Entry, stat: &NodeStat) {
        let mut new = index_entry(&entry.name, entry.kind, entry.oid);
        new.ctime = IndexTime::new(stat.changed.0 as i32, stat.changed.1);
        new.mtime = IndexTime::new(stat.modified.0 as i32, stat.modified.1);
        new.dev = stat.device as u32;
        new.ino = stat.inode as u32;
        new.uid = stat.uid;
        new.gid = stat.gid;
        new.file_size = if entry.kind == EntryKind::Submodule { 0 } else { stat.size as u32 };
        self.entries.push(new);
    }

    /// Writes the index to a file in `scratch`, a folder of the supervisor; returns its content.
    pub(super) fn content(self, scratch: &Path) -> Result<Vec<u8>, GitError> {
        let file = scratch.join("index");
        self.write(&file)?;
        let content = std::fs::read(&file).map_err(GitError::file("read", &file))?;
        std::fs::remove_file(&file).map_err(GitError::file("remove", &file))?;
        Ok(content)
    }

    fn write(self, file: &Path) -> Result<(), GitError> {
        let fail = || GitError::library("write the index");
        let mut index = Index::open(file).map_err(fail())?;
        for entry in &self.entries {
            index.add(entry).map_err(fail())?;
        }
        index.write().map_err(fail())
    }
}
