//! `dispatcher status`.

use jiff::Timestamp;
use orchestrator_contract::{RunName, TaskId};
use serde_json::json;

use super::context::CliContext;
use super::run_selector::RunSelector;
use crate::error::Error;
use crate::operations::StatusMatch;
use crate::task::run_table::render_table;
use crate::task::selection::{Purpose, Recency};
use crate::task::text::render_status;

/// Show the status of a run
///
/// Without a run name: the active run, else the latest. Lists the runs if several are active.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher status
  dispatcher status --service trader --task 1
  dispatcher status trader-claude-agent-1-task1-attempt1 -o json")]
pub(super) struct Arguments {
    /// Run name, or latest, current, task3 or a service
    run: Option<RunName>,
    /// Filter by service
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    service: Option<String>,
    /// Filter by task ID
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
}

pub(super) async fn run(context: &CliContext, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { run, service, task } = arguments;
    let filter = context.filter(service.as_deref(), *task).await?;
    let (now, color) = (Timestamp::now(), context.output.color());
    let run = match run {
        Some(run) => {
            let words = Some(run.clone());
            Some(RunSelector::default().run(context, words, Purpose::Inspect, Recency::Any).await?)
        }
        None => None,
    };
    match context.dispatcher.status(run.as_ref(), &filter).await? {
        StatusMatch::One(status) => context.output.result(&status, || render_status(&status, now, color))?,
        StatusMatch::Ambiguous(statuses) => {
            let style = context.output.table_style();
            context
                .output
                .result(&json!({ "runs": statuses }), || render_table(&statuses, &[], now, style))?;
            context.output.note("several runs are active; name one for its details");
        }
    }
    Ok(0)
}
