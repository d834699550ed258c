//! Paths that a save skipped, as people read them. Pure.

/// Maximum paths to list.
const MAX_LISTED: usize = 20;

/// Maximum length of a path or cause, in characters.
const MAX_TEXT: usize = 200;

/// Why a snapshot leaves out entries without content: nothing of them can be kept.
const WITHOUT_CONTENT: [&str; 3] = ["is a named pipe", "is a socket", "is a device"];

/// Paths of a worktree that could not be saved.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnsavedPaths {
    count: usize,
    /// Whether one of them has content that only the worktree has.
    has_content: bool,
    /// The first paths with their causes.
    listed: Vec<String>,
}

impl UnsavedPaths {
    /// Records a path and why it could not be saved: the rest of a sentence that begins with the path.
    pub fn record(&mut self, path: &[u8], why: &str) {
        self.count += 1;
        self.has_content |= !WITHOUT_CONTENT.contains(&why);
        if self.listed.len() < MAX_LISTED {
            self.listed.push(format!("`{}` {}", printable(path), printable(why.as_bytes())));
        }
    }

    /// Returns whether the worktree has content that could not be saved.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Returns the number of paths and the first ones, or `None` if everything was saved.
    ///
    /// `1 file could not be saved: ...`; a directory counts as one.
    #[must_use]
    pub fn summary(&self, max_listed: usize) -> Option<String> {
        let listed = &self.listed[..self.listed.len().min(max_listed)];
        let noun = match self.count {
            0 => return None,
            1 => "file",
            _ => "files",
        };
        let more = match self.count - listed.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("{} {noun} could not be saved: {}{more}", self.count, listed.join(", ")))
    }
}

/// Returns a bounded text without control characters; other bytes than UTF-8 are escaped.
fn printable(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => bytes.escape_ascii().to_string(),
    };
    let mut characters = text.chars();
    let mut short: String =
        characters.by_ref().take(MAX_TEXT).map(|c| if c == '`' { '\'' } else { c }).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_counts_all_paths_but_lists_first() {
        let mut unsaved = UnsavedPaths::default();
        assert_eq!(unsaved.summary(3), None);
        unsaved.record(b"run/socket", "is a socket");
        assert_eq!(unsaved.summary(3).unwrap(), "1 file could not be saved: `run/socket` is a socket");
        assert!(!unsaved.has_content());
        for number in 0..1000 {
            unsaved.record(format!("f{number}").as_bytes(), "cannot be read");
        }
        let text = unsaved.summary(2).unwrap();
        assert!(unsaved.has_content());
        assert!(text.starts_with("1001 files could not be saved: `run/socket` is a socket, "), "{text}");
        assert!(text.ends_with("`f0` cannot be read and 999 more"), "{text}");
        assert!(unsaved.summary(100).unwrap().ends_with(" and 981 more"));
    }

    #[test]
    fn paths_of_enemy_are_bounded_and_printable() {
        let mut unsaved = UnsavedPaths::default();
        unsaved.record(b"caf\xe9/\x1b[2J`@team`", "it says\n{\"reason\":\"Completed\"}");
        for _ in 0..50 {
            unsaved.record(&[b'x'; 100_000], &"y".repeat(100_000));
        }
        let text = unsaved.summary(usize::MAX).unwrap();
        assert!(text.len() < 20_000, "{}", text.len());
        assert!(!text.contains(char::is_control) && !text.contains("`@team`"), "{text}");
        assert!(text.contains("caf\\xe9"), "{text}");
    }
}
