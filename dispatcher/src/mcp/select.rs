//! The run that a call means.

use jiff::Timestamp;
use orchestrator_contract::{Reason, ServiceName, TaskId};

use super::arguments::RunArguments;
use super::text;
use super::wording::in_tool_words;
use crate::error::Error;
use crate::operations::{Dispatcher, Filter};
use crate::task::selection::{Purpose, Selection, parse_query, select};
use crate::task::status::Status;

/// Why a call is not carried out.
#[derive(Debug)]
pub(super) enum ToolError {
    /// Something is wrong or missing.
    Failed(Error),
    /// Several runs may be meant.
    Ambiguous(Vec<Status>),
}

impl From<Error> for ToolError {
    fn from(problem: Error) -> Self {
        Self::Failed(problem)
    }
}

impl ToolError {
    /// It in the words of the tools.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Failed(problem) => in_tool_words(&problem.to_string()),
            Self::Ambiguous(statuses) => text::candidates(statuses, Timestamp::now()),
        }
    }
}

/// Every run there is, the newest first.
pub(super) async fn all(dispatcher: &Dispatcher) -> Result<Vec<Status>, Error> {
    dispatcher.list(&Filter::default()).await
}

/// The run that is meant.
pub(super) async fn which(
    dispatcher: &Dispatcher,
    arguments: &RunArguments,
    purpose: Purpose,
) -> Result<Status, ToolError> {
    select_from(&all(dispatcher).await?, arguments, purpose)
}

/// The run that is meant, among these.
pub(super) fn select_from(
    all: &[Status],
    arguments: &RunArguments,
    purpose: Purpose,
) -> Result<Status, ToolError> {
    let (service, task) = (arguments.service()?, arguments.task()?);
    let mut wanted = parse_query(arguments.run.as_deref().unwrap_or_default(), all)?;
    wanted.service = service.or(wanted.service);
    wanted.task = task.or(wanted.task);
    match select(&wanted, purpose, all) {
        Selection::One(status) => Ok(status.clone()),
        Selection::Ambiguous(statuses) => Err(ToolError::Ambiguous(statuses.into_iter().cloned().collect())),
        Selection::None => Err(no_match(all, wanted.service.as_ref(), wanted.task, purpose).into()),
    }
}

fn no_match(all: &[Status], service: Option<&ServiceName>, task: Option<TaskId>, purpose: Purpose) -> Error {
    let fits = |status: &&Status| {
        service.is_none_or(|service| status.service == *service)
            && task.is_none_or(|task| status.task_id == Some(task))
    };
    if purpose == Purpose::Retry
        && let Some(live) = all.iter().find(fits)
    {
        return Error::new(Reason::WorkspaceBusy, format!("`{}` is still at work", live.run)).with_hint(
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
    Error::invalid_request(format!("there is no run{of}{for_task}")).with_hint(next)
}
