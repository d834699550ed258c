//! The arguments that say which run is meant, for verbs that are about one.

use orchestrator_contract::{RunName, ServiceName, TaskId};

use super::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::task::selection::{Purpose, Recency, RunQuery, Selection, select};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunSelector {
    /// A run of this service.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    service: Option<ServiceName>,
    /// A run for this task.
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
}

impl RunSelector {
    /// The run of the name that was given, else the one that is meant.
    pub(super) async fn run(
        self,
        session: &CliContext,
        name: Option<RunName>,
        purpose: Purpose,
        when: Recency,
    ) -> Result<RunName, Error> {
        if let Some(name) = name {
            return Ok(name);
        }
        let Self { service, task } = self;
        let all = session.dispatcher.list(&Filter::default()).await?;
        let wanted = RunQuery { service, task, recency: when, ..RunQuery::default() };
        match select(&wanted, purpose, &all) {
            Selection::One(status) => Ok(status.run.clone()),
            Selection::Ambiguous(several) => {
                let names: Vec<&str> = several.iter().map(|status| status.run.as_str()).collect();
                Err(Error::invalid_request(format!("several runs may be meant: {}", names.join(", ")))
                    .with_hint("Name one of them."))
            }
            Selection::None => Err(no_match(&wanted, purpose)),
        }
    }
}

fn no_match(wanted: &RunQuery, purpose: Purpose) -> Error {
    let ended = match purpose {
        Purpose::Retry => " that has ended",
        Purpose::Inspect | Purpose::Stop => "",
    };
    let service =
        wanted.service.as_ref().map(|service| format!(" of service `{service}`")).unwrap_or_default();
    let task = wanted.task.map(|task| format!(" for task {task}")).unwrap_or_default();
    Error::invalid_request(format!("there is no run{service}{task}{ended}"))
        .with_hint("List the runs there are: dispatcher list.")
}
