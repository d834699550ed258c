//! `dispatcher logs`.

use std::collections::VecDeque;

use jiff::{Span, Timestamp, Zoned};
use orchestrator_contract::{Event, RunName};

use super::context::CliContext;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::operations::Filter;
use crate::output::OutputFormat;
use crate::task::advice::join_names;
use crate::task::selection::{Purpose, Recency};
use crate::task::text::{render_event, sanitize};

/// Print the log of a run
///
/// Times are UTC. With `-o json`, each line is an event of the run; its `seq` is the cursor for
/// --since-seq. Exits with 0 when the run ends; use `wait` for the run's exit code.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher logs -f
  dispatcher logs trader-claude-agent-1-task1-attempt1 --tail 20
  dispatcher logs -f --since 10m
  dispatcher logs --service trader -o json --since-seq 120")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service [default: the latest]
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Follow the log until the run ends
    #[arg(short, long)]
    follow: bool,
    /// Only print events after this sequence number
    #[arg(long, value_name = "N", default_value_t = 0)]
    since_seq: u64,
    /// Only print events since an RFC 3339 time, or a duration ago such as 10m, 2h or 1d
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Only print the last N lines of the existing log
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// Parses a time, or a duration before now.
fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago: Span = text.parse().map_err(|_| {
        format!("`{text}` is not a time such as 2026-11-22T12:00:00Z or a duration such as 10m")
    })?;
    // The sign of the duration is ignored. Days are calendar days.
    let since =
        Zoned::now().checked_sub(ago.abs()).map_err(|error| format!("`{text}` is too long ago: {error}"))?;
    Ok(since.timestamp())
}

/// Names the run whose log follows; if it was not named, also the other active ones.
async fn headline(context: &CliContext, run: &RunName, is_named: bool) -> Result<String, Error> {
    let mut others = Vec::new();
    if !is_named {
        let runs = context.dispatcher.list(&Filter::default()).await?;
        let active = runs.into_iter().filter(|status| !status.phase.is_final() && status.run != *run);
        others.extend(active.map(|status| status.run));
    }
    Ok(match others.as_slice() {
        [] => format!("log of {run}"),
        others => format!("log of {run}, the newest; also active: {}", join_names(others)),
    })
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, follow, since_seq, since, tail } = arguments;
    let is_named = run.is_some();
    let run = which.run(context, run, Purpose::Inspect, Recency::Latest).await?;
    context.output.note(&headline(context, &run, is_named).await?);
    let matches = |event: &Event| event.seq > since_seq && since.is_none_or(|since| event.time >= since);
    let output = &context.output;
    let raw = output.format() != OutputFormat::Table;
    // Cut the existing log to its tail before printing anything.
    let mut from = since_seq;
    if let Some(tail) = tail {
        let mut last = VecDeque::new();
        let mut end = since_seq;
        context
            .dispatcher
            .logs(&run, false, |event, _| {
                end = end.max(event.seq);
                if matches(event) && (raw || render_event(event, output.color()).is_some()) {
                    last.push_back(event.seq);
                    if last.len() > tail {
                        last.pop_front();
                    }
                }
                Ok(())
            })
            .await?;
        from = last.front().map_or(end, |seq| seq.saturating_sub(1));
    }
    let status = context
        .dispatcher
        .logs(&run, follow, |event, line| {
            if event.seq <= from || !matches(event) {
                return Ok(());
            }
            let text = match output.format() {
                OutputFormat::Json => Some(line.to_owned()),
                // JSON is YAML; a stream of documents needs its separators.
                OutputFormat::Yaml => Some(format!("--- {line}")),
                OutputFormat::Table => render_event(event, output.color()),
            };
            text.map_or(Ok(()), |line| output.text(&format!("{line}\n")))
        })
        .await?;
    if let (Some(message), None) = (&status.message, &status.outcome) {
        output.note(&format!("{}: {}", status.phase, sanitize(message)));
    }
    Ok(0)
}
