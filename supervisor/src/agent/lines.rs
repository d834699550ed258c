//! Splits a byte stream into lines of bounded length. Pure.

/// Maximum length of a line; longer ones are only written to the transcript.
pub const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Buffers bytes and returns complete lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// Whether the rest of an overlong line is being skipped.
    skipping: bool,
    too_long: u64,
}

impl Lines {
    /// Adds a chunk and calls `line` for each line that it completes, without the line feed.
    pub fn push(&mut self, chunk: &[u8], mut line: impl FnMut(&[u8])) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            rest = &tail[1..];
            if self.skipping {
                self.skipping = false;
            } else if self.partial.is_empty() {
                line(head);
            } else {
                self.partial.extend_from_slice(head);
                line(&self.partial);
                self.partial.clear();
            }
        }
        if !self.skipping {
            self.partial.extend_from_slice(rest);
            if self.partial.len() > MAX_LINE_BYTES {
                self.partial = Vec::new();
                self.skipping = true;
                self.too_long += 1;
            }
        }
    }

    /// Calls `line` for an unterminated last line, at the end of the stream.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&std::mem::take(&mut self.partial));
        }
    }

    /// Returns the number of overlong lines.
    #[must_use]
    pub fn too_long(&self) -> u64 {
        self.too_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| found.push(line.to_vec()));
        }
        lines.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn overlong_line_is_skipped_in_bounded_memory() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let chunk = vec![b'x'; 1024 * 1024];
        for _ in 0..20 {
            lines.push(&chunk, |line| found.push(line.len()));
            assert!(lines.partial.capacity() <= 3 * MAX_LINE_BYTES);
        }
        lines.push(b"end\nnext\n", |line| found.push(line.len()));
        assert_eq!((found, lines.too_long()), (vec![4], 1));
    }

    proptest! {
        #[test]
        fn line_splitting_is_independent_of_chunk_borders(text in "[a-c\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&chunks), split(&[bytes]));
        }
    }
}
