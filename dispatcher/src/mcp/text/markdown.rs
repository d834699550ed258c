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

/// Returns text of an agent or server in one line, cut after `max_chars`.
pub(super) fn short(text: &str, max_chars: usize) -> String {
    let text = sanitize(text);
    let cut: String = text.chars().take(max_chars).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
