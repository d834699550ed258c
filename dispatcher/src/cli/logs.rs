//! logs.

use std::collections::VecDeque;

use jiff::{Span, Timestamp, Zoned};
use orchestrator_contract::{Event, RunName};

use super::CliContext;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::output::OutputFormat;
use crate::task::selection::{Purpose, Recency};
use crate::task::text::{render_event, sanitize};

/// Shows what a run did, as a readable log.
///
/// Times are UTC. With `-o json` each line is one event of the run as it was
/// told; `seq` in it is the cursor for --since-seq. Ends with 0 when the run
/// has ended, however it ended: `wait` tells that.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher logs -f
  dispatcher logs trader-claude-agent-1-task1-attempt1 --tail 20
  dispatcher logs -f --since 10m
  dispatcher logs --service trader -o json --since-seq 120")]
pub(super) struct Arguments {
    /// The run [default: the latest].
    run: Option<RunName>,
    #[command(flatten)]
    which: RunSelector,
    /// Go on until the run has ended.
    #[arg(short, long)]
    follow: bool,
    /// Only events after this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    since_seq: u64,
    /// Only what happened since then: a time (RFC 3339) or how long ago (10m, 2h, 1d).
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Only the last lines of what there is.
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// Reads a time, or how long ago it was.
fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago: Span = text.parse().map_err(|_| {
        format!("`{text}` is neither a time such as 2026-11-22T12:00:00Z nor a duration such as 10m or 2h")
    })?;
    // The sign makes no difference in what can be meant. Days are those of the calendar.
    let since =
        Zoned::now().checked_sub(ago.abs()).map_err(|error| format!("`{text}` is too long ago: {error}"))?;
    Ok(since.timestamp())
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { run, which, follow, since_seq, since, tail } = arguments;
    let run = which.run(session, run, Purpose::Inspect, Recency::Latest).await?;
    let wanted = |event: &Event| event.seq > since_seq && since.is_none_or(|since| event.time >= since);
    let output = &session.output;
    let raw = output.format() != OutputFormat::Table;
    // What there is already is cut to its tail before anything is shown.
    let mut from = since_seq;
    if let Some(tail) = tail {
        let mut last = VecDeque::new();
        let mut end = since_seq;
        session
            .dispatcher
            .logs(&run, false, |event, _| {
                end = end.max(event.seq);
                if wanted(event) && (raw || render_event(event, output.colour()).is_some()) {
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
    let status = session
        .dispatcher
        .logs(&run, follow, |event, line| {
            if event.seq <= from || !wanted(event) {
                return Ok(());
            }
            let shown = match output.format() {
                OutputFormat::Json => Some(line.to_owned()),
                // JSON is YAML; a stream of documents needs its separators.
                OutputFormat::Yaml => Some(format!("--- {line}")),
                OutputFormat::Table => render_event(event, output.colour()),
            };
            shown.map_or(Ok(()), |line| output.text(&format!("{line}\n")))
        })
        .await?;
    if let (Some(message), None) = (&status.message, &status.outcome) {
        output.note(&format!("{}: {}", status.phase, sanitize(message)));
    }
    Ok(0)
}
