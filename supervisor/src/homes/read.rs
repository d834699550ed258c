//! Reads files that something in a sandbox may have written: regular files only, bounded.

use std::io::{self, Write};

use crate::git::names::check_plain;
use crate::guest::answers::{ReadResult, Sink, is_no_folder};
use crate::guest::{Guest, GuestError, NodeStat, ReadRequest};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A component is a link, or the file is a directory, pipe, socket or device.
    #[error("it is not a regular file in a plain directory")]
    NotRegular,
    /// The file has more bytes than the caller accepts.
    #[error("it has more than {max} bytes")]
    TooLarge { max: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// Reads the regular file at a path of the guest's folder, of `max` bytes at most.
///
/// Returns `None` if there is none.
///
/// # Errors
/// Returns an error if a component is a link, or if the file is not regular, too large or unreadable.
pub fn read_file(guest: &Guest, path: &[u8], max: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let mut content = Vec::new();
    let size = copy_file(guest, path, max, &mut content)?;
    Ok(size.map(|_| content))
}

/// Copies the regular file at a path to `target`, as [`read_file`] reads it.
///
/// Returns its size in bytes, or `None` if there is none.
///
/// # Errors
/// Returns an error as [`read_file`] does, or if `target` cannot be written.
pub fn copy_file(
    guest: &Guest,
    path: &[u8],
    max: u64,
    target: &mut impl Write,
) -> Result<Option<u64>, ReadError> {
    if path.split(|byte| *byte == b'/').any(|part| check_plain(part).is_err()) {
        return Err(ReadError::NotRegular);
    }
    let mut sink = WriteSink { target, written: Ok(()) };
    let mut reads = guest.read(&[ReadRequest { path, link: false, limit: max }])?;
    let read = reads.next(max, &mut sink)?;
    reads.finish()?;
    sink.written?;
    match read {
        ReadResult::Read(stat) => Ok(Some(stat.size)),
        ReadResult::NotRegular => Err(ReadError::NotRegular),
        ReadResult::TooLarge => Err(ReadError::TooLarge { max }),
        ReadResult::Changed => Err(io::Error::other("it became shorter while it was read").into()),
        ReadResult::Failed(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        ReadResult::Failed(error) if is_no_folder(&error) => Err(ReadError::NotRegular),
        ReadResult::Failed(error) => Err(error.into()),
    }
}

struct WriteSink<'t, W> {
    target: &'t mut W,
    written: io::Result<()>,
}

impl<W: Write> Sink for WriteSink<'_, W> {
    fn begin(&mut self, _: &NodeStat) {}

    fn data(&mut self, bytes: &[u8]) {
        if self.written.is_ok() {
            self.written = self.target.write_all(bytes);
        }
    }
}
