//! Advice: what to do about an error or after a run.
//!
//! Advice is a value, because each audience has its own words for it: the
//! command line names commands and flags, an MCP client tools and arguments.

use std::borrow::Cow;

use orchestrator_contract::{Reason, RunName};
use serde::{Serialize, Serializer};

use super::suggest;

/// One sentence of advice, not yet rendered for an audience.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Advice {
    /// Apply the hint of a reason.
    Resolve(Reason),
    /// Follow the log of an active run.
    Follow(RunName),
    /// Wait for a queued run.
    WaitForWorkspace(RunName),
    /// Apply the hint of a reason, then retry the run.
    Retry {
        /// The finished run to retry.
        run: RunName,
        /// Why it ended.
        reason: Reason,
    },
    /// Apply the hint of a reason, then retry the run with guidance.
    RetryWithGuidance {
        /// The finished run to retry.
        run: RunName,
        /// Why it ended.
        reason: Reason,
    },
    /// Wait for an active run or stop it, then retry.
    WaitOrStop(RunName),
    /// Retry the earlier attempt, or start over.
    RetryOrStartFresh,
    /// Submit without retry, since no earlier attempt exists.
    SubmitFirstAttempt,
    /// Submit a task, since no run exists.
    SubmitTask,
    /// List the runs.
    ListRuns {
        /// The newest runs, named in the advice itself; may be empty.
        newest: Vec<RunName>,
    },
    /// A known name is similar to an unknown one.
    DidYouMean {
        /// The known name.
        name: String,
        /// What to do if it is not meant.
        otherwise: Box<Self>,
    },
    /// Select a run by name, recency, task or service.
    SelectRun,
    /// Show the status of a run.
    ShowStatus(RunName),
    /// Check out the pushed branch of a run.
    CheckOut(RunName),
    /// Read the log of a run.
    ReadLog(RunName),
    /// Set the service.
    SetService,
    /// Set the target repository.
    SetRepositoryUrl,
    /// Set the platform repository, or work in a clone of it.
    SetPlatformRepositoryUrl,
    /// Advice with the same words for every audience.
    Text(Cow<'static, str>),
}

/// Number of runs to name in advice.
const NAMED_RUNS: usize = 5;

impl Advice {
    /// Advises after a selection without a match; `all` are the existing runs, newest first.
    ///
    /// Never leads to an empty list.
    pub fn after_no_match<'a>(all: impl IntoIterator<Item = &'a RunName>) -> Self {
        let newest: Vec<RunName> = all.into_iter().take(NAMED_RUNS).cloned().collect();
        if newest.is_empty() { Self::SubmitTask } else { Self::ListRuns { newest } }
    }
}

impl From<&'static str> for Advice {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<&Self> for Advice {
    fn from(advice: &Self) -> Self {
        advice.clone()
    }
}

/// Serializes as the text for the command line, whose `-o json` this is.
impl Serialize for Advice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&render_for_cli(self))
    }
}

impl Advice {
    /// Suggests the known name that is most similar to `given`, if any is.
    #[must_use]
    pub fn suggesting<'a>(self, given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match suggest::closest(given, known) {
            Some(name) => Self::DidYouMean { name: name.to_owned(), otherwise: Box::new(self) },
            None => self,
        }
    }
}

