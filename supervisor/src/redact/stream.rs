//! Finds how much of a stream can be scanned now.

/// Maximum bytes that wait for the end of their line.
pub(super) const MAX_PENDING: usize = 1024 * 1024;

/// Bytes that stay pending when a line is longer: more than any secret with what encodes it.
pub(super) const KEPT: usize = 64 * 1024;

/// Maximum bytes of complete lines that wait because the next line may continue them.
const MAX_OPEN: usize = 64 * 1024;

/// Returns the length of the complete lines that later bytes cannot change.
///
/// A line of base64 or hexadecimal digits may continue in the next line.
pub(super) fn settled(bytes: &[u8]) -> usize {
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1) else { return 0 };
    let mut start = end;
    while start > 0 && end - start < MAX_OPEN {
        let line_start = bytes[..start - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if !is_open(&bytes[line_start..start]) {
            return start;
        }
        start = line_start;
    }
    if end - start < MAX_OPEN { start } else { end }
}

/// Returns whether a line may be a part of encoded data.
fn is_open(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let is_encoded = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=\\%:,. \t\"'|".contains(byte);
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    !line.is_empty() && line.iter().all(is_encoded) && line.iter().any(is_word)
        || matches!(line.last(), Some(b'=' | b'\\'))
}
