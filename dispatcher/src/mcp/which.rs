//! The run that a call means.

use jiff::Timestamp;
use orchestrator_contract::{Reason, ServiceName, TaskId};

use super::arguments::RunArguments;
use super::text;
use super::wording::in_tool_words;
use crate::problem::Problem;
use crate::task::selection::{Choice, Purpose, choose, understand};
use crate::task::status::Status;
use crate::verbs::{Dispatcher, Filter};

/// Why a call is not carried out.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Something is wrong or missing.
    Problem(Problem),
    /// Several runs may be meant.
    Several(Vec<Status>),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Refusal {
    /// It in the words of the tools.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Problem(problem) => in_tool_words(&problem.to_string()),
            Self::Several(statuses) => text::candidates(statuses, Timestamp::now()),
        }
    }
}

/// Every run there is, the newest first.
pub(super) async fn all(dispatcher: &Dispatcher) -> Result<Vec<Status>, Problem> {
    dispatcher.list(&Filter::default()).await
}

/// The run that is meant.
pub(super) async fn which(
    dispatcher: &Dispatcher,
    arguments: &RunArguments,
    purpose: Purpose,
) -> Result<Status, Refusal> {
    among(&all(dispatcher).await?, arguments, purpose)
}

/// The run that is meant, among these.
pub(super) fn among(all: &[Status], arguments: &RunArguments, purpose: Purpose) -> Result<Status, Refusal> {
    let (service, task) = (arguments.service()?, arguments.task()?);
    let mut wanted = understand(arguments.run.as_deref().unwrap_or_default(), all)?;
    wanted.service = service.or(wanted.service);
    wanted.task = task.or(wanted.task);
    match choose(&wanted, purpose, all) {
        Choice::One(status) => Ok(status.clone()),
        Choice::Several(statuses) => Err(Refusal::Several(statuses.into_iter().cloned().collect())),
        Choice::None => Err(nothing_fits(all, wanted.service.as_ref(), wanted.task, purpose).into()),
    }
}

fn nothing_fits(
    all: &[Status],
    service: Option<&ServiceName>,
    task: Option<TaskId>,
    purpose: Purpose,
) -> Problem {
    let fits = |status: &&Status| {
        service.is_none_or(|service| status.service == *service)
            && task.is_none_or(|task| status.task_id == Some(task))
    };
    if purpose == Purpose::Retry
        && let Some(live) = all.iter().find(fits)
    {
        return Problem::new(Reason::WorkspaceBusy, format!("`{}` is still at work", live.run)).next(
            format!(
                "Wait for it (dispatcher wait {0}) or stop it (dispatcher stop {0}), then retry.",
                live.run
            ),
        );
    }
    let of = service.map_or(String::new(), |service| format!(" of service `{service}`"));
    let for_task = task.map_or(String::new(), |task| format!(" for task {task}"));
    let others: Vec<&str> = all.iter().take(5).map(|status| status.run.as_str()).collect();
    let next = if others.is_empty() {
        "Submit a task: dispatcher submit --task ID --service NAME.".to_owned()
    } else {
        format!("The newest there are: {}. All: dispatcher list.", others.join(", "))
    };
    Problem::request(format!("there is no run{of}{for_task}")).next(next)
}
