//! What a guest does for each request: decodes it, performs it and encodes the result.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::io::Errno;

use super::message::{Movable, NodeStat, WriteKind, decode_paths, number, status};
use super::tree::{Content, LastParent, OpenedFile, Tree, read_rules};
use super::wire::{Decoder, Encode as _};

/// Bytes of a file in one chunk.
const CHUNK: usize = 64 << 10;

/// Data to the supervisor.
pub(super) trait Output {
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// Sends the buffer if it is large enough.
    fn flush_full(&mut self) -> io::Result<()>;
}

/// Data from the supervisor.
pub(super) trait Input {
    /// Returns the next bytes, at most `most` of them; none is no error and not the end.
    fn next(&mut self, most: usize) -> io::Result<&[u8]>;
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Lists folders: for each its entries, then a status.
pub(super) fn list(tree: &Tree, request: &mut Decoder<'_>, out: &mut impl Output) -> io::Result<()> {
    let max = request.u64().ok_or_else(malformed)?;
    for path in decode_paths(request).ok_or_else(malformed)? {
        let mut sent = Ok(());
        let mut entries = 0;
        let listed = tree.list(&path, |folder, name, stat| {
            entries += 1;
            if entries > max {
                return Err(Errno::TOOBIG.into());
            }
            let buffer = out.buffer();
            buffer.put_u8(status::ENTRY);
            buffer.put_bytes(name);
            stat.encode(buffer);
            if let Some(rules) = read_rules(folder, name, stat) {
                buffer.put_u8(status::RULES);
                buffer.put_bytes(name);
                buffer.put_bytes(&rules);
            }
            sent = out.flush_full();
            match &sent {
                Ok(()) => Ok(()),
                Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
            }
        });
        sent?;
        put_status(out.buffer(), listed.as_ref().err());
        out.flush_full()?;
    }
    Ok(())
}

fn put_status(buffer: &mut Vec<u8>, error: Option<&io::Error>) {
    match error {
        None => buffer.put_u8(status::OK),
        Some(error) => {
            buffer.put_u8(status::ERROR);
            buffer.put_u32(number(error));
        }
    }
}

/// Reads files: for each a status and a stat, chunks, an empty chunk, and a status.
pub(super) fn read(tree: &Tree, request: &mut Decoder<'_>, out: &mut impl Output) -> io::Result<()> {
    let mut parents = LastParent::default();
    let count = request.u32().ok_or_else(malformed)?;
    for _ in 0..count {
        let (Some(path), Some(link), Some(limit)) = (request.bytes(), request.u8(), request.u64()) else {
            return Err(malformed());
        };
        match tree.read(&mut parents, path, link != 0, limit) {
            Ok(OpenedFile::NotRegular) => out.buffer().put_u8(status::NOT_REGULAR),
            Ok(OpenedFile::TooLarge) => out.buffer().put_u8(status::TOO_LARGE),
            Err(error) => put_status(out.buffer(), Some(&error)),
            Ok(OpenedFile::Content(content, stat)) => {
                out.buffer().put_u8(status::OK);
                stat.encode(out.buffer());
                let end = match content {
                    Content::Link(target) => {
                        out.buffer().put_bytes(&target);
                        Ok(())
                    }
                    // Never more than the stat announced, also if the file grows meanwhile.
                    Content::File(file) => send(file, stat.size, out)?,
                };
                out.buffer().put_u32(0);
                put_status(out.buffer(), end.as_ref().err());
            }
        }
        out.flush_full()?;
    }
    Ok(())
}

/// Sends the content of a file; the inner result is that of reading it.
fn send(mut file: File, size: u64, out: &mut impl Output) -> io::Result<io::Result<()>> {
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let buffer = out.buffer();
        let start = buffer.len();
        buffer.put_u32(0);
        buffer.resize(start + 4 + wanted, 0);
        let read = loop {
            match file.read(&mut buffer[start + 4..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let count = read.as_ref().copied().unwrap_or_default();
        buffer.truncate(start + 4 + count);
        if count == 0 {
            buffer.truncate(start);
            return Ok(read.map(drop));
        }
        buffer[start..start + 4].copy_from_slice(&u32::try_from(count).unwrap_or_default().to_le_bytes());
        left = left.saturating_sub(count as u64);
        out.flush_full()?;
    }
    Ok(Ok(()))
}

/// Writes files; the result has a status for each, with its stat.
pub(super) fn write(tree: &Tree, request: &mut Decoder<'_>, mut input: impl Input) -> io::Result<Vec<u8>> {
    let mut parents = LastParent::default();
    let mut results = Vec::new();
    let count = request.u32().ok_or_else(malformed)?;
    for _ in 0..count {
        let (Some(path), Some(kind), Some(size)) = (request.bytes(), request.u8(), request.u64()) else {
            return Err(malformed());
        };
        let kind = match kind {
            0 => WriteKind::File,
            1 => WriteKind::Executable,
            2 => WriteKind::Link,
            _ => return Err(malformed()),
        };
        let mut left = size;
        let mut target = Vec::new();
        if kind == WriteKind::Link {
            take(&mut input, &mut left, |bytes| {
                target.extend_from_slice(bytes);
                Ok(())
            })??;
        }
        let mut lost = Ok(());
        let written = tree.write(
            &mut parents,
            path,
            kind,
            &mut |file| match take(&mut input, &mut left, |bytes| file.write_all(bytes)) {
                Ok(written) => written,
                Err(error) => {
                    lost = Err(error);
                    Ok(())
                }
            },
            &target,
        );
        lost?;
        // If the file could not be written, its data is still on the way.
        take(&mut input, &mut left, |_| Ok(()))??;
        put_status(&mut results, written.as_ref().err());
        if let Ok(stat) = written {
            stat.encode(&mut results);
        }
    }
    Ok(results)
}

/// Takes `left` bytes of the input; the inner result is that of `each`.
fn take(
    input: &mut impl Input,
    left: &mut u64,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<io::Result<()>> {
    while *left > 0 {
        let bytes = input.next(usize::try_from(*left).unwrap_or(usize::MAX))?;
        *left -= bytes.len() as u64;
        if let Err(error) = each(bytes) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Returns a status for each path, with its stat.
pub(super) fn stat(tree: &Tree, request: &mut Decoder<'_>) -> io::Result<Vec<u8>> {
    let mut parents = LastParent::default();
    let mut results = Vec::new();
    for path in decode_paths(request).ok_or_else(malformed)? {
        let stat: io::Result<NodeStat> = tree.stat(&mut parents, &path);
        put_status(&mut results, stat.as_ref().err());
        if let Ok(stat) = stat {
            stat.encode(&mut results);
        }
    }
    Ok(results)
}

pub(super) fn make_folders(tree: &Tree, request: &mut Decoder<'_>) -> io::Result<Vec<u8>> {
    let folders = decode_paths(request).ok_or_else(malformed)?;
    tree.make_folders(folders.iter().map(Vec::as_slice))?;
    Ok(Vec::new())
}

pub(super) fn create_folders(tree: &Tree, request: &mut Decoder<'_>) -> io::Result<Vec<u8>> {
    for folder in decode_paths(request).ok_or_else(malformed)? {
        tree.create_folder(&folder)?;
    }
    Ok(Vec::new())
}

pub(super) fn move_entry(tree: &Tree, request: &mut Decoder<'_>) -> io::Result<Vec<u8>> {
    let (Some(folder_only), Some(from), Some(to)) = (request.u8(), request.bytes(), request.bytes()) else {
        return Err(malformed());
    };
    let what = if folder_only != 0 { Movable::Folder } else { Movable::Any };
    tree.move_entry(from, to, what)?;
    Ok(Vec::new())
}

/// Removes paths; the result has a status for each.
pub(super) fn remove(tree: &Tree, request: &mut Decoder<'_>) -> io::Result<Vec<u8>> {
    let prune = request.u8().ok_or_else(malformed)? != 0;
    let mut results = Vec::new();
    for path in decode_paths(request).ok_or_else(malformed)? {
        put_status(&mut results, tree.remove(&path, prune).as_ref().err());
    }
    Ok(results)
}
