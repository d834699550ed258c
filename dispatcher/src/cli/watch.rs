//! `dispatcher watch`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, TaskId};

use super::context::CliContext;
use crate::error::Error;
use crate::operations::{Filter, WatchedRuns};
use crate::output::OutputFormat;
use crate::task::run_table::render_table;
use crate::task::status::Status;
use crate::task::text::{render_change, sanitize};

/// Time between two looks at the runs.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long to try again while the runs cannot be read.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(60);

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
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Filter by task ID
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { service, task } = arguments;
    watch(context, &context.filter(service.as_deref(), task).await?).await
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
    let mut watched = WatchedRuns::default();
    let mut failures = Failures::default();
    let mut runs = Vec::new();
    loop {
        let problem = match context.dispatcher.refresh(&mut watched, filter).await {
            Ok(fresh) => {
                runs = fresh;
                failures = Failures { is_connected: true, ..Failures::default() };
                None
            }
            Err(error) => Some(failures.tolerate(error, Instant::now())?),
        };
        if is_live {
            screen.show(context, &runs, problem.as_deref())?;
        } else if let Some(problem) = problem {
            context.output.note(&problem);
        } else {
            print_changes(context, &runs, &mut seen)?;
            if runs.iter().all(|status| status.phase.is_final()) {
                return Ok(());
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Failed looks at the runs since the last successful one.
#[derive(Debug, Default)]
struct Failures {
    /// Whether the runs could ever be read.
    is_connected: bool,
    since: Option<Instant>,
}

impl Failures {
    /// Returns the note on an error; returns the error if it lasts too long, or if nothing worked before.
    fn tolerate(&mut self, error: Error, now: Instant) -> Result<String, Error> {
        let since = *self.since.get_or_insert(now);
        if !self.is_connected || now.duration_since(since) >= FAILURE_TIMEOUT {
            return Err(error);
        }
        Ok(format!("cannot read the runs, trying again: {error}"))
    }
}

/// The table on the terminal, drawn over the earlier one.
#[derive(Debug, Default)]
struct Screen {
    /// Lines of the last table.
    lines: usize,
}

impl Screen {
    /// Shows the runs, below a problem with reading them.
    fn show(&mut self, context: &CliContext, runs: &[Status], problem: Option<&str>) -> Result<(), Error> {
        let shown = runs.get(..SHOWN_RUNS.min(runs.len())).unwrap_or_default();
        let style = context.output.table_style();
        let table = if shown.is_empty() {
            "no runs found; a new one appears here\n".to_owned()
        } else {
            render_table(shown, &[], Timestamp::now(), style)
        };
        let table = problem.map(|text| format!("{}\n", sanitize(text))).unwrap_or_default() + &table;
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
    fn failed_refresh_is_tolerated_for_a_minute() {
        let error = || Error::new(Reason::RemoteUnavailable, "no connection");
        let start = Instant::now();
        assert!(Failures::default().tolerate(error(), start).is_err(), "nothing worked before");
        let mut failures = Failures { is_connected: true, since: None };
        for seconds in [0, 2, 59] {
            let note = failures.tolerate(error(), start + Duration::from_secs(seconds)).unwrap();
            assert_eq!(note, "cannot read the runs, trying again: no connection");
        }
        let last = failures.tolerate(error(), start + FAILURE_TIMEOUT).unwrap_err();
        assert_eq!(last.message(), "no connection");
    }

    #[test]
    fn table_is_drawn_over_earlier_one() {
        assert_eq!(redraw(&["a", "b"].map(Cow::from), 0), "a\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(redraw(&["a"].map(Cow::from), 2), "\u{1b}[2Aa\u{1b}[K\n\u{1b}[J");
    }
}
