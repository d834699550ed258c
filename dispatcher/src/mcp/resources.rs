//! The resources: log, outcome, transcript and diff of runs, by URI.

use orchestrator_contract::RunName;
use rmcp::ErrorData;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};

use super::select::all;
use super::text::render_error;
use crate::error::Error;
use crate::files::Excerpt;
use crate::operations::{Artifact, Dispatcher};
use crate::task::advice::Advice;
use crate::task::text::{ColorChoice, render_event};

/// Number of runs to list.
const LISTED_RUNS: usize = 20;

/// Maximum size of a log in bytes; the start is cut.
const LOG_TAIL_BYTES: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RunResource {
    Log,
    Outcome,
    Transcript,
    Diff,
}

impl RunResource {
    const ALL: [Self; 4] = [Self::Log, Self::Outcome, Self::Transcript, Self::Diff];

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
            Self::Log => "Readable log of a run, step by step",
            Self::Outcome => "Outcome of a finished run: reason, work, pull request, cost, verification",
            Self::Transcript => "Transcript of the agent: the output of the Claude Code CLI",
            Self::Diff => "Changes of a run's branch, as a patch",
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

/// Parses a URI into run and resource.
fn parse(uri: &str) -> Option<(RunName, RunResource)> {
    let (run, part) = uri.strip_prefix("orchestrator://runs/")?.split_once('/')?;
    let part = RunResource::ALL.into_iter().find(|candidate| candidate.name() == part)?;
    Some((RunName::new(run).ok()?, part))
}

/// Returns the URI templates.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    RunResource::ALL
        .map(|part| {
            ResourceTemplate::new(part.uri("{run}"), format!("run_{}", part.name()))
                .with_description(part.description())
                .with_mime_type(part.mime_type())
        })
        .to_vec()
}

/// Lists the resources of the newest runs.
pub(super) async fn list(dispatcher: &Dispatcher) -> Result<Vec<Resource>, ErrorData> {
    let runs = all(dispatcher).await.map_err(|error| not_found(&error))?;
    let mut resources = Vec::new();
    for status in runs.into_iter().take(LISTED_RUNS) {
        for part in RunResource::ALL {
            // An active run has no outcome and no diff yet.
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

/// Reads the resource of a URI.
pub(super) async fn read(dispatcher: &Dispatcher, uri: &str) -> Result<ResourceContents, ErrorData> {
    let Some((run, part)) = parse(uri) else {
        let known = RunResource::ALL.map(|part| part.uri("{run}")).join(", ");
        let error =
            Error::invalid_request(format!("no resource `{uri}`")).with_hint(format!("Use one of {known}."));
        return Err(not_found(&error));
    };
    let text = text(dispatcher, &run, part).await.map_err(|error| not_found(&error))?;
    Ok(ResourceContents::text(text, uri).with_mime_type(part.mime_type()))
}

/// Converts an error to that of MCP.
pub(super) fn not_found(error: &Error) -> ErrorData {
    ErrorData::resource_not_found(render_error(error), None)
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
            let Excerpt { mut text, truncated } = dispatcher.record(run, Artifact::Diff).await?;
            if truncated {
                text.push_str("... (truncated)\n");
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
    let from = text.len().saturating_sub(LOG_TAIL_BYTES);
    let Some(at) = (from > 0).then(|| text.as_bytes().iter().skip(from).position(|byte| *byte == b'\n'))
    else {
        return Ok(text);
    };
    let rest = text.split_off(from + at.unwrap_or_default() + 1);
    Ok(format!("... (earlier lines omitted)\n{rest}"))
}

async fn outcome(dispatcher: &Dispatcher, run: &RunName) -> Result<String, Error> {
    let all = all(dispatcher).await?;
    let status = all.iter().find(|status| status.run == *run);
    let Some(status) = status else {
        return Err(Error::invalid_request(format!("no run named `{run}`"))
            .with_hint(Advice::after_no_match(all.iter().map(|status| &status.run))));
    };
    match &status.outcome {
        Some(outcome) => Ok(serde_json::to_string_pretty(outcome).unwrap_or_default()),
        None => Err(Error::invalid_request(format!("`{run}` has no outcome: it is {}", status.phase))
            .with_hint(Advice::ShowStatus(run.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_uri_names_run_and_part() {
        for part in RunResource::ALL {
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
