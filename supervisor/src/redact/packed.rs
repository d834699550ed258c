//! Unpacks gzip, zlib and zip data; recognizes what cannot be read.

use std::io::Read;

use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

/// Format of packed data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    Gzip,
    Zlib,
    /// Member of a zip file.
    Zip,
}

/// First bytes of packed data, which may be anywhere in other data.
pub(super) const MAGICS: [(Format, &[u8]); 6] = [
    (Format::Gzip, b"\x1f\x8b\x08"),
    (Format::Zlib, b"\x78\x01"),
    (Format::Zlib, b"\x78\x5e"),
    (Format::Zlib, b"\x78\x9c"),
    (Format::Zlib, b"\x78\xda"),
    (Format::Zip, b"PK\x03\x04"),
];

/// First bytes of data that cannot be read.
const OPAQUE: [(&str, &[u8]); 13] = [
    ("xz data", b"\xfd7zXZ\0"),
    ("zstd data", b"\x28\xb5\x2f\xfd"),
    ("bzip2 data", b"BZh"),
    ("lz4 data", b"\x04\x22\x4d\x18"),
    ("lzip data", b"LZIP"),
    ("a 7z archive", b"7z\xbc\xaf\x27\x1c"),
    ("a rar archive", b"Rar!\x1a\x07"),
    ("compress data", b"\x1f\x9d"),
    ("encrypted data", b"Salted__"),
    ("encrypted data", b"-----BEGIN PGP MESSAGE-----"),
    ("encrypted data", b"age-encryption.org/v1"),
    ("encrypted data", b"$ANSIBLE_VAULT;"),
    ("encrypted data", b"\0GITCRYPT\0"),
];

/// File names of data that has no first bytes of its own.
const OPAQUE_NAMES: [(&str, &[u8]); 3] =
    [("brotli data", b".br"), ("lzma data", b".lzma"), ("encrypted data", b".gpg")];

/// Maximum bytes that are scanned together; the next ones repeat the last [`OVERLAP_BYTES`].
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
const OVERLAP_BYTES: usize = 64 * 1024;

/// How unpacking ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Unpacked {
    /// Bytes of packed data that were read.
    pub(super) read: usize,
    /// Whether the data ended as its format says; else it was damaged, cut, or no packed data.
    pub(super) complete: bool,
    /// What could not be read.
    pub(super) unread: Option<&'static str>,
}

/// Returns what data is if it cannot be read.
pub(super) fn opaque(bytes: &[u8]) -> Option<&'static str> {
    OPAQUE.iter().find(|(_, magic)| bytes.starts_with(magic)).map(|(name, _)| *name)
}

/// Returns what a file is if it cannot be read, by its name.
pub(super) fn opaque_name(path: &[u8]) -> Option<&'static str> {
    OPAQUE_NAMES.iter().find(|(_, end)| path.ends_with(end)).map(|(name, _)| *name)
}

/// Unpacks the data at the start of `bytes` in windows.
///
/// `on_window` receives each and whether more follow; it returns whether to go on.
pub(super) fn unpack(
    format: Format,
    bytes: &[u8],
    on_window: &mut dyn FnMut(&[u8], bool) -> bool,
) -> Unpacked {
    let read = |rest: &[u8]| bytes.len() - rest.len();
    match format {
        Format::Gzip => {
            let mut decoder = GzDecoder::new(bytes);
            let complete = windows(&mut decoder, on_window);
            Unpacked { read: read(decoder.into_inner()), complete, unread: None }
        }
        Format::Zlib => {
            let mut decoder = ZlibDecoder::new(bytes);
            let complete = windows(&mut decoder, on_window);
            Unpacked { read: read(decoder.into_inner()), complete, unread: None }
        }
        Format::Zip => unpack_member(bytes, on_window).unwrap_or_default(),
    }
}

/// Unpacks a member of a zip file, by its local header; stored ones are readable as they are.
fn unpack_member(bytes: &[u8], on_window: &mut dyn FnMut(&[u8], bool) -> bool) -> Option<Unpacked> {
    let number = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (version, flags, method) = (number(4)?, number(6)?, number(8)?);
    let start = 30 + usize::from(number(26)?) + usize::from(number(28)?);
    let packed = bytes.get(start..)?;
    if version & 0xff > 100 {
        return None;
    }
    let unread = |what| Unpacked { read: start, complete: true, unread: Some(what) };
    Some(match method {
        _ if flags & 1 == 1 => unread("an encrypted zip member"),
        0 => Unpacked { read: start, complete: true, unread: None },
        8 => {
            let mut decoder = DeflateDecoder::new(packed);
            let complete = windows(&mut decoder, on_window);
            let read = bytes.len() - decoder.into_inner().len();
            Unpacked { read, complete, unread: None }
        }
        _ => unread("a zip member of an unknown method"),
    })
}

/// Reads to the end; returns whether it was reached without an error.
fn windows(decoder: &mut dyn Read, on_window: &mut dyn FnMut(&[u8], bool) -> bool) -> bool {
    let mut window = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut fresh = false;
    let complete = loop {
        match decoder.read(&mut chunk) {
            Ok(0) => break true,
            Ok(length) => {
                window.extend_from_slice(chunk.get(..length).unwrap_or_default());
                fresh = true;
            }
            Err(_) => break false,
        }
        if window.len() >= WINDOW_BYTES {
            if !on_window(&window, true) {
                return false;
            }
            window.drain(..window.len() - OVERLAP_BYTES);
            fresh = false;
        }
    };
    if fresh {
        on_window(&window, false);
    }
    complete
}
