//! Markdown helpers.

use crate::task::text::sanitize;

/// A Markdown list of names and values.
#[derive(Debug, Default)]
pub(super) struct Fields(String);

impl Fields {
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0.push_str("- **");
        self.0.push_str(name);
        self.0.push_str("**: ");
        self.0.push_str(value);
        self.0.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Returns a fence that the text does not contain.
pub(super) fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    "`".repeat((longest + 1).max(4))
}

/// Returns text of an agent or server in one line, cut after `max_chars`, without HTML and images.
pub(super) fn short(text: &str, max_chars: usize) -> String {
    let text = sanitize(text);
    let cut: String = text.chars().take(max_chars).collect();
    let mark = if cut.len() < text.len() { "…" } else { "" };
    let mut inert = String::with_capacity(cut.len());
    let mut rest = cut.chars().peekable();
    while let Some(c) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        match (c, next) {
            ('<', '!' | '/' | '?' | 'a'..='z' | 'A'..='Z') => inert.push_str("&lt;"),
            // Clients would load an image, and tell its server so.
            ('!', '[') => inert.push_str("!\\"),
            (other, _) => inert.push(other),
        }
    }
    inert + mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_and_images_of_agent_are_inert() {
        for (text, expected) in [
            ("<img src=x> 1 < 2 <!-- x -->", "&lt;img src=x> 1 < 2 &lt;!-- x -->"),
            ("![x](https://x.example)", "!\\[x](https://x.example)"),
            ("a\u{1b}[2J\u{202e}b\nc", "a\u{fffd}[2J\u{fffd}b c"),
        ] {
            assert_eq!(short(text, 100), expected);
        }
        assert_eq!(short("abcdef", 3), "abc…");
    }
}
