//! Bounds what an MCP server or its client may send: length of a line, and bytes in total.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Maximum length of a message, which is one line (MCP specification, stdio transport).
pub(super) const MAX_LINE_BYTES: u64 = 8 * 1024 * 1024;

/// A stream that fails when a line or the whole is too long.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    line: u64,
    total: u64,
    max_total: u64,
}

impl<R> Bounded<R> {
    /// Bounds each line.
    pub(super) fn lines(inner: R) -> Self {
        Self { inner, line: 0, total: 0, max_total: u64::MAX }
    }

    /// Bounds each line, and the bytes of all lines.
    pub(super) fn total(inner: R, max_total: u64) -> Self {
        Self { inner, line: 0, total: 0, max_total }
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        let too_long = |what: &str, max: u64| {
            let message = format!("{what} has more than {max} bytes");
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        self.total += bytes.len() as u64;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line += part.len() as u64;
            if self.line > MAX_LINE_BYTES {
                return Err(too_long("a message", MAX_LINE_BYTES));
            }
            if part.ends_with(b"\n") {
                self.line = 0;
            }
        }
        if self.total > self.max_total { Err(too_long("the output", self.max_total)) } else { Ok(()) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let counted = self.count(buffer.filled().get(before..).unwrap_or_default());
        if counted.is_err() {
            // A failed read returns no bytes.
            buffer.set_filled(before);
        }
        Poll::Ready(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn overlong_line_or_output_is_an_error() {
        let line = usize::try_from(MAX_LINE_BYTES).unwrap();
        let read = async |bytes: Vec<u8>, max: u64| {
            Bounded::total(bytes.as_slice(), max)
                .read_to_end(&mut Vec::new())
                .await
                .map_err(|e| e.to_string())
        };
        let mut lines = vec![b'x'; 2 * line];
        lines[line - 1] = b'\n';
        assert_eq!(read(lines.clone(), u64::MAX).await, Ok(2 * line));
        lines.push(b'x');
        assert!(read(lines.clone(), u64::MAX).await.unwrap_err().contains("a message has more than"));
        assert!(read(vec![b'\n'; 11], 10).await.unwrap_err().contains("the output has more than 10 bytes"));
    }
}
