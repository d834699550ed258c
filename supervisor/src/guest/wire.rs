//! Frames and values on the sockets between supervisor and guest.
//!
//! A frame is its payload's length, the request that it belongs to, its kind, and the payload.
//! Numbers are little-endian. A length is checked before anything is allocated for it.

use std::io::{self, Read, Write};

/// Maximum payload of a frame on the control socket: a batch of paths, or of results.
pub(crate) const CONTROL_MAX: usize = 4 << 20;

/// Maximum payload of a frame on the bulk socket.
pub(crate) const BULK_MAX: usize = 128 << 10;

/// Bytes that a stream may send before its receiver took any of them.
pub(crate) const CREDIT: u32 = 1 << 20;

const HEADER: usize = 4 + 4 + 1;

/// Frame of a socket.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Request that it belongs to.
    pub(crate) id: u32,
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

/// Writes a frame with one call, so that frames of several threads never mix under a lock.
pub(crate) fn write_frame(out: &mut impl Write, id: u32, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    out.write_all(&bytes)
}

/// Reads a frame; `None` at the end of the stream.
pub(crate) fn read_frame(input: &mut impl Read, max: usize) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match input.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut decoder = Decoder::new(&header);
    let (Some(length), Some(id), Some(kind)) = (decoder.u32(), decoder.u32(), decoder.u8()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    input.read_exact(&mut payload)?;
    Ok(Some(Frame { id, kind, payload }))
}

/// Appends values to a payload.
pub(crate) trait Encode {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Appends bytes with their length; the caller bounds them.
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.put(bytes);
    }
}

impl Encode for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes values from a payload; `None` where it ends too early.
pub(crate) struct Decoder<'b> {
    rest: &'b [u8],
}

impl<'b> Decoder<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}
