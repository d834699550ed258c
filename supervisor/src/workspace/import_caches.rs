//! Imports into the trusted caches what setup commands on the base wrote in another container.
//!
//! The supervisor reads through the guest alone, takes only what sandboxes get of a cache anyway, and
//! swaps the new caches in as a whole: a failed import keeps the old ones.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::caches::{MAX_DEPTH, MAX_ENTRIES, Share, TOOLS};
use crate::git::names::check_plain;
use crate::guest::answers::{ReadResult, Sink};
use crate::guest::{Guest, GuestError, MAX_BATCH, NodeKind, NodeStat, ReadRequest};

/// Bytes of all imported files, at most.
const MAX_BYTES: u64 = 8 << 30;

/// Prefix of directories that become the caches when they are complete.
const FRESH_PREFIX: &str = ".caches-";

/// Import that failed; the trusted caches are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The guest is broken.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The caches cannot be written here.
    #[error("cannot write the caches: {0}")]
    Write(#[from] io::Error),
    /// An entry cannot be read there.
    #[error("cannot read `{path}`: {why}")]
    Read { path: String, why: String },
    /// The caches are larger than what sandboxes can be given.
    #[error("the caches have more than {0}")]
    TooLarge(&'static str),
}

/// What was imported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Imported {
    pub files: u64,
    pub bytes: u64,
}

/// Replaces the trusted caches by what is in `folder`, a path relative to the guest's root.
///
/// # Errors
/// Returns an error if the folder cannot be read completely, is too large, or the caches cannot be
/// written.
pub fn import_caches(guest: &Guest, folder: &Path, trusted: &Path) -> Result<Imported, ImportError> {
    let parent = trusted.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    fs::create_dir_all(parent)?;
    remove_stale(parent)?;
    // Removed unless it is swapped in.
    let fresh = tempfile::Builder::new().prefix(FRESH_PREFIX).tempdir_in(parent)?;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))?;
    let folder = folder.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut import = Import { guest, entries: 0, left: MAX_BYTES, imported: Imported::default() };
    for tool in &TOOLS {
        let root = Cache {
            source: join(folder, tool.name),
            target: fresh.path().join(tool.name),
            share: tool.share,
        };
        import.cache(&root)?;
    }
    swap(fresh.path(), trusted)?;
    Ok(import.imported)
}

/// Removes what interrupted imports left.
fn remove_stale(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(FRESH_PREFIX.as_bytes()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Exchanges both directories; the old one then has the name of the fresh one.
fn swap(fresh: &Path, trusted: &Path) -> io::Result<()> {
    match renameat_with(CWD, fresh, CWD, trusted, RenameFlags::EXCHANGE) {
        Err(Errno::NOENT) => fs::rename(fresh, trusted),
        // Some network file systems cannot exchange; in between there are no caches, which is valid.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let old = tempfile::Builder::new()
                .prefix(FRESH_PREFIX)
                .tempdir_in(trusted.parent().unwrap_or(fresh))?;
            fs::rename(trusted, old.path().join("old"))?;
            fs::rename(fresh, trusted)
        }
        exchanged => Ok(exchanged?),
    }
}

/// Joins two relative paths, either of which can be empty.
fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", path) | (path, "") => path.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// One tool's cache.
struct Cache {
    /// Its path in the guest's root.
    source: String,
    target: PathBuf,
    share: fn(&str, bool) -> Share,
}

/// Folder to import.
struct Folder {
    /// Path in the cache.
    path: String,
    depth: usize,
    /// Whether sandboxes get a link to it, or to a folder that it is in: all of it is imported.
    whole: bool,
}

struct Import<'g> {
    guest: &'g Guest,
    entries: u64,
    left: u64,
    imported: Imported,
}

