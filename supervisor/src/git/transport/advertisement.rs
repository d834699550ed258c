//! Detects unsupported repositories in the ref advertisement.

use std::io::{self, Read, Write};

use orchestrator_contract::Reason;

use super::operation::record_failure;

/// Stream that rejects SHA-256 repositories, which libgit2 would report as corrupted.
pub(super) struct Advertisement<S> {
    inner: S,
    head: Vec<u8>,
}

impl<S> Advertisement<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, head: Vec::new() }
    }
}

impl<S: Read> Read for Advertisement<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.head.len() < 4096 {
            self.head.extend_from_slice(&buffer[..count]);
            if self.head.windows(20).any(|window| window == b"object-format=sha256") {
                return Err(record_failure(
                    Reason::UnsupportedRepository,
                    "the repository uses SHA-256 object names, which are not supported",
                ));
            }
        }
        Ok(count)
    }
}

impl<S: Write> Write for Advertisement<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
