//! Runs as a table that fits the width of a terminal, without cutting a word. Pure.
//!
//! A wide table has one line per run. A narrow one has the title and the detail of a run on lines of their
//! own, so that the run's name stays whole: users copy it.

use std::collections::BTreeMap;

use console::measure_text_width as width_of;
use jiff::Timestamp;
use orchestrator_contract::{Kind, Phase, ServiceName, TaskId, figures};

use super::status::{DamagedRun, Status};
use super::text::{ColorChoice, age, colorize, paint_phase, sanitize};
use super::word_wrap::{break_name, fit, pad, wrap};

/// How to render a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableStyle {
    /// Columns of the terminal; none for a file or a pipe, whose lines may have any length.
    pub width: Option<usize>,
    pub color: ColorChoice,
}

/// Spaces between two columns.
const GAP: usize = 2;

/// Minimum columns for title and detail together on the line of a run.
const MIN_TEXT_WIDTH: usize = 56;

/// Maximum lines of a run's detail below its line.
const MAX_DETAIL_LINES: usize = 3;

/// The columns before title and detail.
const HEADER: [&str; 7] = ["RUN", "TASK", "PHASE", "STEP", "AGE", "TURNS", "COST"];

const RUN: usize = 0;
const PHASE: usize = 2;
const STEP: usize = 3;

/// Titles by service and task.
type Titles<'a> = BTreeMap<(&'a ServiceName, Option<TaskId>), &'a str>;

/// Cells of a run.
struct Row {
    cells: [String; 7],
    /// None for the header and a damaged record.
    phase: Option<Phase>,
    title: String,
    detail: String,
    /// A detail for less space, without its meaning cut.
    short_detail: Option<String>,
}

/// What to do about damaged records.
const DAMAGED_HINT: &str = "hint: see \"Retention\" in docs/operations.md\n";

/// Renders runs and damaged records.
#[must_use]
pub fn render_table(runs: &[Status], damaged: &[DamagedRun], now: Timestamp, style: TableStyle) -> String {
    let hint = if damaged.is_empty() { "" } else { DAMAGED_HINT };
    render_rows(runs, damaged, now, style) + hint
}

fn render_rows(runs: &[Status], damaged: &[DamagedRun], now: Timestamp, style: TableStyle) -> String {
    let titles = titles(runs);
    let rows: Vec<Row> = runs
        .iter()
        .map(|status| run_row(status, &titles, now))
        .chain(damaged.iter().map(damaged_row))
        .collect();
    let mut widths = HEADER.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(width_of(cell));
        }
    }
    let all: Vec<usize> = (0..HEADER.len()).collect();
    let without_step: Vec<usize> = all.iter().copied().filter(|column| *column != STEP).collect();
    let Some(width) = style.width else {
        return Wide { widths, columns: all, text: None, style }.render(&rows);
    };
    for columns in [all, without_step] {
        let used: usize =
            columns.iter().filter_map(|column| widths.get(*column)).map(|width| width + GAP).sum();
        if let Some(text) = width.checked_sub(used).filter(|text| *text >= MIN_TEXT_WIDTH) {
            return Wide { widths, columns, text: Some(text), style }.render(&rows);
        }
    }
    Narrow { widths, width, style }.render(&rows)
}

/// Returns the known titles: an active run has none yet, but an earlier attempt may.
fn titles(runs: &[Status]) -> Titles<'_> {
    // The newest run comes first and is inserted last.
    runs.iter().rev().filter_map(title_of).collect()
}

fn title_of(status: &Status) -> Option<((&ServiceName, Option<TaskId>), &str)> {
    let title = status.task_title.as_deref().filter(|_| status.task_id.is_some())?;
    Some(((&status.service, status.task_id), title))
}

fn run_row(status: &Status, titles: &Titles<'_>, now: Timestamp) -> Row {
    let title = match (status.kind, status.task_id) {
        (_, None) => "documents of all tasks".to_owned(),
        (kind, Some(_)) => {
            let key = (&status.service, status.task_id);
            let known = titles.get(&key).map(|title| sanitize(title)).unwrap_or_default();
            if kind == Kind::Docs { format!("documents: {known}") } else { known }
        }
    };
    let (detail, short_detail) = detail(status);
    Row {
        cells: [
            status.run.to_string(),
            status.task_id.map_or("all".to_owned(), |task| task.to_string()),
            status.phase.to_string(),
            status.step.map_or(String::new(), |step| step.to_string()),
            age(status.submitted_at, now),
            status.turns.to_string(),
            figures::cost(status.cost_usd),
        ],
        phase: Some(status.phase),
        title: title.trim_end_matches(": ").to_owned(),
        detail,
        short_detail,
    }
}

/// Returns what matters most about a run, and a shorter form.
///
/// The reason of a failure comes first: a failed retry still has the pull request of an earlier attempt.
fn detail(status: &Status) -> (String, Option<String>) {
    let cause = status.cause().map(sanitize).unwrap_or_default();
    match (status.phase, status.reason) {
        (Phase::Failed | Phase::Stopped, Some(reason)) => {
            let text = if cause.is_empty() { reason.to_string() } else { format!("{reason}: {cause}") };
            (text, None)
        }
        (Phase::Succeeded, _) => match &status.pull_request {
            Some(url) => (sanitize(url), pull_request_number(url)),
            None => (cause, None),
        },
        (Phase::Pending | Phase::Preparing | Phase::Running | Phase::Publishing, _)
        | (Phase::Failed | Phase::Stopped, None) => match (&status.waiting_for, &status.activity) {
            (Some(waiting_for), _) => (format!("waiting for {}", sanitize(waiting_for)), None),
            (None, Some(activity)) => (sanitize(activity), None),
            (None, None) => (String::new(), None),
        },
    }
}