impl Import<'_> {
    fn cache(&mut self, cache: &Cache) -> Result<(), ImportError> {
        create_folder(&cache.target)?;
        let stat = self.guest.stat(&[cache.source.as_bytes()])?.pop();
        if !matches!(stat, Some(Ok(stat)) if stat.kind() == NodeKind::Folder) {
            return Ok(());
        }
        let mut folders = vec![Folder { path: String::new(), depth: 0, whole: false }];
        let mut files = Vec::new();
        while !folders.is_empty() {
            let batch = folders.split_off(folders.len().saturating_sub(MAX_BATCH));
            let paths: Vec<String> = batch.iter().map(|folder| join(&cache.source, &folder.path)).collect();
            let requested: Vec<&[u8]> = paths.iter().map(String::as_bytes).collect();
            let most = usize::try_from(MAX_ENTRIES).unwrap_or(usize::MAX);
            let mut listings = self.guest.list(&requested, most)?;
            for (folder, path) in batch.iter().zip(&paths) {
                let listing = listings.next()?;
                if let Some(error) = listing.failed {
                    return Err(ImportError::Read { path: path.clone(), why: error.to_string() });
                }
                self.entries += listing.entries.len() as u64;
                if self.entries > MAX_ENTRIES {
                    return Err(ImportError::TooLarge("200,000 entries"));
                }
                for (name, stat) in listing.entries {
                    add_entry(cache, folder, &name, stat, &mut folders, &mut files)?;
                }
            }
            listings.finish()?;
            while files.len() >= MAX_BATCH {
                let batch = files.split_off(files.len() - MAX_BATCH);
                self.read(cache, &batch)?;
            }
        }
        files.chunks(MAX_BATCH).try_for_each(|batch| self.read(cache, batch))
    }

    fn read(&mut self, cache: &Cache, files: &[String]) -> Result<(), ImportError> {
        let paths: Vec<String> = files.iter().map(|file| join(&cache.source, file)).collect();
        let limit = self.left;
        let requests: Vec<ReadRequest<'_>> =
            paths.iter().map(|path| ReadRequest { path: path.as_bytes(), link: false, limit }).collect();
        let mut reads = self.guest.read(&requests)?;
        for (file, path) in files.iter().zip(&paths) {
            let mut sink = FileSink { path: cache.target.join(file), left: self.left, file: None };
            let why = match reads.next(limit, &mut sink)? {
                ReadResult::Read(_) => {
                    self.left = sink.finish()?.ok_or(ImportError::TooLarge("8 GiB"))?;
                    self.imported.files += 1;
                    self.imported.bytes = MAX_BYTES - self.left;
                    continue;
                }
                ReadResult::TooLarge => return Err(ImportError::TooLarge("8 GiB")),
                ReadResult::Failed(error) => error.to_string(),
                ReadResult::NotRegular | ReadResult::Changed => "it is being changed".to_owned(),
            };
            return Err(ImportError::Read { path: path.clone(), why });
        }
        Ok(reads.finish()?)
    }
}

/// Adds an entry of a folder to what is imported, if sandboxes get it.
fn add_entry(
    cache: &Cache,
    folder: &Folder,
    name: &[u8],
    stat: NodeStat,
    folders: &mut Vec<Folder>,
    files: &mut Vec<String>,
) -> io::Result<()> {
    let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
    let is_folder = match stat.kind() {
        NodeKind::Folder => true,
        NodeKind::File => false,
        NodeKind::Link | NodeKind::Pipe | NodeKind::Socket | NodeKind::Device => return Ok(()),
    };
    if check_plain(name.as_bytes()).is_err() {
        return Ok(());
    }
    let path = join(&folder.path, name);
    let share = if folder.whole { Share::Link } else { (cache.share)(&path, is_folder) };
    match (share, is_folder) {
        (Share::Enter | Share::Link, true) if folder.depth < MAX_DEPTH => {
            create_folder(&cache.target.join(&path))?;
            let whole = share == Share::Link;
            folders.push(Folder { path, depth: folder.depth + 1, whole });
        }
        (Share::Link | Share::Copy, false) => files.push(path),
        _ => {}
    }
    Ok(())
}

fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)
}

/// Writes a file that did not exist, within what is left of the bytes.
struct FileSink {
    path: PathBuf,
    left: u64,
    file: Option<io::Result<File>>,
}

impl FileSink {
    /// Returns what is left of the bytes; `None` if the file was larger.
    fn finish(self) -> io::Result<Option<u64>> {
        match self.file {
            Some(Err(error)) if error.kind() == io::ErrorKind::QuotaExceeded => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(Some(self.left)),
        }
    }
}

impl Sink for FileSink {
    fn begin(&mut self, stat: &NodeStat) {
        // Programs in sources stay executable.
        let mode = if stat.mode & 0o111 == 0 { 0o644 } else { 0o755 };
        self.file = Some(File::options().write(true).create_new(true).mode(mode).open(&self.path));
    }

    fn data(&mut self, bytes: &[u8]) {
        let Some(Ok(file)) = &mut self.file else { return };
        let written = match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                file.write_all(bytes)
            }
            None => Err(io::ErrorKind::QuotaExceeded.into()),
        };
        if let Err(error) = written {
            self.file = Some(Err(error));
        }
    }
}
