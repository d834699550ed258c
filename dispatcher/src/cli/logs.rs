//! logs.

use std::collections::VecDeque;

use orchestrator_contract::{RunName, ServiceName, TaskId};

use super::Session;
use crate::output::Format;
use crate::problem::Problem;
use crate::task::text::{plain, render_event};
use crate::verbs::Filter;

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
  dispatcher logs --service trader -o json --since-seq 120")]
pub(super) struct Arguments {
    /// The run [default: the latest].
    run: Option<RunName>,
    /// The latest of this service.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    service: Option<ServiceName>,
    /// The latest for this task.
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
    /// Go on until the run has ended.
    #[arg(short, long)]
    follow: bool,
    /// Only events after this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    since_seq: u64,
    /// Only the last lines of what there is.
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

pub(super) async fn run(session: &Session, arguments: Arguments) -> Result<u8, Problem> {
    let Arguments { run, service, task, follow, since_seq, tail } = arguments;
    let run = match run {
        Some(run) => run,
        None => session.dispatcher.latest(&Filter { service, task, phase: None }).await?,
    };
    let output = &session.output;
    let raw = output.format() != Format::Table;
    // What there is already is cut to its tail before anything is shown.
    let mut from = since_seq;
    if let Some(tail) = tail {
        let mut last = VecDeque::new();
        let mut end = since_seq;
        session
            .dispatcher
            .logs(&run, false, |event, _| {
                end = end.max(event.seq);
                if event.seq > since_seq && (raw || render_event(event, output.colour()).is_some()) {
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
            if event.seq <= from {
                return Ok(());
            }

            let shown = match output.format() {
                Format::Json => Some(line.to_owned()),
                // JSON is YAML; a stream of documents needs its separators.
                Format::Yaml => Some(format!("--- {line}")),
                Format::Table => render_event(event, output.colour()),
            };
            shown.map_or(Ok(()), |line| output.text(&format!("{line}\n")))
        })
        .await?;
    if let (Some(message), None) = (&status.message, &status.outcome) {
        output.remark(&format!("{}: {}", status.phase, plain(message)));
    }
    Ok(0)
}
