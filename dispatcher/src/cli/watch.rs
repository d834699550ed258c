//! `dispatcher watch`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, ServiceName, TaskId};

use super::context::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::output::OutputFormat;
use crate::task::run_table::render_table;
use crate::task::service_name;
use crate::task::status::Status;
use crate::task::text::render_change;

/// Time between two looks at the runs.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs to show, if the terminal is high enough.
const SHOWN_RUNS: usize = 20;

/// Lines of the terminal if it does not report them.
const DEFAULT_HEIGHT: usize = 24;

/// Watch all runs live, until Ctrl-C
///
/// On a terminal, shows the newest runs as a table. Elsewhere, prints a line for each change of phase or
/// step, with `-o json` the status, and ends when no run is active.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher watch
  dispatcher watch --service trader
  dispatcher watch | tee runs.log")]
pub(super) struct Arguments {
    /// Filter by service
    #[arg(long, value_name = "NAME", value_parser = service_name::parse_argument)]
    service: Option<ServiceName>,
    /// Filter by task ID
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { service, task } = arguments;
    watch(context, &Filter { service, task, phase: None }).await
}

/// Shows matching runs until Ctrl-C, which is the normal end.
pub(super) async fn watch(context: &CliContext, filter: &Filter) -> Result<u8, Error> {
    tokio::select! {
        // Handle Ctrl-C before anything is printed.
        biased;
        interrupt = tokio::signal::ctrl_c() => match interrupt {
            Ok(()) => Ok(0),
            Err(error) => Err(Error::new(Reason::IoError, format!("cannot wait for Ctrl-C: {error}"))),
        },
        result = refresh(context, filter) => result.map(|()| 0),
    }
}

async fn refresh(context: &CliContext, filter: &Filter) -> Result<(), Error> {
    let is_live = context.output.is_on_terminal() && context.output.format() == OutputFormat::Table;
    let mut screen = Screen::default();
    let mut seen = BTreeMap::new();
    loop {
        let runs = context.dispatcher.list(filter).await?;
        if is_live {
            screen.show(context, &runs)?;
        } else {
            print_changes(context, &runs, &mut seen)?;
            if runs.iter().all(|status| status.phase.is_final()) {
                return Ok(());
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The table on the terminal, drawn over the earlier one.
#[derive(Debug, Default)]
struct Screen {
    /// Lines of the last table.
    lines: usize,
}

impl Screen {
    fn show(&mut self, context: &CliContext, runs: &[Status]) -> Result<(), Error> {
        let shown = runs.get(..SHOWN_RUNS.min(runs.len())).unwrap_or_default();
        let style = context.output.table_style();
        let table = if shown.is_empty() {
            "no runs found; a new one appears here\n".to_owned()
        } else {
            render_table(shown, &[], Timestamp::now(), style)
        };
        // What scrolls off the screen cannot be drawn over.
        let height = context.output.height().unwrap_or(DEFAULT_HEIGHT).saturating_sub(1).max(1);
        // A line that wraps would take two lines of the screen.
        let width = style.width.unwrap_or(usize::MAX);
        let lines: Vec<Cow<'_, str>> =
            table.lines().take(height).map(|line| console::truncate_str(line, width, "…")).collect();
        let text = redraw(&lines, self.lines);
        self.lines = lines.len();
        context.output.text(&text)
    }
}

/// Returns the lines, preceded by what moves the cursor to the first of `earlier` lines.
fn redraw(lines: &[Cow<'_, str>], earlier: usize) -> String {
    let up = if earlier > 0 { format!("\u{1b}[{earlier}A") } else { String::new() };
    // Clears the rest of each line, and after the last one the rest of the screen.
    let lines: String = lines.iter().map(|line| format!("{line}\u{1b}[K\n")).collect();
    format!("{up}{lines}\u{1b}[J")
}

/// Prints the runs that have another phase or step than before; at first, the active ones.
fn print_changes(
    context: &CliContext,
    runs: &[Status],
    seen: &mut BTreeMap<RunName, String>,
) -> Result<(), Error> {
    let is_first = seen.is_empty();
    // The oldest change first.
    for status in runs.iter().rev() {
        let state = format!("{} {:?} {:?}", status.phase, status.step, status.waiting_for);
        let earlier = seen.insert(status.run.clone(), state.clone());
        if earlier.as_ref() == Some(&state) || (is_first && status.phase.is_final()) {
            continue;
        }
        match context.output.format() {
            OutputFormat::Table => context.output.text(&format!("{}\n", render_change(status)))?,
            OutputFormat::Json => context.output.json_line(status)?,
            OutputFormat::Yaml => context.output.result(status, String::new)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_drawn_over_earlier_one() {
        assert_eq!(redraw(&["a", "b"].map(Cow::from), 0), "a\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(redraw(&["a"].map(Cow::from), 2), "\u{1b}[2Aa\u{1b}[K\n\u{1b}[J");
    }
}
