//! Arguments that select a run, for commands on a single run.

use orchestrator_contract::{Kind, Reason, RunName, TaskId};

use super::context::CliContext;
use crate::error::Error;
use crate::operations::Filter;
use crate::task::advice::Advice;
use crate::task::selection::{Purpose, Recency, RunQuery, Selection, no_match_hint, parse_query, select};
use crate::task::status::Status;

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct RunSelector {
    /// Filter by service
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    service: Option<String>,
    /// Filter by task ID
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    task: Option<TaskId>,
}

/// What the arguments select.
enum Selected {
    Run(RunName),
    /// One of the runs, newest first.
    Among(RunQuery, Vec<Status>),
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
        match self.selected(context, name, recency).await? {
            Selected::Run(run) => Ok(run),
            Selected::Among(query, all) => one(&query, purpose, &all),
        }
    }

    /// Returns the named run, else the newest matching one that `fits`, else the newest.
    pub(super) async fn newest(
        self,
        context: &CliContext,
        name: Option<RunName>,
        fits: fn(&Status) -> bool,
    ) -> Result<RunName, Error> {
        match self.selected(context, name, Recency::Latest).await? {
            Selected::Run(run) => Ok(run),
            Selected::Among(query, all) => {
                let fitting = all.iter().filter(|status| query.matches(status)).find(|status| fits(status));
                match fitting.filter(|_| query.recency != Recency::Current) {
                    Some(status) => Ok(status.run.clone()),
                    None => one(&query, Purpose::Inspect, &all),
                }
            }
        }
    }

    /// Returns the named run, else all that match, newest first; at least one.
    pub(super) async fn all(
        self,
        context: &CliContext,
        name: Option<RunName>,
    ) -> Result<Vec<RunName>, Error> {
        match self.selected(context, name, Recency::Latest).await? {
            Selected::Run(run) => Ok(vec![run]),
            Selected::Among(query, all) => {
                let first = one(&query, Purpose::Inspect, &all)?;
                if query.recency == Recency::Current {
                    return Ok(vec![first]);
                }
                Ok(all
                    .iter()
                    .filter(|status| query.matches(status))
                    .map(|status| status.run.clone())
                    .collect())
            }
        }
    }

    async fn selected(
        self,
        context: &CliContext,
        name: Option<RunName>,
        recency: Recency,
    ) -> Result<Selected, Error> {
        let Self { service, task } = self;
        let service = context.service(service.as_deref()).await?;
        // A word such as `latest` may be given instead of a name.
        let words = match name {
            Some(name) if name.as_str().contains("-attempt") => return Ok(Selected::Run(name)),
            Some(name) => match context.dispatcher.run(&name).await {
                Ok(_) => return Ok(Selected::Run(name)),
                Err(error) if error.reason() != Reason::InvalidTask => return Err(error),
                Err(_) => Some(name),
            },
            None => None,
        };
        let all = context.dispatcher.list(&Filter::default()).await?;
        let query = match words {
            Some(words) => parse_query(words.as_str(), &all, &context.dispatcher.known_services().await?)?,
            None => RunQuery { service, task, recency, ..RunQuery::default() },
        };
        Ok(Selected::Among(query, all))
    }
}

fn one(query: &RunQuery, purpose: Purpose, all: &[Status]) -> Result<RunName, Error> {
    match select(query, purpose, all) {
        Selection::One(status) => Ok(status.run.clone()),
        Selection::Ambiguous(several) => {
            let names: Vec<&str> = several.iter().map(|status| status.run.as_str()).collect();
            Err(Error::invalid_request(format!("several runs match: {}", names.join(", ")))
                .with_hint("Pass one of these names, or --service and --task."))
        }
        Selection::None => Err(no_match(query, purpose, all)),
    }
}

fn no_match(query: &RunQuery, purpose: Purpose, all: &[Status]) -> Error {
    let finished = match purpose {
        Purpose::Retry => "finished ",
        Purpose::Inspect | Purpose::Stop => "",
    };
    let docs = if query.kind == Some(Kind::Docs) { "docs " } else { "" };
    let service =
        query.service.as_ref().map(|service| format!(" of service `{service}`")).unwrap_or_default();
    let task = query.task.map(|task| format!(" for task {task}")).unwrap_or_default();
    let attempt = query.attempt.map(|attempt| format!(" with attempt number {attempt}")).unwrap_or_default();
    let active = all.iter().find(|status| query.matches(status) && !status.phase.is_final());
    let hint = match active.filter(|_| purpose == Purpose::Retry) {
        Some(active) => Advice::WaitOrStop(active.run.clone()),
        None => no_match_hint(query.service.as_ref(), all),
    };
    Error::invalid_request(format!("no {finished}{docs}run{service}{task}{attempt} found")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event_fold::LockState;
    use crate::task::status::tests::sample;

    #[test]
    fn missing_run_does_not_lead_to_stop_unrelated_one() {
        let active = sample(3, LockState::Held);
        assert!(!active.phase.is_final());
        let all = [active.clone()];
        let docs = RunQuery { kind: Some(Kind::Docs), ..RunQuery::default() };
        for purpose in [Purpose::Inspect, Purpose::Stop] {
            let error = no_match(&docs, purpose, &all);
            assert_eq!(error.message(), "no docs run found");
            assert_eq!(error.hint(), &Advice::ListRuns { newest: vec![active.run.clone()] });
        }
        let error = no_match(&docs, Purpose::Retry, &all);
        assert_eq!(error.message(), "no finished docs run found");
        assert!(matches!(error.hint(), Advice::ListRuns { .. }));
        let error = no_match(&RunQuery::default(), Purpose::Retry, &all);
        assert_eq!(error.hint(), &Advice::WaitOrStop(active.run));
    }
}
