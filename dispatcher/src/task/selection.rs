//! Selects the run that a loose description means: "the current task", "the last
//! one", "task 3", "the trader service".
//!
//! Never guesses: if several runs match equally well, it returns all of them.

mod query;

use std::collections::BTreeSet;

use orchestrator_contract::{AgentName, Kind, Phase, RunName, ServiceName, TaskId};

use super::advice::Advice;
use super::status::Status;

pub use query::parse_query;

/// What a caller said about the run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RunQuery {
    pub run: Option<RunName>,
    pub recency: Recency,
    pub service: Option<ServiceName>,
    pub task: Option<TaskId>,
    pub attempt: Option<u32>,
    pub kind: Option<Kind>,
    pub agent: Option<AgentName>,
}

impl RunQuery {
    /// Returns whether a run meets all conditions; any recency does.
    #[must_use]
    pub fn matches(&self, status: &Status) -> bool {
        let Self { run, recency: _, service, task, attempt, kind, agent } = self;
        run.as_ref().is_none_or(|run| status.run == *run)
            && service.as_ref().is_none_or(|service| status.service == *service)
            && task.is_none_or(|task| status.task_id == Some(task))
            && attempt.is_none_or(|attempt| status.attempt == attempt)
            && kind.is_none_or(|kind| status.kind == kind)
            && agent.as_ref().is_none_or(|agent| status.agent == *agent)
    }
}

/// Whether the active or the latest run is meant.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Recency {
    /// The active run, else the latest.
    #[default]
    Any,
    /// The active run.
    Current,
    /// The latest run, active or finished.
    Latest,
}

/// What the caller does with the run, which decides between active and finished runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    Inspect,
    /// Prefers active runs.
    Stop,
    /// Selects finished runs only.
    Retry,
}

/// Result of a selection.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection<'a> {
    One(&'a Status),
    /// Several runs match equally well.
    Ambiguous(Vec<&'a Status>),
    None,
}

/// Returns the hint for a query that no run matches: a service with a similar name, or the newest runs.
#[must_use]
pub fn no_match_hint(service: Option<&ServiceName>, all: &[Status]) -> Advice {
    let newest: Vec<RunName> = all.iter().take(5).map(|status| status.run.clone()).collect();
    let hint = if newest.is_empty() { Advice::SubmitTask } else { Advice::ListRuns { newest } };
    let unknown = service.filter(|service| all.iter().all(|status| status.service != **service));
    match unknown {
        Some(unknown) => hint.suggesting(unknown.as_str(), all.iter().map(|status| status.service.as_str())),
        None => hint,
    }
}

/// Selects among all runs, newest first: the latest is the newest that the caller's purpose fits.
#[must_use]
pub fn select<'a>(query: &RunQuery, purpose: Purpose, all: &'a [Status]) -> Selection<'a> {
    let matching: Vec<&Status> = all.iter().filter(|status| query.matches(status)).collect();
    let active: Vec<&Status> = matching.iter().copied().filter(|status| !status.phase.is_final()).collect();
    let finished: Vec<&Status> = matching.iter().copied().filter(|status| status.phase.is_final()).collect();
    let newest =
        |runs: Vec<&'a Status>| runs.first().map_or(Selection::None, |status| Selection::One(status));
    match (purpose, query.recency) {
        (Purpose::Inspect, Recency::Latest) => newest(matching),
        (Purpose::Stop, Recency::Latest) if !active.is_empty() => newest(active),
        // Stop falls back to finished runs: the reply says that the run had already finished.
        (Purpose::Stop, _) | (Purpose::Inspect, Recency::Current | Recency::Any) => match active.as_slice() {
            [] if (query.task.is_some() || query.attempt.is_some()) && query.recency != Recency::Latest => {
                one_of_each_service(&matching)
            }
            [] => newest(matching),
            [one] => Selection::One(one),
            [..] => Selection::Ambiguous(active),
        },
        (Purpose::Retry, recency) => {
            let candidates = retry_candidates(query, finished);
            // "Retry the last task" names neither a task nor a service, and means the last one of all.
            let is_last = recency == Recency::Latest || (query.task.is_none() && query.service.is_none());
            if is_last { newest(candidates) } else { one_of_each_service(&candidates) }
        }
    }
}

/// Returns the finished runs that a retry may mean.
///
/// A succeeded implementation may need changes. A succeeded docs run is meant only if it is named, or if
/// nothing else can be.
fn retry_candidates<'a>(query: &RunQuery, finished: Vec<&'a Status>) -> Vec<&'a Status> {
    let is_done = |status: &&Status| status.kind == Kind::Docs && status.phase == Phase::Succeeded;
    let is_explicit = query.run.is_some() || query.kind == Some(Kind::Docs);
    if is_explicit || finished.iter().all(is_done) {
        return finished;
    }
    finished.into_iter().filter(|status| !is_done(status)).collect()
}

/// Returns the newest run if all belong to one service, else the newest of each service.
fn one_of_each_service<'a>(runs: &[&'a Status]) -> Selection<'a> {
    let mut seen = BTreeSet::new();
    let firsts: Vec<&Status> = runs.iter().copied().filter(|status| seen.insert(&status.service)).collect();
    match firsts.as_slice() {
        [] => Selection::None,
        [one] => Selection::One(one),
        [..] => Selection::Ambiguous(firsts),
    }
}

/// Renders the message that no run of a kind, service or task exists.
#[must_use]
pub fn no_runs_message(kind: Option<Kind>, service: Option<&ServiceName>, task: Option<TaskId>) -> String {
    let runs = if kind == Some(Kind::Docs) { "docs runs" } else { "runs" };
    match (service, task) {
        (Some(service), Some(task)) => format!("no {runs} found for service `{service}`, task {task}"),
        (Some(service), None) => format!("no {runs} found for service `{service}`"),
        (None, Some(task)) => format!("no {runs} found for task {task}"),
        (None, None) => format!("no {runs} found"),
    }
}

/// Parses a phase name, ignoring case.
#[must_use]
pub fn parse_phase(text: &str) -> Option<Phase> {
    PHASES.into_iter().find(|phase| phase.name().eq_ignore_ascii_case(text.trim()))
}

/// All phases, in the order a run passes through them.
pub const PHASES: [Phase; 7] = [
    Phase::Pending,
    Phase::Preparing,
    Phase::Running,
    Phase::Publishing,
    Phase::Succeeded,
    Phase::Failed,
    Phase::Stopped,
];

#[cfg(test)]
mod tests;