/// Renders advice with commands and flags.
#[must_use]
pub fn render_for_cli(advice: &Advice) -> String {
    match advice {
        Advice::Resolve(reason) => resolve_hint(*reason),
        Advice::Follow(run) => format!("Follow the log with `dispatcher logs -f {run}`."),
        Advice::WaitForWorkspace(run) => {
            format!("The run is queued; wait for it with `dispatcher wait {run}`.")
        }
        Advice::Retry { run, reason } => {
            format!("{} Run `dispatcher retry {run}`.", resolve_hint(*reason))
        }
        Advice::RetryWithGuidance { run, reason } => {
            format!("{} Run `dispatcher retry {run} --guidance \"...\"`.", resolve_hint(*reason))
        }
        Advice::WaitOrStop(run) => format!(
            "Wait for it with `dispatcher wait {run}` or stop it with `dispatcher stop {run}`, then retry."
        ),
        Advice::RetryOrStartFresh => {
            "Use `--retry` to continue on the same branch and session, or `--fresh` \
                                      to start over on a new branch."
                .to_owned()
        }
        Advice::SubmitFirstAttempt => "Submit without `--retry`; service, agent and task must match the \
                                       earlier attempt."
            .to_owned(),
        Advice::SubmitTask => "Submit a task with `dispatcher submit --task ID --service NAME`.".to_owned(),
        Advice::ListRuns { newest } if newest.is_empty() => "List runs with `dispatcher list`.".to_owned(),
        Advice::ListRuns { newest } => match newest.as_slice() {
            [only] => format!("The newest run is {only}. List all with `dispatcher list`."),
            newest => format!("The newest runs are {}. List all with `dispatcher list`.", join_names(newest)),
        },
        Advice::DidYouMean { name, otherwise } => {
            format!("Did you mean `{name}`? {}", render_for_cli(otherwise))
        }
        Advice::SelectRun => "Use a run name from `dispatcher list`.".to_owned(),
        Advice::ShowStatus(run) => format!("Show its status with `dispatcher status {run}`."),
        Advice::CheckOut(run) => format!("Check out its branch with `dispatcher checkout {run}`."),
        Advice::ReadLog(run) => format!("Read the log with `dispatcher logs {run}`."),
        Advice::SetService => "Set the service with `--service`.".to_owned(),
        Advice::SetRepositoryUrl => "Set it with `--repository-url`.".to_owned(),
        Advice::SetPlatformRepositoryUrl => {
            "Set it with `--platform-repository-url`, or work in a clone of the platform repository."
                .to_owned()
        }
        Advice::Text(text) => text.clone().into_owned(),
    }
}

/// Returns a reason's hint with the command or flag that helps.
fn resolve_hint(reason: Reason) -> String {
    let hint = reason.hint();
    if reason == Reason::DiskFull {
        format!(
            "{hint} `dispatcher gc --workspaces` lists the workspaces and can remove them; `dispatcher gc` removes \
             the records of old runs."
        )
    } else if reason == Reason::AgentCliNotFound {
        format!("{hint} `--claude PATH` sets it.")
    } else {
        hint.to_owned()
    }
}

/// Joins run names with commas.
#[must_use]
pub fn join_names(runs: &[RunName]) -> String {
    runs.iter().map(RunName::as_str).collect::<Vec<&str>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One value of each variant.
    pub(crate) fn samples() -> Vec<Advice> {
        let run = || RunName::new("trader-claude-agent-1-task1-attempt2").unwrap();
        vec![
            Advice::Resolve(Reason::Completed),
            Advice::Resolve(Reason::DiskFull),
            Advice::Resolve(Reason::AgentCliNotFound),
            Advice::Follow(run()),
            Advice::WaitForWorkspace(run()),
            Advice::Retry { run: run(), reason: Reason::Stopped },
            Advice::RetryWithGuidance { run: run(), reason: Reason::AgentBlocked },
            Advice::WaitOrStop(run()),
            Advice::RetryOrStartFresh,
            Advice::SubmitFirstAttempt,
            Advice::SubmitTask,
            Advice::ListRuns { newest: Vec::new() },
            Advice::ListRuns { newest: vec![run(), RunName::new("other").unwrap()] },
            Advice::SelectRun.suggesting("trader-claude-agent-1-task1-atempt2", [run().as_str()]),
            Advice::SelectRun,
            Advice::ShowStatus(run()),
            Advice::CheckOut(run()),
            Advice::ReadLog(run()),
            Advice::SetService,
            Advice::SetRepositoryUrl,
            Advice::SetPlatformRepositoryUrl,
            Advice::from("Install the OpenSSH client."),
        ]
    }

    /// Replaces the hints of reasons by a placeholder: their words belong to the contract.
    pub(crate) fn without_reason_hints(text: &str) -> String {
        Reason::ALL
            .iter()
            .fold(text.to_owned(), |text, reason| text.replace(reason.hint(), &format!("[{reason}]")))
    }

    #[test]
    fn advice_for_cli_names_commands_with_flags() {
        let lines: Vec<String> = samples().iter().map(render_for_cli).collect();
        insta::assert_snapshot!(without_reason_hints(&lines.join("\n")));
    }
}
