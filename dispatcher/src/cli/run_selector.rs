//! Arguments that select a run, for commands on a single run.

use orchestrator_contract::{RunName, ServiceName, TaskId};

use super::context::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::task::selection::{Purpose, Recency, RunQuery, Selection, select};
use crate::task::service_name;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunSelector {
    /// Filter by service
    #[arg(long, value_name = "NAME", conflicts_with = "run", value_parser = service_name::parse_argument)]
    service: Option<ServiceName>,
    /// Filter by task ID
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
}

impl RunSelector {
    /// Returns the named run, else the only one that matches.
    pub(super) async fn run(
        self,
        context: &CliContext,
        name: Option<RunName>,
        purpose: Purpose,
        recency: Recency,
    ) -> Result<RunName, Error> {
        if let Some(name) = name {
            return Ok(name);
        }
        let Self { service, task } = self;
        let all = context.dispatcher.list(&Filter::default()).await?;
        let query = RunQuery { service, task, recency, ..RunQuery::default() };
        match select(&query, purpose, &all) {
            Selection::One(status) => Ok(status.run.clone()),
            Selection::Ambiguous(several) => {
                let names: Vec<&str> = several.iter().map(|status| status.run.as_str()).collect();
                Err(Error::invalid_request(format!("several runs match: {}", names.join(", ")))
                    .with_hint("Name one of them."))
            }
            Selection::None => Err(no_match(&query, purpose)),
        }
    }
}

fn no_match(query: &RunQuery, purpose: Purpose) -> Error {
    let finished = match purpose {
        Purpose::Retry => "finished ",
        Purpose::Inspect | Purpose::Stop => "",
    };
    let service =
        query.service.as_ref().map(|service| format!(" of service `{service}`")).unwrap_or_default();
    let task = query.task.map(|task| format!(" for task {task}")).unwrap_or_default();
    Error::invalid_request(format!("no {finished}run{service}{task} found"))
        .with_hint("List the runs with `dispatcher list`.")
}
