//! What a file was when its content was last known, so that unchanged files are
//! not read again.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use git2::Oid;
use rustix::fs::Stat;

use super::GitError;
use super::control::EntryKind;

/// Changes closer than this to the moment of looking may not show in the
/// times: file systems keep the time of the last clock tick.
const MTIME_GRANULARITY_NS: i128 = 20_000_000;

const MAGIC: &[u8] = b"orchestrator stat cache 1\n";
const RECORD: usize = 20 + 1 + 8 + 16 + 16 + 8 + 4;

/// What the system says of a file. Its change time cannot be set by anybody, so
/// that a change that hides behind an old modification time shows, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileStat {
    pub(super) size: u64,
    pub(super) modified: i128,
    pub(super) changed: i128,
    pub(super) inode: u64,
}

impl FileStat {
    pub(super) fn of(stat: &Stat) -> Self {
        let time = |seconds: i64, nanoseconds: i128| i128::from(seconds) * 1_000_000_000 + nanoseconds;
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: time(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
            changed: time(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
            inode: stat.st_ino,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct CacheEntry {
    oid: Oid,
    kind: EntryKind,
    signature: FileStat,
}

/// The contents of a folder's files as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct StatCache {
    known: HashMap<Vec<u8>, CacheEntry>,
    /// When the files were looked at, by the file system's clock.
    taken: i128,
}

impl StatCache {
    /// Reads a cache; a missing or damaged one is empty, and costs only time.
    #[must_use]
    pub fn load(file: &Path) -> Self {
        fs::read(file).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
    }

    /// Writes the cache.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<(), GitError> {
        let mut bytes = Vec::with_capacity(self.known.len() * 128);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.taken.to_le_bytes());
        for (path, CacheEntry { oid, kind, signature }) in &self.known {
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

    /// An empty cache whose files are all looked at after now, by the clock of
    /// the file system that `folder` is on.
    pub(super) fn start_scan(folder: &Path, size: usize) -> Result<Self, GitError> {
        let probe = tempfile::tempfile_in(folder).map_err(GitError::file("write in", folder))?;
        let stat = rustix::fs::fstat(&probe)
            .map_err(|error| GitError::file("look at", folder)(io::Error::from(error)))?;
        Ok(Self { known: HashMap::with_capacity(size), taken: FileStat::of(&stat).changed })
    }

    /// The content of a file if it cannot have changed since it was looked at.
    pub(super) fn content(&self, path: &[u8], kind: EntryKind, signature: &FileStat) -> Option<Oid> {
        let known = self.known.get(path)?;
        let quiet = known.signature.changed + MTIME_GRANULARITY_NS < self.taken;
        (quiet && known.kind == kind && known.signature == *signature).then_some(known.oid)
    }

    pub(super) fn remember(&mut self, path: Vec<u8>, kind: EntryKind, signature: FileStat, oid: Oid) {
        self.known.insert(path, CacheEntry { oid, kind, signature });
    }

    /// The files were looked at when nothing else was running: up to now.
    pub(super) fn finish_scan(&mut self, folder: &Path) -> Result<(), GitError> {
        self.taken = Self::start_scan(folder, 0)?.taken;
        Ok(())
    }

    /// How many files are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn parse(bytes: &[u8]) -> Option<StatCache> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (taken, mut rest) = rest.split_first_chunk::<16>()?;
    let mut known = HashMap::new();
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
        known.insert(path, CacheEntry { oid: Oid::from_bytes(&record[..20]).ok()?, kind, signature });
        rest = &tail[length..];
    }
    Some(StatCache { known, taken: i128::from_le_bytes(*taken) })
}
