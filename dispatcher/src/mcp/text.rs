//! The text half of what the tools answer: all that a model sees. Pure.

mod log;
mod status;
mod submission;

pub use log::{LogPage, LogRange, paginate, render_log};
pub use status::{candidates, render_list, render_run, render_stop, render_wait};
pub use submission::{PriorRuns, render_submission};

use crate::task::text::sanitize;

/// A Markdown list of names and values.
#[derive(Debug, Default)]
struct Fields(String);

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push_str("- **");
        self.0.push_str(name);
        self.0.push_str("**: ");
        self.0.push_str(value);
        self.0.push('\n');
    }
}

/// Text of an agent or server in one line, and not too much of it.
fn short(text: &str, limit: usize) -> String {
    let text = sanitize(text);
    let cut: String = text.chars().take(limit).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
