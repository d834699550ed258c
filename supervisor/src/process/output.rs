//! Reads the tail of a child's output in bounded memory.

use std::io::Read as _;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads a stream to its end and returns its tail, of `min_bytes` to twice as many bytes.
pub async fn read_tail(stream: Option<impl AsyncRead + Unpin>, min_bytes: usize) -> Vec<u8> {
    let mut tail = Vec::new();
    let Some(mut stream) = stream else { return tail };
    let mut chunk = vec![0; 8192];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..read]);
        if tail.len() > 2 * min_bytes {
            tail.drain(..tail.len() - min_bytes);
        }
    }
    tail
}

/// Bytes of a pipe that [`read_pipe`] returns: the head.
const PIPE_BYTES: u64 = 64 * 1024;

/// Reads the text that an exited program left in a pipe.
pub fn read_pipe(pipe: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is returned.
    drop(pipe.take(PIPE_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
