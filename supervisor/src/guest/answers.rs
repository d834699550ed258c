//! Requests to a guest, with results that are decoded and checked.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::io::Errno;

use super::client::{Guest, GuestError, Incoming};
use super::message::{
    MAX_RULE_BYTES, Movable, NodeKind, NodeStat, ReadRequest, WriteKind, encode_paths, error_of, kind, status,
};
use super::wire::{Decoder, Encode as _};
use crate::git::names::check_plain;

/// Maximum bytes of a name; the file systems of Linux have no longer ones.
const MAX_NAME: usize = 255;

/// Maximum bytes of one chunk of a file.
const MAX_CHUNK: usize = 64 << 10;

/// Content of a folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<(Vec<u8>, NodeStat)>,
    /// Names and contents of the rule files.
    pub(crate) rules: Vec<(Vec<u8>, Vec<u8>)>,
    /// Why the folder, or the rest of it, could not be read.
    pub(crate) failed: Option<io::Error>,
}

/// Folders that are being listed.
pub(crate) struct Listings<'g> {
    incoming: Incoming<'g>,
    max: usize,
}

impl Listings<'_> {
    /// Returns the next folder, in the order of the request.
    pub(crate) fn next(&mut self) -> Result<Listing, GuestError> {
        let mut listing = Listing::default();
        loop {
            match self.incoming.u8()? {
                status::ENTRY => {
                    let length = self.incoming.length(MAX_NAME)?;
                    let name = self.incoming.take(length)?.to_vec();
                    let stat = take_stat(&mut self.incoming)?;
                    // `..\x` is a name here; the tree's validator refuses it later, by name.
                    let component = !name.is_empty() && !name.contains(&b'/') && !name.contains(&0);
                    if !component || name == b"." || name == b".." || listing.entries.len() >= self.max {
                        return Err(self.incoming.malformed());
                    }
                    listing.entries.push((name, stat));
                }
                status::RULES => {
                    let length = self.incoming.length(MAX_NAME)?;
                    let name = self.incoming.take(length)?.to_vec();
                    let length = self.incoming.length(usize::try_from(MAX_RULE_BYTES).unwrap_or_default())?;
                    let content = self.incoming.take(length)?.to_vec();
                    let known = name == b".gitignore" || name == b".gitattributes";
                    if !known || listing.rules.len() >= 2 {
                        return Err(self.incoming.malformed());
                    }
                    listing.rules.push((name, content));
                }
                status::OK => return Ok(listing),
                status::ERROR => {
                    listing.failed = Some(error_of(self.incoming.u32()?));
                    return Ok(listing);
                }
                _ => return Err(self.incoming.malformed()),
            }
        }
    }

    /// Checks that nothing follows the last folder.
    pub(crate) fn finish(mut self) -> Result<(), GuestError> {
        self.incoming.finish()
    }
}

/// Result of reading a file.
#[derive(Debug)]
pub(crate) enum ReadResult {
    /// All of it was passed on.
    Read(NodeStat),
    Failed(io::Error),
    /// It is not a regular file, or not a link, any more.
    NotRegular,
    TooLarge,
    /// It became shorter while it was read.
    Changed,
}

