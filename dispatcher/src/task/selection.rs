//! Which run somebody means who does not give its name: "the current task",
//! "the last one", "task 3", "the trader service".
//!
//! Nothing is guessed: where several runs fit equally well, all of them are the
//! answer.

use std::collections::BTreeSet;

use orchestrator_contract::{AgentName, Kind, Phase, RunName, ServiceName, TaskId};

use super::status::Status;
use crate::error::Error;

/// What somebody said about the run they mean.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RunQuery {
    /// Its name.
    pub run: Option<RunName>,
    /// When it was or is at work.
    pub recency: Recency,
    /// Its service.
    pub service: Option<ServiceName>,
    /// Its task.
    pub task: Option<TaskId>,
    /// What it is for.
    pub kind: Option<Kind>,
    /// Who works or worked on it.
    pub agent: Option<AgentName>,
}

/// When a run was or is at work, in people's words.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Recency {
    /// Nothing was said: the one at work, else the latest.
    #[default]
    Any,
    /// The one at work.
    Current,
    /// The latest, at work or not.
    Latest,
}

/// What the run is wanted for, which decides what is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// To be looked at.
    Inspect,
    /// To be stopped: one at work is meant.
    Stop,
    /// To be tried again: one that has ended is meant.
    Retry,
}

/// The run that is meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection<'a> {
    /// This one.
    One(&'a Status),
    /// Any of these may be.
    Ambiguous(Vec<&'a Status>),
    /// None fits.
    None,
}

/// Understands what was given as a run: its name, or loose words for it.
///
/// # Errors
/// A word is neither: it is no run, no service that has one, and no word for
/// when. The error says what would be understood.
pub fn parse_query(text: &str, all: &[Status]) -> Result<RunQuery, Error> {
    let text = text.trim();
    if let Some(status) = all.iter().find(|status| status.run.as_str() == text) {
        return Ok(RunQuery { run: Some(status.run.clone()), ..RunQuery::default() });
    }
    let mut wanted = RunQuery::default();
    for word in text.to_lowercase().split_whitespace() {
        let word = word.trim_matches(|c: char| matches!(c, '"' | '\'' | '`' | ',' | '.' | '?' | '#'));
        match word {
            "" | "the" | "a" | "my" | "that" | "this" | "of" | "for" | "in" | "on" | "run" | "one"
            | "task" | "attempt" | "service" | "implementation" | "job" => {}
            "current" | "running" | "active" | "now" => wanted.recency = Recency::Current,
            "last" | "latest" | "newest" | "recent" | "most" | "previous" => wanted.recency = Recency::Latest,
            "docs" | "documentation" | "documents" => wanted.kind = Some(Kind::Docs),
            word => {
                let number = word.strip_prefix("task").unwrap_or(word).trim_start_matches(['-', '#']);
                if let Ok(task) = number.parse::<TaskId>() {
                    wanted.task = Some(task);
                } else if let Some(status) = all.iter().find(|status| status.service.as_str() == word) {
                    wanted.service = Some(status.service.clone());
                } else {
                    return Err(unknown_run(text));
                }
            }
        }
    }
    Ok(wanted)
}

fn unknown_run(text: &str) -> Error {
    Error::invalid_request(format!("there is no run `{text}`")).with_hint(
        "Give a run's name as `dispatcher list` shows it, or `current`, `latest`, a task such as `task 3`, or the \
         name of a service that has runs.",
    )
}

/// Chooses among all runs, the newest of which come first.
#[must_use]
pub fn select<'a>(wanted: &RunQuery, purpose: Purpose, all: &'a [Status]) -> Selection<'a> {
    let fits = |status: &&Status| {
        wanted.run.as_ref().is_none_or(|run| status.run == *run)
            && wanted.service.as_ref().is_none_or(|service| status.service == *service)
            && wanted.task.is_none_or(|task| status.task_id == Some(task))
            && wanted.kind.is_none_or(|kind| status.kind == kind)
            && wanted.agent.as_ref().is_none_or(|agent| status.agent == *agent)
    };
    let fitting: Vec<&Status> = all.iter().filter(fits).collect();
    let live: Vec<&Status> = fitting.iter().copied().filter(|status| !status.phase.is_final()).collect();
    let ended: Vec<&Status> = fitting.iter().copied().filter(|status| status.phase.is_final()).collect();
    let newest =
        |runs: Vec<&'a Status>| runs.first().map_or(Selection::None, |status| Selection::One(status));
    match (purpose, wanted.recency) {
        // Whoever wants to stop something and is told of what ended before is not misled.
        (Purpose::Stop, _) | (Purpose::Inspect, Recency::Current | Recency::Any) => match live.as_slice() {
            [] if wanted.task.is_some() => one_of_each_service(&fitting),
            [] => newest(fitting),
            [one] => Selection::One(one),
            [..] => Selection::Ambiguous(live),
        },
        (Purpose::Inspect, Recency::Latest) if wanted.task.is_some() => one_of_each_service(&fitting),
        (Purpose::Inspect, Recency::Latest) => newest(fitting),
        (Purpose::Retry, _) => {
            // Documents that are written and proposed are not what somebody wants tried again who
            // does not say so; a task that is done may be.
            let done = |status: &&Status| status.kind == Kind::Docs && status.phase == Phase::Succeeded;
            let said = wanted.run.is_some() || wanted.kind == Some(Kind::Docs);
            let ended: Vec<&Status> = ended.into_iter().filter(|status| said || !done(status)).collect();
            one_of_each_service(&ended)
        }
    }
}

/// The newest run, if all are of one service; else the newest of each.
fn one_of_each_service<'a>(runs: &[&'a Status]) -> Selection<'a> {
    let mut seen = BTreeSet::new();
    let firsts: Vec<&Status> = runs.iter().copied().filter(|status| seen.insert(&status.service)).collect();
    match firsts.as_slice() {
        [] => Selection::None,
        [one] => Selection::One(one),
        [..] => Selection::Ambiguous(firsts),
    }
}

/// The phase of that name; case does not matter.
#[must_use]
pub fn parse_phase(text: &str) -> Option<Phase> {
    PHASES.into_iter().find(|phase| phase.name().eq_ignore_ascii_case(text.trim()))
}

/// All phases, in the order of a run's life.
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
