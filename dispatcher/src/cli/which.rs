//! The arguments that say which run is meant, for verbs that are about one.

use orchestrator_contract::{RunName, ServiceName, TaskId};

use super::Session;
use crate::problem::Problem;
use crate::task::selection::{Choice, Purpose, Wanted, When, choose};
use crate::verbs::Filter;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Which {
    /// A run of this service.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    service: Option<ServiceName>,
    /// A run for this task.
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
}

impl Which {
    /// The run of the name that was given, else the one that is meant.
    pub(super) async fn run(
        self,
        session: &Session,
        name: Option<RunName>,
        purpose: Purpose,
        when: When,
    ) -> Result<RunName, Problem> {
        if let Some(name) = name {
            return Ok(name);
        }
        let Self { service, task } = self;
        let all = session.dispatcher.list(&Filter::default()).await?;
        let wanted = Wanted { service, task, when, ..Wanted::default() };
        match choose(&wanted, purpose, &all) {
            Choice::One(status) => Ok(status.run.clone()),
            Choice::Several(several) => {
                let names: Vec<&str> = several.iter().map(|status| status.run.as_str()).collect();
                Err(Problem::request(format!("several runs may be meant: {}", names.join(", ")))
                    .next("Name one of them."))
            }
            Choice::None => Err(nothing(&wanted, purpose)),
        }
    }
}

fn nothing(wanted: &Wanted, purpose: Purpose) -> Problem {
    let ended = match purpose {
        Purpose::Retry => " that has ended",
        Purpose::Look | Purpose::Stop => "",
    };
    let service =
        wanted.service.as_ref().map(|service| format!(" of service `{service}`")).unwrap_or_default();
    let task = wanted.task.map(|task| format!(" for task {task}")).unwrap_or_default();
    Problem::request(format!("there is no run{service}{task}{ended}"))
        .next("List the runs there are: dispatcher list.")
}