/// Consumer of a file's content: its stat, then its bytes.
pub(crate) trait Sink {
    fn begin(&mut self, stat: &NodeStat);
    fn data(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn begin(&mut self, stat: &NodeStat) {
        self.clear();
        // The guest only claims the size.
        self.reserve(usize::try_from(stat.size).unwrap_or_default().min(1 << 20));
    }

    fn data(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Files that are being read.
pub(crate) struct Reads<'g> {
    incoming: Incoming<'g>,
}

impl Reads<'_> {
    /// Passes the next file to `sink`, in the order of the request; never more than `limit` bytes.
    pub(crate) fn next(&mut self, limit: u64, sink: &mut impl Sink) -> Result<ReadResult, GuestError> {
        match self.incoming.u8()? {
            status::OK => {}
            status::NOT_REGULAR => return Ok(ReadResult::NotRegular),
            status::TOO_LARGE => return Ok(ReadResult::TooLarge),
            status::ERROR => return Ok(ReadResult::Failed(error_of(self.incoming.u32()?))),
            _ => return Err(self.incoming.malformed()),
        }
        let stat = take_stat(&mut self.incoming)?;
        if stat.size > limit {
            return Err(self.incoming.malformed());
        }
        sink.begin(&stat);
        let mut received = 0;
        loop {
            let length = self.incoming.length(MAX_CHUNK)?;
            if length == 0 {
                break;
            }
            received += length as u64;
            if received > stat.size {
                return Err(self.incoming.malformed());
            }
            sink.data(self.incoming.take(length)?);
        }
        match self.incoming.u8()? {
            status::OK if received == stat.size => Ok(ReadResult::Read(stat)),
            status::OK => Ok(ReadResult::Changed),
            status::ERROR => Ok(ReadResult::Failed(error_of(self.incoming.u32()?))),
            _ => Err(self.incoming.malformed()),
        }
    }

    /// Checks that nothing follows the last file.
    pub(crate) fn finish(mut self) -> Result<(), GuestError> {
        self.incoming.finish()
    }
}

fn take_stat(incoming: &mut Incoming<'_>) -> Result<NodeStat, GuestError> {
    let stat = NodeStat::decode(&mut Decoder::new(incoming.take(NodeStat::ENCODED)?));
    stat.ok_or_else(|| incoming.malformed())
}

/// Returns whether an operation failed because a component of its path is a link, a file or no name.
pub(crate) fn is_no_folder(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::NOTDIR, Errno::LOOP, Errno::INVAL].iter().any(|errno| number == Some(errno.raw_os_error()))
        || error.kind() == io::ErrorKind::NotADirectory
}

/// Entry to write, with its content; for a link the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) kind: WriteKind,
    pub(crate) content: &'a [u8],
}

