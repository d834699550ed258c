//! Selects the run that a call refers to.

use std::collections::BTreeSet;

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, ServiceName};

use super::arguments::RunArguments;
use super::text::{candidates, render_error};
use crate::error::Error;
use crate::operations::{Dispatcher, Filter};
use crate::task::advice::Advice;
use crate::task::selection::{
    Purpose, RunQuery, Selection, no_match_hint, no_runs_message, parse_query, select,
};
use crate::task::status::Status;

/// Why a tool call failed.
#[derive(Debug)]
pub(super) enum ToolError {
    Failed(Error),
    /// Several runs match.
    Ambiguous(Vec<Status>),
}

impl From<Error> for ToolError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl ToolError {
    /// Renders the error for the model.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Failed(error) => render_error(error),
            Self::Ambiguous(statuses) => candidates(statuses, Timestamp::now()),
        }
    }
}

/// Returns the status of every run, newest first.
pub(super) async fn all(dispatcher: &Dispatcher) -> Result<Vec<Status>, Error> {
    dispatcher.list(&Filter::default()).await
}

/// Returns the services that have runs or an entry in the configuration.
pub(super) fn known_services(dispatcher: &Dispatcher, all: &[Status]) -> Vec<ServiceName> {
    let of_runs = all.iter().map(|status| &status.service);
    let known: BTreeSet<&ServiceName> = of_runs.chain(dispatcher.config().service_names()).collect();
    known.into_iter().cloned().collect()
}

/// Selects the run that the arguments refer to.
pub(super) async fn select_run(
    dispatcher: &Dispatcher,
    arguments: &RunArguments,
    purpose: Purpose,
) -> Result<Status, ToolError> {
    let all = all(dispatcher).await?;
    select_from(&all, &known_services(dispatcher, &all), arguments, purpose)
}

/// Selects a run among `all`.
pub(super) fn select_from(
    all: &[Status],
    known: &[ServiceName],
    arguments: &RunArguments,
    purpose: Purpose,
) -> Result<Status, ToolError> {
    let (service, task) = (arguments.service(known)?, arguments.task()?);
    let mut query = parse_query(arguments.run.as_deref().unwrap_or_default(), all, known)?;
    query.service = service.or(query.service);
    query.task = task.or(query.task);
    match select(&query, purpose, all) {
        Selection::One(status) => Ok(status.clone()),
        Selection::Ambiguous(statuses) => Err(ToolError::Ambiguous(statuses.into_iter().cloned().collect())),
        Selection::None => Err(no_match(all, &query, purpose).into()),
    }
}

fn no_match(all: &[Status], query: &RunQuery, purpose: Purpose) -> Error {
    let service = query.service.as_ref();
    let is_active = |status: &&Status| !status.phase.is_final() && query.matches(status);
    if purpose == Purpose::Retry
        && let Some(active) = all.iter().find(is_active)
    {
        return still_active(&active.run);
    }
    Error::invalid_request(no_runs_message(query.kind, service, query.task))
        .with_hint(no_match_hint(service, all))
}

/// Creates the error for a retry of an active run.
pub(super) fn still_active(run: &RunName) -> Error {
    Error::new(Reason::WorkspaceBusy, format!("`{run}` is still active"))
        .with_hint(Advice::WaitOrStop(run.clone()))
}
