//! Caches file stats and blob ids, so that unchanged files are not read again.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use git2::Oid;

use super::error::GitError;
use super::tree::EntryKind;
use crate::guest::NodeStat;

/// Changes within this time of a scan may not change a timestamp.
///
/// File systems store the time of the last clock tick, at most 10 ms ago.
const MTIME_GRANULARITY_NS: i128 = 20_000_000;

const MAGIC: &[u8] = b"orchestrator stat cache 1\n";
const RECORD: usize = 20 + 1 + 8 + 16 + 16 + 8 + 4;

/// File stats that detect a change.
///
/// No user can set the change time, so a change with a forged modification time is detected too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileStat {
    pub(super) size: u64,
    pub(super) modified: i128,
    pub(super) changed: i128,
    pub(super) inode: u64,
}

impl FileStat {
    pub(super) fn of(stat: &NodeStat) -> Self {
        Self {
            size: stat.size,
            modified: nanoseconds(stat.modified.0, stat.modified.1.into()),
            changed: nanoseconds(stat.changed.0, stat.changed.1.into()),
            inode: stat.inode,
        }
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i128) -> i128 {
    i128::from(seconds) * 1_000_000_000 + nanoseconds
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct CacheEntry {
    oid: Oid,
    kind: EntryKind,
    signature: FileStat,
}

/// Blob ids of the files in a directory, with the stats that prove them.
#[derive(Clone, Debug, Default)]
pub struct StatCache {
    entries: HashMap<Vec<u8>, CacheEntry>,
    /// Time of the scan in nanoseconds, by the clock of the file system.
    taken: i128,
}

impl StatCache {
    /// Reads a cache file. A missing or damaged one is an empty cache, which only costs time.
    #[must_use]
    pub fn load(file: &Path) -> Self {
        fs::read(file).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
    }

    /// Writes the cache file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, file: &Path) -> Result<(), GitError> {
        let mut bytes = Vec::with_capacity(self.entries.len() * 128);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.taken.to_le_bytes());
        for (path, CacheEntry { oid, kind, signature }) in &self.entries {
            bytes.extend_from_slice(oid.as_bytes());
            bytes.push(match kind {
                EntryKind::File => 0,
                EntryKind::Executable => 1,
                EntryKind::Link => 2,
                EntryKind::Folder | EntryKind::Submodule => continue,
            });
            bytes.extend_from_slice(&signature.size.to_le_bytes());
            bytes.extend_from_slice(&signature.modified.to_le_bytes());
            bytes.extend_from_slice(&signature.changed.to_le_bytes());
            bytes.extend_from_slice(&signature.inode.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(path.len()).unwrap_or_default().to_le_bytes());
            bytes.extend_from_slice(path);
        }
        let new = file.with_extension("new");
        let write = || -> io::Result<()> {
            fs::File::create(&new)?.write_all(&bytes)?;
            fs::rename(&new, file)
        };
        write().map_err(GitError::file("write", file))
    }

    /// Returns an empty cache for a scan that starts now, by the clock of `folder`'s file system.
    pub(super) fn start_scan(folder: &Path, size: usize) -> Result<Self, GitError> {
        let probe = tempfile::tempfile_in(folder).map_err(GitError::file("write in", folder))?;
        let stat = rustix::fs::fstat(&probe)
            .map_err(|error| GitError::file("stat", folder)(io::Error::from(error)))?;
        Ok(Self {
            entries: HashMap::with_capacity(size),
            taken: nanoseconds(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
        })
    }

    /// Returns the blob id of a file if the file cannot have changed since the scan.
    pub(super) fn content(&self, path: &[u8], kind: EntryKind, signature: &FileStat) -> Option<Oid> {
        let entry = self.entries.get(path)?;
        let settled = entry.signature.changed + MTIME_GRANULARITY_NS < self.taken;
        (settled && entry.kind == kind && entry.signature == *signature).then_some(entry.oid)
    }

    /// Records the blob id of a file.
    pub(super) fn record(&mut self, path: Vec<u8>, kind: EntryKind, signature: FileStat, oid: Oid) {
        self.entries.insert(path, CacheEntry { oid, kind, signature });
    }

    /// Marks all recorded files as scanned now. Only valid while no other process writes them.
    pub(super) fn finish_scan(&mut self, folder: &Path) -> Result<(), GitError> {
        self.taken = Self::start_scan(folder, 0)?.taken;
        Ok(())
    }

    /// Returns the number of cached files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the cache is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn parse(bytes: &[u8]) -> Option<StatCache> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (taken, mut rest) = rest.split_first_chunk::<16>()?;
    let mut entries = HashMap::new();
    while !rest.is_empty() {
        let (record, tail) = rest.split_first_chunk::<RECORD>()?;
        let kind = match record[20] {
            0 => EntryKind::File,
            1 => EntryKind::Executable,
            _ => EntryKind::Link,
        };
        let signature = FileStat {
            size: u64::from_le_bytes(record[21..29].try_into().ok()?),
            modified: i128::from_le_bytes(record[29..45].try_into().ok()?),
            changed: i128::from_le_bytes(record[45..61].try_into().ok()?),
            inode: u64::from_le_bytes(record[61..69].try_into().ok()?),
        };
        let length = usize::try_from(u32::from_le_bytes(record[69..73].try_into().ok()?)).ok()?;
        let path = tail.get(..length)?.to_vec();
        entries.insert(path, CacheEntry { oid: Oid::from_bytes(&record[..20]).ok()?, kind, signature });
        rest = &tail[length..];
    }
    Some(StatCache { entries, taken: i128::from_le_bytes(*taken) })
}
