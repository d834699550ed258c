//! `dispatcher cost`.

use clap::ValueEnum;
use orchestrator_contract::TaskId;

use super::context::CliContext;
use crate::error::Error;
use crate::task::cost::{CostKey, Costs};

/// Show what the runs cost
///
/// Sums the recorded runs; `dispatcher gc` removes the records of old ones. Costs are in US dollars.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher cost
  dispatcher cost --by day
  dispatcher cost --by model --service trader -o json")]
pub(super) struct Arguments {
    /// Key to sum by
    #[arg(long, value_enum, value_name = "KEY", default_value_t = SumBy::Service)]
    by: SumBy,
    /// Filter by service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Filter by task ID
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SumBy {
    /// Day of submission, in UTC
    Day,
    /// Service
    Service,
    /// Model, of finished runs
    Model,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { by, service, task } = arguments;
    let by = match by {
        SumBy::Day => CostKey::Day,
        SumBy::Service => CostKey::Service,
        SumBy::Model => CostKey::Model,
    };
    let runs = context.dispatcher.list(&context.filter(service.as_deref(), task).await?).await?;
    let costs = Costs::sum(&runs, by);
    context.output.result(&costs, || costs.render(context.output.table_style()))?;
    Ok(0)
}
