//! list.

use jiff::Timestamp;
use orchestrator_contract::{Phase, ServiceName, TaskId};
use serde_json::json;

use super::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::task::selection::{self, PHASES};
use crate::task::text::render_list;

/// Lists runs, the newest first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher list
  dispatcher list --service trader --phase Running,Publishing
  dispatcher list -o json")]
pub(super) struct Arguments {
    /// Of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// For this task.
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// In this phase: Pending, Preparing, Running, Publishing, Succeeded, Failed or Stopped; several
    /// with commas between them.
    #[arg(long, value_name = "PHASE", value_parser = parse_phase, value_delimiter = ',')]
    phase: Vec<Phase>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

fn parse_phase(text: &str) -> Result<Phase, String> {
    selection::parse_phase(text).ok_or_else(|| {
        let names = PHASES.map(Phase::name);
        format!("`{text}` is no phase: use one of {}", names.join(", "))
    })
}

pub(super) async fn run(session: &CliContext, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { service, task, phase, limit } = arguments;
    let filter = Filter { service: service.clone(), task: *task, phase: None };
    let mut statuses = session.dispatcher.list(&filter).await?;
    statuses.retain(|status| phase.is_empty() || phase.contains(&status.phase));
    statuses.truncate(limit.unwrap_or(usize::MAX));
    if statuses.is_empty() {
        session.output.note("there are no such runs");
    }
    session.output.result(&json!({ "runs": statuses }), || {
        if statuses.is_empty() {
            return String::new();
        }
        render_list(&statuses, Timestamp::now(), session.output.colour())
    })?;
    Ok(0)
}
