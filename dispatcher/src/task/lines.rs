//! Parses a byte stream into events.

use orchestrator_contract::Event;

/// Maximum length of a line in bytes; the largest outcome is far below.
const LINE_MAX: usize = 16 * 1024 * 1024;

/// Splits a growing stream into events.
///
/// A partial last line is buffered; lines that are not events are skipped and counted.
#[derive(Debug, Default)]
pub struct EventLines {
    pending: Vec<u8>,
    /// Whether the current line is too long and is discarded up to its end.
    dropping: bool,
    invalid_lines: u64,
}

impl EventLines {
    /// Feeds the next bytes; `each` receives every completed event with its line.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event, &str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.buffer(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.pending);
            if std::mem::take(&mut self.dropping) {
                self.invalid_lines += 1;
                continue;
            }
            let text = std::str::from_utf8(&line).unwrap_or("\u{fffd}").trim();
            if text.is_empty() {
                continue;
            }
            match serde_json::from_str::<Event>(text) {
                Ok(event) => each(event, text),
                Err(_) => self.invalid_lines += 1,
            }
        }
        self.buffer(bytes);
    }

    /// Returns the number of lines that are not events.
    #[must_use]
    pub fn invalid_lines(&self) -> u64 {
        self.invalid_lines
    }

    fn buffer(&mut self, bytes: &[u8]) {
        if self.dropping || self.pending.len() + bytes.len() > LINE_MAX {
            self.dropping = true;
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = include_str!("../../../supervisor/contract/samples/events-v1.jsonl");

    fn seqs(chunks: &[&[u8]]) -> (Vec<u64>, u64) {
        let mut lines = EventLines::default();
        let mut seqs = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |event, _| seqs.push(event.seq));
        }
        (seqs, lines.invalid_lines())
    }

    #[test]
    fn partial_last_line_waits_for_rest() {
        let bytes = SAMPLE.as_bytes();
        assert_eq!(seqs(&[&bytes[..bytes.len() - 2]]).0, [1, 2, 3, 4]);
        assert_eq!(seqs(&[&bytes[..bytes.len() - 2], &bytes[bytes.len() - 2..]]).0, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn invalid_event_lines_are_counted_as_skipped() {
        let text = format!("panic!\n\n\u{0}\n{{\"v\":1}}\n{SAMPLE}");
        assert_eq!(seqs(&[text.as_bytes()]), (vec![1, 2, 3, 4, 5], 3));
    }

    #[test]
    fn overlong_line_is_dropped_without_losing_next_line() {
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(seqs(&[&long, &long, b"\n", SAMPLE.as_bytes()]), (vec![1, 2, 3, 4, 5], 1));
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_change_events(cuts in proptest::collection::vec(0..SAMPLE.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut start = 0;
            let mut chunks = Vec::new();
            for cut in cuts {
                chunks.push(&SAMPLE.as_bytes()[start..cut]);
                start = cut;
            }
            chunks.push(&SAMPLE.as_bytes()[start..]);
            prop_assert_eq!(seqs(&chunks), (vec![1, 2, 3, 4, 5], 0));
        }
    }
}