impl Guest {
    /// Lists folders, at most `max` entries of each; the empty path is the root.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn list(&self, folders: &[&[u8]], max: usize) -> Result<Listings<'_>, GuestError> {
        let mut request = Vec::new();
        request.put_u64(max as u64);
        request.extend(encode_paths(folders));
        Ok(Listings { incoming: self.stream(kind::LIST, &request)?, max })
    }

    /// Lists one folder, at most `max` entries.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn list_one(&self, folder: &[u8], max: usize) -> Result<Listing, GuestError> {
        let mut listings = self.list(&[folder], max)?;
        let listing = listings.next()?;
        listings.finish()?;
        Ok(listing)
    }

    /// Reads files and links.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn read(&self, files: &[ReadRequest<'_>]) -> Result<Reads<'_>, GuestError> {
        let mut request = Vec::new();
        request.put_u32(u32::try_from(files.len()).unwrap_or(u32::MAX));
        for file in files {
            request.put_bytes(file.path);
            request.put_u8(file.link.into());
            request.put_u64(file.limit);
        }
        Ok(Reads { incoming: self.stream(kind::READ, &request)? })
    }

    /// Reads one regular file of limited size; `None` if there is none that can be read.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn read_small(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, GuestError> {
        if path.split(|byte| *byte == b'/').any(|part| check_plain(part).is_err()) {
            return Ok(None);
        }
        let mut reads = self.read(&[ReadRequest { path, link: false, limit }])?;
        let mut content = Vec::new();
        let read = matches!(reads.next(limit, &mut content)?, ReadResult::Read(_));
        reads.finish()?;
        Ok(read.then_some(content))
    }

    /// Writes entries whose folders exist; returns a result for each.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn write(&self, entries: &[NewEntry<'_>]) -> Result<Vec<io::Result<NodeStat>>, GuestError> {
        let mut request = Vec::new();
        request.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        for entry in entries {
            request.put_bytes(entry.path);
            request.put_u8(match entry.kind {
                WriteKind::File => 0,
                WriteKind::Executable => 1,
                WriteKind::Link => 2,
            });
            request.put_u64(entry.content.len() as u64);
        }
        let written = self.send_data(kind::WRITE, &request, entries.iter().map(|entry| entry.content))?;
        self.results(entries.len(), written)
    }

    /// Writes one file below the guest's folder, replacing anything in its place.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn write_one(
        &self,
        path: &Path,
        kind: WriteKind,
        content: &[u8],
    ) -> Result<io::Result<()>, GuestError> {
        let Some(path) = self.relative(path) else { return Ok(Err(io::ErrorKind::InvalidInput.into())) };
        let written = self.write(&[NewEntry { path, kind, content }])?.pop();
        Ok(written.map_or_else(|| Err(io::ErrorKind::InvalidData.into()), |written| written.map(drop)))
    }

    /// Returns the stats of entries, not of what they link to.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn stat(&self, paths: &[&[u8]]) -> Result<Vec<io::Result<NodeStat>>, GuestError> {
        let answer = self.call(kind::STAT, &encode_paths(paths))?;
        self.results(paths.len(), answer)
    }

    /// Decodes a status and a stat for each of `count` entries.
    fn results(
        &self,
        count: usize,
        answer: io::Result<Vec<u8>>,
    ) -> Result<Vec<io::Result<NodeStat>>, GuestError> {
        let malformed = || self.broken("sent a malformed result");
        let answer = answer.map_err(|error| self.broken(format!("refused a request: {error}")))?;
        let mut values = Decoder::new(&answer);
        let mut results = Vec::with_capacity(count);
        for _ in 0..count {
            results.push(match values.u8().ok_or_else(malformed)? {
                status::OK => Ok(NodeStat::decode(&mut values).ok_or_else(malformed)?),
                status::ERROR => Err(error_of(values.u32().ok_or_else(malformed)?)),
                _ => return Err(malformed()),
            });
        }
        if values.is_empty() { Ok(results) } else { Err(malformed()) }
    }

    /// Creates folders, parents first; the inner error is that of the first that fails.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn make_folders(&self, folders: &[&[u8]]) -> Result<io::Result<()>, GuestError> {
        Ok(self.call(kind::MAKE_FOLDERS, &encode_paths(folders))?.map(drop))
    }

    /// Creates folders that did not exist, for their owner only, parents first.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn create_folders(&self, folders: &[&[u8]]) -> Result<io::Result<()>, GuestError> {
        Ok(self.call(kind::CREATE_FOLDERS, &encode_paths(folders))?.map(drop))
    }

    /// Creates the folders of a path that do not exist; something else in the place of one is an error.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn ensure_folder(&self, folder: &[u8]) -> Result<io::Result<()>, GuestError> {
        let ends = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([folder.len()]).filter(|end| *end > 0) {
            let path = &folder[..end];
            let created = match self.stat(&[path])?.pop() {
                Some(Ok(stat)) if stat.kind() == NodeKind::Folder => Ok(()),
                Some(Ok(_)) => Err(io::ErrorKind::NotADirectory.into()),
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => self.make_folders(&[path])?,
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            if created.is_err() {
                return Ok(created);
            }
        }
        Ok(Ok(()))
    }

    /// Moves an entry as a whole to a path that does not exist.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn move_entry(
        &self,
        from: &[u8],
        to: &[u8],
        what: Movable,
    ) -> Result<io::Result<()>, GuestError> {
        let mut request = vec![u8::from(what == Movable::Folder)];
        request.put_bytes(from);
        request.put_bytes(to);
        Ok(self.call(kind::MOVE, &request)?.map(drop))
    }

    /// Returns a path relative to the guest's folder, if it is below.
    pub(crate) fn relative<'p>(&self, path: &'p Path) -> Option<&'p [u8]> {
        path.strip_prefix(self.root()).ok().map(|path| path.as_os_str().as_bytes())
    }

    /// Removes paths with everything below; optionally also folders that this empties.
    ///
    /// # Errors
    /// Returns an error if the guest is broken.
    pub(crate) fn remove(&self, paths: &[&[u8]], prune: bool) -> Result<Vec<io::Result<()>>, GuestError> {
        let malformed = || self.broken("sent a malformed result");
        let mut request = vec![u8::from(prune)];
        request.extend(encode_paths(paths));
        let answer = self.call(kind::REMOVE, &request)?;
        let answer = answer.map_err(|error| self.broken(format!("refused a request: {error}")))?;
        let mut values = Decoder::new(&answer);
        let mut results = Vec::with_capacity(paths.len());
        for _ in paths {
            results.push(match values.u8().ok_or_else(malformed)? {
                status::OK => Ok(()),
                status::ERROR => Err(error_of(values.u32().ok_or_else(malformed)?)),
                _ => return Err(malformed()),
            });
        }
        if values.is_empty() { Ok(results) } else { Err(malformed()) }
    }
}
