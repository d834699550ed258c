//! `dispatcher list`.

use jiff::Timestamp;
use orchestrator_contract::{Phase, ServiceName, TaskId};
use serde_json::json;

use super::context::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::task::selection::{self, PHASES};
use crate::task::text::render_list;

/// List runs, newest first
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher list
  dispatcher list --service trader --phase Running,Publishing
  dispatcher list -o json")]
pub(super) struct Arguments {
    /// Filter by service
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Filter by task ID
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Filter by phase, comma-separated
    ///
    /// Phases: Pending, Preparing, Running, Publishing, Succeeded, Failed, Stopped.
    #[arg(long, value_name = "PHASE", value_parser = parse_phase, value_delimiter = ',')]
    phase: Vec<Phase>,
    /// Maximum number of runs
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

fn parse_phase(text: &str) -> Result<Phase, String> {
    selection::parse_phase(text).ok_or_else(|| {
        let names = PHASES.map(Phase::name);
        format!("unknown phase `{text}`: use one of {}", names.join(", "))
    })
}

pub(super) async fn run(context: &CliContext, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { service, task, phase, limit } = arguments;
    let filter = Filter { service: service.clone(), task: *task, phase: None };
    let mut statuses = context.dispatcher.list(&filter).await?;
    statuses.retain(|status| phase.is_empty() || phase.contains(&status.phase));
    statuses.truncate(limit.unwrap_or(usize::MAX));
    if statuses.is_empty() {
        context.output.note("no runs found");
    }
    context.output.result(&json!({ "runs": statuses }), || {
        if statuses.is_empty() {
            return String::new();
        }
        render_list(&statuses, Timestamp::now(), context.output.color())
    })?;
    Ok(0)
}
