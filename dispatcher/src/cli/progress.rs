//! What is shown while a run is waited for.

use indicatif::{ProgressBar, ProgressStyle};

use super::CliContext;
use crate::output::Output;
use crate::task::status::Status;
use crate::task::text::render_progress;

/// A spinner on a terminal; elsewhere a line whenever the step changes.
pub(super) struct Progress<'a> {
    output: &'a Output,
    spinner: Option<ProgressBar>,
    last: String,
}

impl<'a> Progress<'a> {
    pub(super) fn new(session: &'a CliContext) -> Self {
        let spinner = session.output.is_interactive().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                spinner.set_style(style);
            }
            spinner
        });
        Self { output: &session.output, spinner, last: String::new() }
    }

    pub(super) fn show(&mut self, status: &Status) {
        let line = render_progress(status);
        if let Some(spinner) = &self.spinner {
            spinner.set_message(line);
            spinner.tick();
            return;
        }
        // Each turn would be a flood: phase, step and queue are what matters in a file.
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
