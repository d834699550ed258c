//! Copies the objects of the agent's git directory into a quarantine, through the guest.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use git2::Repository;

use super::error::GitError;
use super::names::shown;
use crate::guest::answers::{ReadResult, Sink};
use crate::guest::{Guest, MAX_BATCH, NodeKind, NodeStat, ReadRequest};

/// Maximum size of all copied objects and packs.
const MAX_TOTAL_BYTES: u64 = 8 << 30;
/// Maximum loose objects of one of the 256 folders.
const MAX_LOOSE: usize = 20_000;
/// Maximum packs; git keeps fewer than 50.
const MAX_PACKS: usize = 1000;
/// Maximum objects of a pack.
const MAX_PACK_OBJECTS: usize = 5_000_000;
/// Maximum time to index all packs.
const MAX_INDEX_TIME: Duration = Duration::from_secs(180);

fn is_hexadecimal(name: &[u8], length: usize) -> bool {
    name.len() == length && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Copies loose objects and packs into the quarantine; notes what was skipped.
///
/// # Errors
/// Returns an error if the guest is broken or the quarantine cannot be written.
pub(super) fn copy_objects(
    guest: &Guest,
    quarantine: &Repository,
    notes: &mut Vec<String>,
) -> Result<(), GitError> {
    let objects = quarantine.path().join("objects");
    let mut left = MAX_TOTAL_BYTES;
    let fans: Vec<Vec<u8>> = guest
        .list_one(b".git/objects", MAX_LOOSE)?
        .entries
        .into_iter()
        .filter(|(name, stat)| is_hexadecimal(name, 2) && stat.kind() == NodeKind::Folder)
        .map(|(name, _)| name)
        .collect();
    let paths: Vec<Vec<u8>> = fans.iter().map(|fan| [b".git/objects/".as_slice(), fan].concat()).collect();
    let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    let mut loose = Vec::new();
    for (fans, paths) in fans.chunks(MAX_BATCH).zip(paths.chunks(MAX_BATCH)) {
        let mut listings = guest.list(paths, MAX_LOOSE)?;
        for fan in fans {
            let listing = listings.next()?;
            let names = listing
                .entries
                .into_iter()
                .filter(|(name, stat)| is_hexadecimal(name, 38) && stat.kind() == NodeKind::File);
            loose.extend(names.map(|(name, _)| [fan.as_slice(), b"/", &name].concat()));
        }
        listings.finish()?;
    }
    for fan in &fans {
        let to = objects.join(OsStr::from_bytes(fan));
        std::fs::create_dir_all(&to).map_err(GitError::file("create", &to))?;
    }
    for batch in loose.chunks(MAX_BATCH) {
        copy_loose(guest, batch, &objects, &mut left)?;
    }
    copy_packs(guest, quarantine, &objects.join("pack"), &mut left, notes)?;
    if left == 0 {
        notes.push(format!("more than {} GiB of objects: skipped the rest", MAX_TOTAL_BYTES >> 30));
    }
    Ok(())
}

fn copy_loose(guest: &Guest, names: &[Vec<u8>], objects: &Path, left: &mut u64) -> Result<(), GitError> {
    let paths: Vec<Vec<u8>> = names.iter().map(|name| [b".git/objects/".as_slice(), name].concat()).collect();
    let limit = *left;
    let requests: Vec<_> = paths.iter().map(|path| ReadRequest { path, link: false, limit }).collect();
    let mut reads = guest.read(&requests)?;
    for name in names {
        let to = objects.join(OsStr::from_bytes(name));
        let mut copy = Copy::to(|| File::create(&to), left);
        let read = reads.next(limit, &mut copy)?;
        let Copy { failed, opened, .. } = copy;
        if let Some(error) = failed {
            return Err(GitError::file("copy to", &to)(error));
        }
        if opened.is_some() && !matches!(read, ReadResult::Read(_)) {
            // An object that is not complete is missing.
            std::fs::remove_file(&to).map_err(GitError::file("remove", &to))?;
        }
        if *left == 0 {
            return Ok(());
        }
    }
    Ok(reads.finish()?)
}

/// Copies a file, of which the guest says the size, as long as there is space for it.
struct Copy<'l, W, F> {
    open: Option<F>,
    opened: Option<W>,
    left: &'l mut u64,
    failed: Option<io::Error>,
}

impl<'l, W: io::Write, F: FnOnce() -> io::Result<W>> Copy<'l, W, F> {
    fn to(open: F, left: &'l mut u64) -> Self {
        Self { open: Some(open), opened: None, left, failed: None }
    }
}

impl<W: io::Write, F: FnOnce() -> io::Result<W>> Sink for Copy<'_, W, F> {
    fn begin(&mut self, _: &NodeStat) {
        match self.open.take().map(|open| open()) {
            Some(Ok(opened)) => self.opened = Some(opened),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        *self.left = self.left.saturating_sub(length);
        if self.failed.is_some() || *self.left == 0 {
            return;
        }
        if let Some(Err(error)) = self.opened.as_mut().map(|opened| opened.write_all(bytes)) {
            self.failed = Some(error);
        }
    }
}

fn copy_packs(
    guest: &Guest,
    quarantine: &Repository,
    folder: &Path,
    left: &mut u64,
    notes: &mut Vec<String>,
) -> Result<(), GitError> {
    let odb = quarantine.odb().map_err(GitError::library("open the quarantine"))?;
    let listing = guest.list_one(b".git/objects/pack", MAX_PACKS * 8)?;
    let packs = listing
        .entries
        .into_iter()
        .filter(|(name, stat)| name.ends_with(b".pack") && stat.kind() == NodeKind::File);
    let started = Instant::now();
    for (name, _) in packs.take(MAX_PACKS) {
        let path = [b".git/objects/pack/".as_slice(), &name].concat();
        let limit = *left;
        // Ignore the agent's pack index: indexing again hashes each object.
        let mut indexer = git2::Indexer::new(Some(&odb), folder, 0o600, false)
            .map_err(GitError::library("index a pack"))?;
        indexer.progress(move |progress| {
            progress.total_objects() <= MAX_PACK_OBJECTS && started.elapsed() < MAX_INDEX_TIME
        });
        let mut reads = guest.read(&[ReadRequest { path: &path, link: false, limit }])?;
        let target = &mut indexer;
        let mut copy = Copy::to(move || Ok(target), left);
        let read = reads.next(limit, &mut copy)?;
        let Copy { failed, .. } = copy;
        reads.finish()?;
        let indexed = match (failed, read) {
            (Some(error), _) => Err(error),
            (None, ReadResult::Read(_)) => {
                indexer.flush().and_then(|()| indexer.commit().map(drop).map_err(io::Error::other))
            }
            (None, ReadResult::Failed(error)) => Err(error),
            (None, ReadResult::NotRegular | ReadResult::TooLarge | ReadResult::Changed) => {
                Err(io::Error::other("not a complete pack of acceptable size"))
            }
        };
        if let Err(error) = indexed {
            if error.kind() == io::ErrorKind::StorageFull {
                return Err(GitError::file("write", folder)(error));
            }
            notes.push(format!("skipped `{}`: {error}", shown(&name)));
        }
    }
    Ok(())
}
