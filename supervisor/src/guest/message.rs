//! Requests to a guest and its answers.

use std::io;

use rustix::fs::{FileType, Stat};

use super::wire::{Decoder, Encode};

/// Hidden subcommand that runs the supervisor as a guest.
pub const SUBCOMMAND: &str = "guest";

/// Sources that this program was built from; both ends of a connection must have the same.
pub const BUILD_ID: &str = env!("ORCHESTRATOR_BUILD_ID");

/// Paths in one request, at most.
pub(crate) const MAX_BATCH: usize = 256;

/// Bytes of a `.gitignore` or `.gitattributes` that are read with a listing, at most.
pub(crate) const MAX_RULE_BYTES: u64 = 256 << 10;

/// Kinds of frames.
pub(super) mod kind {
    // Control socket, both directions.
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const CREDIT: u8 = 2;
    // Control socket, to the guest.
    pub(crate) const LIST: u8 = 16;
    pub(crate) const READ: u8 = 17;
    pub(crate) const WRITE: u8 = 18;
    pub(crate) const STAT: u8 = 19;
    pub(crate) const MAKE_FOLDERS: u8 = 20;
    pub(crate) const REMOVE: u8 = 21;
    pub(crate) const CREATE_FOLDERS: u8 = 22;
    pub(crate) const CANCEL: u8 = 23;
    pub(crate) const MOVE: u8 = 24;
    // Control socket, from the guest.
    pub(crate) const DONE: u8 = 32;
    pub(crate) const FAILED: u8 = 33;
    // Bulk socket, both directions. The end is a frame of its own, so that no data means nothing special.
    pub(crate) const DATA: u8 = 64;
    pub(crate) const END: u8 = 65;
    pub(crate) const ABORTED: u8 = 66;
}

/// What a worktree's entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeKind {
    File,
    Link,
    Folder,
    Pipe,
    Socket,
    Device,
}

/// Stat of an entry, as the guest reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NodeStat {
    pub mode: u32,
    pub size: u64,
    /// Seconds and nanoseconds of the last modification.
    pub modified: (i64, u32),
    /// Seconds and nanoseconds of the last change of the inode.
    pub changed: (i64, u32),
    pub inode: u64,
    pub device: u64,
    pub uid: u32,
    pub gid: u32,
}

impl NodeStat {
    pub(super) fn of(stat: &Stat) -> Self {
        let nanoseconds = |value: u64| u32::try_from(value).unwrap_or_default();
        Self {
            mode: stat.st_mode,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
            inode: stat.st_ino,
            device: stat.st_dev,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }

    /// Returns what the entry is.
    #[must_use]
    pub fn kind(&self) -> NodeKind {
        match FileType::from_raw_mode(self.mode) {
            FileType::RegularFile => NodeKind::File,
            FileType::Symlink => NodeKind::Link,
            FileType::Directory => NodeKind::Folder,
            FileType::Fifo => NodeKind::Pipe,
            FileType::Socket => NodeKind::Socket,
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => NodeKind::Device,
        }
    }

    pub(super) fn encode(&self, out: &mut impl Encode) {
        out.put_u32(self.mode);
        out.put_u64(self.size);
        for (seconds, nanoseconds) in [self.modified, self.changed] {
            out.put(&seconds.to_le_bytes());
            out.put_u32(nanoseconds);
        }
        out.put_u64(self.inode);
        out.put_u64(self.device);
        out.put_u32(self.uid);
        out.put_u32(self.gid);
    }

    /// Size of an encoded stat in bytes.
    pub(super) const ENCODED: usize = 4 + 8 + 2 * (8 + 4) + 8 + 8 + 4 + 4;

    pub(super) fn decode(bytes: &mut Decoder<'_>) -> Option<Self> {
        let mode = bytes.u32()?;
        let size = bytes.u64()?;
        let time = |bytes: &mut Decoder<'_>| -> Option<(i64, u32)> {
            let seconds = i64::from_le_bytes(bytes.take(8)?.try_into().ok()?);
            let nanoseconds = bytes.u32().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
            Some((seconds, nanoseconds))
        };
        let (modified, changed) = (time(bytes)?, time(bytes)?);
        Some(Self {
            mode,
            size,
            modified,
            changed,
            inode: bytes.u64()?,
            device: bytes.u64()?,
            uid: bytes.u32()?,
            gid: bytes.u32()?,
        })
    }
}

/// File to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// Path relative to the root.
    pub path: &'a [u8],
    /// Whether to read the target of a symbolic link instead of a regular file.
    pub link: bool,
    /// Maximum size in bytes; a larger file is not read.
    pub limit: u64,
}

/// What may be moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Movable {
    /// Anything, also a link: the entry itself is moved.
    Any,
    /// Only a folder.
    Folder,
}

/// How to write an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteKind {
    File,
    Executable,
    /// Symbolic link; the content is its target.
    Link,
}

/// Status of a single result.
pub(super) mod status {
    pub(crate) const OK: u8 = 0;
    pub(crate) const ERROR: u8 = 1;
    pub(crate) const NOT_REGULAR: u8 = 2;
    pub(crate) const TOO_LARGE: u8 = 3;
    /// Entry of a listing.
    pub(crate) const ENTRY: u8 = 4;
    /// Content of a rule file in a listing.
    pub(crate) const RULES: u8 = 5;
}

/// Returns the error number of an I/O error.
pub(super) fn number(error: &io::Error) -> u32 {
    const EIO: i32 = 5;
    u32::try_from(error.raw_os_error().unwrap_or(EIO)).unwrap_or_default()
}

/// Returns the I/O error of a number that a guest sent.
pub(super) fn error_of(number: u32) -> io::Error {
    match i32::try_from(number) {
        Ok(number @ 1..=4095) => io::Error::from_raw_os_error(number),
        Ok(_) | Err(_) => io::Error::other("an unknown error"),
    }
}

/// Encodes paths of a request.
pub(super) fn encode_paths(paths: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(u32::try_from(paths.len()).unwrap_or(u32::MAX));
    for path in paths {
        out.put_bytes(path);
    }
    out
}

/// Decodes the paths of a request.
pub(super) fn decode_paths(bytes: &mut Decoder<'_>) -> Option<Vec<Vec<u8>>> {
    let count = usize::try_from(bytes.u32()?).ok()?;
    (0..count).map(|_| bytes.bytes().map(<[u8]>::to_vec)).collect()
}