/// Returns `pull request #7` for a URL that ends in its number.
fn pull_request_number(url: &str) -> Option<String> {
    let number: u64 = url.rsplit('/').next()?.parse().ok()?;
    Some(format!("pull request #{number}"))
}

fn damaged_row(damaged: &DamagedRun) -> Row {
    let empty = String::new;
    Row {
        cells: [sanitize(&damaged.run), empty(), "damaged".to_owned(), empty(), empty(), empty(), empty()],
        phase: None,
        title: String::new(),
        detail: sanitize(&damaged.problem),
        short_detail: None,
    }
}

impl Row {
    /// Returns a cell, padded to `width` and colored.
    fn cell(&self, column: usize, width: usize, color: ColorChoice) -> String {
        let text = self.cells.get(column).map(String::as_str).unwrap_or_default();
        let padded = pad(text, width);
        match (column, self.phase) {
            (PHASE, Some(phase)) => paint_phase(phase, &padded, color),
            (PHASE, None) => colorize(&padded, "31", color),
            _ => padded,
        }
    }
}

/// One line per run.
struct Wide {
    widths: [usize; 7],
    columns: Vec<usize>,
    /// Width of title and detail together; any without it.
    text: Option<usize>,
    style: TableStyle,
}

impl Wide {
    fn render(&self, rows: &[Row]) -> String {
        let longest = |text: fn(&Row) -> &String| rows.iter().map(|row| width_of(text(row))).max();
        let title = longest(|row| &row.title).unwrap_or_default().max("TITLE".len());
        let detail = longest(|row| &row.detail).unwrap_or_default().max("DETAIL".len());
        let (title, detail) = match self.text {
            None => (title, detail),
            Some(text) => {
                let text = text - GAP;
                let title = title.min(text.saturating_sub(detail).max(text * 2 / 5));
                (title, text - title)
            }
        };
        let header = self
            .columns
            .iter()
            .filter_map(|column| Some(pad(HEADER.get(*column)?, *self.widths.get(*column)?)));
        let header: Vec<String> = header.chain([pad("TITLE", title), "DETAIL".to_owned()]).collect();
        let mut text = colorize(&join(&header), "2", self.style.color) + "\n";
        for row in rows {
            let cells = self.columns.iter().map(|column| {
                let width = self.widths.get(*column).copied().unwrap_or_default();
                row.cell(*column, width, self.style.color)
            });
            let short = row.short_detail.as_ref().filter(|_| width_of(&row.detail) > detail);
            let last = [pad(&fit(&row.title, title), title), fit(short.unwrap_or(&row.detail), detail)];
            let cells: Vec<String> = cells.chain(last).collect();
            text.push_str(join(&cells).trim_end());
            text.push('\n');
        }
        text
    }
}

/// A line per run, and its title and detail on lines below.
struct Narrow {
    widths: [usize; 7],
    width: usize,
    style: TableStyle,
}

impl Narrow {
    /// The columns in the order of their importance, after the run's name.
    const COLUMNS: [usize; 4] = [PHASE, 4, 6, 5];

    fn render(&self, rows: &[Row]) -> String {
        let run_width = self.widths.get(RUN).copied().unwrap_or_default();
        let width_of_column = |column: usize| self.widths.get(column).copied().unwrap_or_default();
        // A name that leaves no space for the phase has lines of its own.
        let own_line = run_width + GAP + width_of_column(PHASE) > self.width;
        let mut used = if own_line { 0 } else { run_width };
        let fits = |column: &usize| {
            used += GAP + width_of_column(*column);
            used <= self.width
        };
        let columns: Vec<usize> = Self::COLUMNS.into_iter().take_while(fits).collect();
        let indent = " ".repeat(GAP);
        let head = |name: &str, cells: Vec<String>| {
            let cells = join(&cells);
            if own_line {
                let name = break_name(name, self.width).join("\n");
                format!("{name}\n{indent}{}\n", cells.trim_end())
            } else {
                format!("{}{indent}{}\n", pad(name, run_width), cells.trim_end())
            }
        };
        let header =
            columns.iter().filter_map(|column| Some(pad(HEADER.get(*column)?, width_of_column(*column))));
        let header = head("RUN", header.collect()) + &indent + "TITLE, DETAIL";
        let mut text: String =
            header.lines().map(|line| colorize(line, "2", self.style.color) + "\n").collect();
        for row in rows {
            let cells =
                columns.iter().map(|column| row.cell(*column, width_of_column(*column), self.style.color));
            let name = row.cells.first().map(String::as_str).unwrap_or_default();
            text.push_str(&head(name, cells.collect()));
            let available = self.width.saturating_sub(GAP);
            let short = row.short_detail.as_ref().filter(|_| width_of(&row.detail) > available);
            let title = Some(fit(&row.title, available)).filter(|title| !title.is_empty());
            let detail = wrap(short.unwrap_or(&row.detail), available, MAX_DETAIL_LINES);
            for line in title.into_iter().chain(detail) {
                text.push_str(&indent);
                text.push_str(&line);
                text.push('\n');
            }
        }
        text
    }
}

fn join(cells: &[String]) -> String {
    cells.join(&" ".repeat(GAP))
}

#[cfg(test)]
mod tests;
