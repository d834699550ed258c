//! The resources: what is kept of runs, by address.

use orchestrator_contract::RunName;
use rmcp::ErrorData;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};

use super::select::all;
use super::server::Server;
use super::wording::in_tool_words;
use crate::error::Error;
use crate::files::Excerpt;
use crate::operations::{Artifact, Dispatcher};
use crate::task::text::{ColorChoice, render_event};

/// How many runs are listed.
const LISTED_RUNS: usize = 20;

/// How much of a log is given, in bytes: its end.
const LOG_MAX: usize = 1024 * 1024;

/// What there is of each run.
const ALL: [RunResource; 4] =
    [RunResource::Log, RunResource::Outcome, RunResource::Transcript, RunResource::Diff];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RunResource {
    Log,
    Outcome,
    Transcript,
    Diff,
}

impl RunResource {
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Outcome => "outcome",
            Self::Transcript => "transcript",
            Self::Diff => "diff",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Log => "The readable log of a run: what happened, step by step",
            Self::Outcome => {
                "The outcome of a run that has ended: reason, work, pull request, cost, verification"
            }
            Self::Transcript => "What the agent said and did in a run, as its program printed it",
            Self::Diff => "What a run's branch changes, as a patch",
        }
    }

    fn mime_type(self) -> &'static str {
        match self {
            Self::Log => "text/plain",
            Self::Outcome => "application/json",
            Self::Transcript => "application/jsonl",
            Self::Diff => "text/x-diff",
        }
    }

    fn uri(self, run: &str) -> String {
        format!("orchestrator://runs/{run}/{}", self.name())
    }
}

/// Run and part of an address.
fn parse(uri: &str) -> Option<(RunName, RunResource)> {
    let (run, part) = uri.strip_prefix("orchestrator://runs/")?.split_once('/')?;
    let part = ALL.into_iter().find(|known| known.name() == part)?;
    Some((RunName::new(run).ok()?, part))
}

/// The forms of all addresses.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    ALL.map(|part| {
        ResourceTemplate::new(part.uri("{run}"), format!("run_{}", part.name()))
            .with_description(part.description())
            .with_mime_type(part.mime_type())
    })
    .to_vec()
}

/// What there is of the newest runs.
pub(super) async fn list(server: &Server) -> Result<Vec<Resource>, ErrorData> {
    let runs = match server.dispatcher() {
        Ok(dispatcher) => all(&dispatcher).await,
        Err(problem) => Err(problem),
    }
    .map_err(|problem| told(&problem))?;
    let mut resources = Vec::new();
    for status in runs.into_iter().take(LISTED_RUNS) {
        for part in ALL {
            // A run at work has no outcome and no diff yet.
            if !status.phase.is_final() && matches!(part, RunResource::Outcome | RunResource::Diff) {
                continue;
            }
            let name = format!("{} {}", status.run, part.name());
            resources.push(
                Resource::new(part.uri(status.run.as_str()), name)
                    .with_description(format!("{} ({})", part.description(), status.phase))
                    .with_mime_type(part.mime_type()),
            );
        }
    }
    Ok(resources)
}

/// Reads what an address stands for.
pub(super) async fn read(server: &Server, uri: &str) -> Result<ResourceContents, ErrorData> {
    let Some((run, part)) = parse(uri) else {
        let known = ALL.map(|part| part.uri("{run}")).join(", ");
        return Err(ErrorData::resource_not_found(
            format!("there is no resource `{uri}`. Use one of {known}."),
            None,
        ));
    };
    let text = match server.dispatcher() {
        Ok(dispatcher) => text(&dispatcher, &run, part).await,
        Err(problem) => Err(problem),
    }
    .map_err(|problem| told(&problem))?;
    Ok(ResourceContents::text(text, uri).with_mime_type(part.mime_type()))
}

fn told(problem: &Error) -> ErrorData {
    ErrorData::resource_not_found(in_tool_words(&problem.to_string()), None)
}

async fn text(dispatcher: &Dispatcher, run: &RunName, part: RunResource) -> Result<String, Error> {
    match part {
        RunResource::Log => log(dispatcher, run).await,
        RunResource::Outcome => outcome(dispatcher, run).await,
        RunResource::Transcript => {
            let Excerpt { text, truncated: _ } = dispatcher.record(run, Artifact::Transcript).await?;
            Ok(text)
        }
        RunResource::Diff => {
            let Excerpt { mut text, truncated: is_cut } = dispatcher.record(run, Artifact::Diff).await?;
            if is_cut {
                text.push_str("... (the rest is left out)\n");
            }
            Ok(text)
        }
    }
}

async fn log(dispatcher: &Dispatcher, run: &RunName) -> Result<String, Error> {
    let mut text = String::new();
    dispatcher
        .logs(run, false, |event, _| {
            if let Some(line) = render_event(event, ColorChoice::No) {
                text.push_str(&line);
                text.push('\n');
            }
            Ok(())
        })
        .await?;
    let from = text.len().saturating_sub(LOG_MAX);
    let Some(at) = (from > 0).then(|| text.as_bytes().iter().skip(from).position(|byte| *byte == b'\n'))
    else {
        return Ok(text);
    };
    let rest = text.split_off(from + at.unwrap_or_default() + 1);
    Ok(format!("... (the beginning is left out)\n{rest}"))
}

async fn outcome(dispatcher: &Dispatcher, run: &RunName) -> Result<String, Error> {
    let all = all(dispatcher).await?;
    let status = all.iter().find(|status| status.run == *run);
    let Some(status) = status else {
        return Err(Error::invalid_request(format!("there is no run `{run}`"))
            .with_hint("List them: dispatcher list."));
    };
    match &status.outcome {
        Some(outcome) => Ok(serde_json::to_string_pretty(outcome).unwrap_or_default()),
        None => Err(Error::invalid_request(format!("`{run}` has no outcome: it is {}", status.phase))
            .with_hint(format!("See where it stands: dispatcher status {run}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_uri_names_run_and_part() {
        for part in ALL {
            let (run, parsed) = parse(&part.uri("trader-claude-agent-1-task1-attempt1")).unwrap();
            assert_eq!((run.as_str(), parsed), ("trader-claude-agent-1-task1-attempt1", part));
        }
        for bad in [
            "orchestrator://runs/a/secrets",
            "orchestrator://runs/../log",
            "orchestrator://runs/a%2Fb/log",
            "orchestrator://runs/a/b/log",
            "file:///etc/passwd",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
