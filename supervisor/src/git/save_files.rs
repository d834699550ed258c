//! Stores the files of a worktree as blobs, through its guest.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use git2::{ObjectType, Odb, Oid};

use super::control::{ControlRepository, open_bare};
use super::error::GitError;
use super::lfs::{ContentHash, Pointer};
use super::parallel::map_chunks;
use super::rules::Rules;
use super::stat_cache::FileStat;
use super::tree::EntryKind;
use super::walk::WorktreeFile;
use crate::guest::answers::{ReadResult, Sink};
use crate::guest::{Guest, NodeStat, ReadRequest};

/// Maximum size of a file to save. Later steps read each blob as a whole, as does an import.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Maximum size of Git LFS content to compare with its pointer.
const MAX_LFS_BYTES: u64 = 16 << 30;

/// Size above which a file is stored while it is read.
const MAX_BUFFERED_BYTES: u64 = 1 << 20;

/// Files in one request.
const BATCH: usize = 128;

/// What became of a file.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// Its blob, and its stat when it was read.
    Blob(Oid, FileStat),
    /// It was deleted since the walk.
    Gone,
    /// It could not be saved, and why.
    Unsaved(String),
}

/// Stores files as blobs; returns a result for each.
///
/// `pointers` are the Git LFS pointers of tracked files. A file with the content of its pointer
/// is unchanged, so the pointer is its blob.
pub(super) fn store_files(
    control: &ControlRepository,
    guest: &Guest,
    files: &[&WorktreeFile],
    rules: &Rules,
    pointers: &HashMap<Vec<u8>, Pointer>,
) -> Result<Vec<Stored>, GitError> {
    let mut stored: Vec<Option<Stored>> = vec![None; files.len()];
    let mut plain = Vec::with_capacity(files.len());
    for (at, file) in files.iter().enumerate() {
        let is_file = file.kind != EntryKind::Link;
        if is_file && let Some(pointer) = pointers.get(&file.path) {
            stored[at] = content_of_pointer(guest, file, pointer)?;
        }
        if stored[at].is_none() {
            let converts =
                is_file && rules.has_attributes() && !rules.is_lfs(&file.path) && rules.converts(&file.path);
            plain.push((at, *file, converts));
        }
    }
    let store = control.path();
    for (at, result) in map_chunks(&plain, |chunk| store_chunk(store, guest, chunk))? {
        stored[at] = Some(match result {
            Content::Stored(stored) => stored,
            Content::Convert(content, stat) => match rules.store_converted(&files[at].path, &content) {
                Ok(oid) => Stored::Blob(oid, stat),
                Err(error) if is_disk_full(&error) => return Err(error),
                Err(_) => Stored::Unsaved("cannot be converted as `.gitattributes` says".to_owned()),
            },
        });
    }
    Ok(stored.into_iter().map(|stored| stored.unwrap_or(Stored::Gone)).collect())
}

fn is_disk_full(error: &GitError) -> bool {
    error.reason() == orchestrator_contract::Reason::DiskFull
}

/// Returns the blob of the pointer if the file has its content.
fn content_of_pointer(
    guest: &Guest,
    file: &WorktreeFile,
    pointer: &Pointer,
) -> Result<Option<Stored>, GitError> {
    if file.stat.size != pointer.size || pointer.size > MAX_LFS_BYTES {
        return Ok(None);
    }
    let mut reads = guest.read(&[ReadRequest { path: &file.path, link: false, limit: pointer.size }])?;
    let mut hash = ContentHash::default();
    let read = reads.next(pointer.size, &mut hash)?;
    reads.finish()?;
    Ok(match read {
        ReadResult::Read(stat) if hash.finish() == pointer.sha256 => {
            Some(Stored::Blob(pointer.blob, FileStat::of(&stat)))
        }
        ReadResult::Read(_)
        | ReadResult::Failed(_)
        | ReadResult::NotRegular
        | ReadResult::TooLarge
        | ReadResult::Changed => None,
    })
}

