//! Arguments that select a run, for commands on a single run.

use orchestrator_contract::{Reason, RunName, ServiceName, TaskId};

use super::context::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::task::advice::Advice;
use crate::task::selection::{Purpose, Recency, RunQuery, Selection, no_match_hint, parse_query, select};
use crate::task::service_name;
use crate::task::status::Status;

#[derive(Clone, Debug, Default, clap::Args)]
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
        let Self { service, task } = self;
        // A word such as `latest` may be given instead of a name.
        let words = match name {
            Some(name) if name.as_str().contains("-attempt") => return Ok(name),
            Some(name) => match context.dispatcher.run(&name).await {
                Ok(_) => return Ok(name),
                Err(error) if error.reason() != Reason::InvalidTask => return Err(error),
                Err(_) => Some(name),
            },
            None => None,
        };
        let all = context.dispatcher.list(&Filter::default()).await?;
        let query = match words {
            Some(words) => parse_query(words.as_str(), &all)?,
            None => RunQuery { service, task, recency, ..RunQuery::default() },
        };
        match select(&query, purpose, &all) {
            Selection::One(status) => Ok(status.run.clone()),
            Selection::Ambiguous(several) => {
                let names: Vec<&str> = several.iter().map(|status| status.run.as_str()).collect();
                Err(Error::invalid_request(format!("several runs match: {}", names.join(", ")))
                    .with_hint("Name one of them."))
            }
            Selection::None => Err(no_match(&query, purpose, &all)),
        }
    }
}

fn no_match(query: &RunQuery, purpose: Purpose, all: &[Status]) -> Error {
    let finished = match purpose {
        Purpose::Retry => "finished ",
        Purpose::Inspect | Purpose::Stop => "",
    };
    let service =
        query.service.as_ref().map(|service| format!(" of service `{service}`")).unwrap_or_default();
    let task = query.task.map(|task| format!(" for task {task}")).unwrap_or_default();
    let matches = |status: &&Status| {
        query.service.as_ref().is_none_or(|service| status.service == *service)
            && query.task.is_none_or(|task| status.task_id == Some(task))
    };
    // Without a finished run, a matching one is active.
    let hint = match all.iter().find(matches) {
        Some(active) => Advice::WaitOrStop(active.run.clone()),
        None => no_match_hint(query.service.as_ref(), all),
    };
    Error::invalid_request(format!("no {finished}run{service}{task} found")).with_hint(hint)
}
