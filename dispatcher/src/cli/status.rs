//! status.

use jiff::Timestamp;
use orchestrator_contract::{RunName, ServiceName, TaskId};
use serde_json::json;

use super::CliContext;
use crate::error::Error;
use crate::operations::{Filter, StatusMatch};
use crate::task::text::{render_list, render_status};

/// Says where a run stands.
///
/// Without a name: the one that is at work, else the latest. If several are at
/// work, they are listed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher status
  dispatcher status --service trader --task 1
  dispatcher status trader-claude-agent-1-task1-attempt1 -o json")]
pub(super) struct Arguments {
    /// The run.
    run: Option<RunName>,
    /// Of this service.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    service: Option<ServiceName>,
    /// For this task.
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
}

pub(super) async fn run(session: &CliContext, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { run, service, task } = arguments;
    let filter = Filter { service: service.clone(), task: *task, phase: None };
    let (now, colour) = (Timestamp::now(), session.output.colour());
    match session.dispatcher.status(run.as_ref(), &filter).await? {
        StatusMatch::One(status) => session.output.result(&status, || render_status(&status, now, colour))?,
        StatusMatch::Ambiguous(statuses) => {
            session.output.result(&json!({ "runs": statuses }), || render_list(&statuses, now, colour))?;
            session.output.note("several runs are at work; name one to see more of it");
        }
    }
    Ok(0)
}
