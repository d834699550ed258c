//! The end of what a child prints, in bounded memory.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads a stream to its end and keeps its last `kept` bytes, or up to twice as many.
pub async fn read_tail(stream: Option<impl AsyncRead + Unpin>, kept: usize) -> Vec<u8> {
    let mut end = Vec::new();
    let Some(mut stream) = stream else { return end };
    let mut chunk = vec![0; 8192];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        end.extend_from_slice(&chunk[..read]);
        if end.len() > 2 * kept {
            end.drain(..end.len() - kept);
        }
    }
    end
}