/// Result of reading a file on one of the threads.
enum Content {
    Stored(Stored),
    /// Content that git converts.
    Convert(Vec<u8>, FileStat),
}

fn store_chunk(
    control: &Path,
    guest: &Guest,
    files: &[(usize, &WorktreeFile, bool)],
) -> Result<Vec<(usize, Content)>, GitError> {
    let repository = open_bare(control)?;
    let odb = repository.odb().map_err(GitError::library("open the object store"))?;
    let mut results = Vec::with_capacity(files.len());
    for batch in files.chunks(BATCH) {
        let requests: Vec<_> = batch
            .iter()
            .map(|(_, file, _)| ReadRequest {
                path: &file.path,
                link: file.kind == EntryKind::Link,
                limit: MAX_FILE_BYTES,
            })
            .collect();
        let mut reads = guest.read(&requests)?;
        for (at, file, converts) in batch {
            let mut blob = Blob::new(&odb, *converts);
            let read = reads.next(MAX_FILE_BYTES, &mut blob)?;
            let unsaved = |why: String| Content::Stored(Stored::Unsaved(why));
            let result = match read {
                ReadResult::Read(stat) => blob.finish(FileStat::of(&stat), &file.path)?,
                ReadResult::Failed(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Content::Stored(Stored::Gone)
                }
                ReadResult::Failed(error) => unsaved(format!("cannot be read: {error}")),
                ReadResult::NotRegular => unsaved("is no file any more".to_owned()),
                ReadResult::TooLarge => unsaved(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20)),
                ReadResult::Changed => unsaved("became shorter while it was read".to_owned()),
            };
            results.push((*at, result));
        }
        reads.finish()?;
    }
    Ok(results)
}

/// Blob that is being read: in memory, or if it is large, into the object store.
struct Blob<'o> {
    odb: &'o Odb<'o>,
    /// Whether git may convert the content, so that it is needed as a whole.
    converts: bool,
    content: Vec<u8>,
    writer: Option<git2::OdbWriter<'o>>,
    failed: Option<GitError>,
}

impl<'o> Blob<'o> {
    fn new(odb: &'o Odb<'o>, converts: bool) -> Self {
        Self { odb, converts, content: Vec::new(), writer: None, failed: None }
    }

    fn finish(self, stat: FileStat, path: &[u8]) -> Result<Content, GitError> {
        let fail = || GitError::library(format!("store `{}`", super::names::shown(path)));
        if let Some(error) = self.failed {
            return Err(error);
        }
        let oid = match self.writer {
            Some(mut writer) => writer.finalize().map_err(fail())?,
            None => {
                // The filters of git change nothing else on the way into a tree.
                let changes = || self.content.contains(&b'\r') || contains(&self.content, b"$Id");
                if self.converts && changes() {
                    return Ok(Content::Convert(self.content, stat));
                }
                self.odb.write(ObjectType::Blob, &self.content).map_err(fail())?
            }
        };
        Ok(Content::Stored(Stored::Blob(oid, stat)))
    }
}

fn contains(content: &[u8], word: &[u8]) -> bool {
    content.windows(word.len()).any(|window| window == word)
}

impl Sink for Blob<'_> {
    fn begin(&mut self, stat: &NodeStat) {
        if stat.size <= MAX_BUFFERED_BYTES || self.converts {
            self.content.begin(stat);
            return;
        }
        let size = usize::try_from(stat.size).unwrap_or(usize::MAX);
        match self.odb.writer(size, ObjectType::Blob) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => self.failed = Some(GitError::library("store a large file")(error)),
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        let Some(writer) = &mut self.writer else { return self.content.extend_from_slice(bytes) };
        if self.failed.is_none()
            && let Err(error) = writer.write_all(bytes)
        {
            self.failed = Some(GitError::file("store", Path::new("a large file"))(error));
        }
    }
}
