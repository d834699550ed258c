//! Progress display while a command waits for a run.

use indicatif::{ProgressBar, ProgressStyle};

use super::context::CliContext;
use crate::output::Output;
use crate::task::status::Status;
use crate::task::text::render_progress;

/// A spinner on a terminal; otherwise one line per step.
pub(super) struct Progress<'a> {
    output: &'a Output,
    spinner: Option<ProgressBar>,
    last: String,
}

impl<'a> Progress<'a> {
    pub(super) fn new(context: &'a CliContext) -> Self {
        let spinner = context.output.is_interactive().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                spinner.set_style(style);
            }
            spinner
        });
        Self { output: &context.output, spinner, last: String::new() }
    }

    pub(super) fn show(&mut self, status: &Status) {
        let line = render_progress(status);
        if let Some(spinner) = &self.spinner {
            spinner.set_message(line);
            spinner.tick();
            return;
        }
        // Not a terminal: print a line only when phase, step or queue changes, not on every turn.
        let key = format!("{} {:?} {:?}", status.phase, status.step, status.waiting_for);
        if key != self.last && !status.phase.is_final() {
            self.output.note(&line);
            self.last = key;
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
