//! Limits of what is read from task files, and of what is repeated from them.

use std::io;

/// Maximum notes of one kind.
const MAX_NOTES: usize = 5;

/// Maximum characters of an id, a name or a fault that a file contains.
const MAX_CHARS: usize = 100;

/// Maximum size of a file that is read.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// A file is larger than [`MAX_FILE_BYTES`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it has {size} bytes, more than {MAX_FILE_BYTES}")]
pub struct TooLarge {
    pub size: usize,
}

impl From<TooLarge> for io::Error {
    fn from(error: TooLarge) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

/// Notes of one kind: the first ones, and how many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    first: Vec<String>,
    count: usize,
}

impl Notes {
    pub(crate) fn push(&mut self, note: impl FnOnce() -> String) {
        if self.first.len() < MAX_NOTES {
            self.first.push(note());
        }
        self.count += 1;
    }

    /// Returns the notes; `summarize` describes how many more there are.
    pub(crate) fn finish(self, summarize: impl FnOnce(usize) -> String) -> Vec<String> {
        let more = self.count.saturating_sub(self.first.len());
        let mut notes = self.first;
        notes.extend((more > 0).then(|| summarize(more)));
        notes
    }
}

/// Returns the start of a text that a file contains.
pub(crate) fn shorten(text: &str) -> String {
    let short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}
