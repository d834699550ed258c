//! What the tools take. Names and forms are checked here, so that whoever calls
//! with a wrong one is told what would be right.

use std::borrow::Cow;
use std::str::FromStr;

use orchestrator_contract::{AgentName, ServiceName, TaskId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::error::Error;

/// A task's number, as a number or as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum TaskIdArg {
    /// `1`
    Number(u32),
    /// `"1"`
    Text(String),
}

impl JsonSchema for TaskIdArg {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}

impl TaskIdArg {
    fn task(&self) -> Result<TaskId, Error> {
        match self {
            Self::Number(number) => TaskId::new(*number),
            Self::Text(text) => {
                let text = text.trim().to_lowercase();
                text.strip_prefix("task").unwrap_or(&text).trim_start_matches([' ', '#', '-']).parse()
            }
        }
        .map_err(|error| {
            Error::invalid_request(error.to_string()).with_hint("Give the task's number, such as 1.")
        })
    }
}

/// Checks an argument that may be left out; an empty text counts as left out.
pub(super) fn parse_optional<T>(text: Option<&str>) -> Result<Option<T>, Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|error: T::Err| Error::invalid_request(error.to_string())))
        .transpose()
}

/// The task's number, if there is one.
pub(super) fn task(number: Option<&TaskIdArg>) -> Result<Option<TaskId>, Error> {
    number
        .filter(|number| !matches!(number, TaskIdArg::Text(text) if text.trim().is_empty()))
        .map(TaskIdArg::task)
        .transpose()
}

/// Which run is meant; all may be left out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunArguments {
    /// The run's name, such as `trader-claude-agent-1-task1-attempt1`; or `current`, `latest`, `task 3`,
    /// the name of a service. Left out: the run at work, else the latest.
    pub run: Option<String>,
    /// Only runs of this service, such as `trader`.
    pub service: Option<String>,
    /// Only runs for this task, such as 1.
    pub task_id: Option<TaskIdArg>,
}

impl RunArguments {
    pub(super) fn service(&self) -> Result<Option<ServiceName>, Error> {
        parse_optional(self.service.as_deref())
    }

    pub(super) fn task(&self) -> Result<Option<TaskId>, Error> {
        task(self.task_id.as_ref())
    }
}

/// What `submit_implementation_task` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitArguments {
    /// The task to implement: its number in tasks.json, such as 1. Required, except for a retry of the
    /// service's last task.
    pub task_id: Option<TaskIdArg>,
    /// The service that the task belongs to, such as `trader`: a short lower-case name. A new name makes a
    /// new workspace, `workspace-{service}`. Required, except for a retry where only one service has runs.
    pub service: Option<String>,
    /// The agent who works, whose GitHub account and credentials are used (default: claude-agent-1; for a
    /// retry, the one of the attempt before).
    pub agent: Option<String>,
    /// The Claude model, such as sonnet or opus (default: sonnet).
    pub model: Option<String>,
    /// The base branch to start from and to merge into (default: main, or whatever the repository's
    /// default branch is). The feature branch gets its own name.
    pub branch: Option<String>,
    /// Try a finished attempt again: same feature branch, same conversation, everything that was made is
    /// kept. Give guidance with it.
    #[serde(default)]
    pub retry: bool,
    /// Start over although there was an attempt: new branch, new conversation, new pull request. Not for a
    /// task's first attempt.
    #[serde(default)]
    pub fresh: bool,
    /// What the agent is told beyond the task's documents: what went wrong before and what to do instead,
    /// in the user's words.
    pub guidance: Option<String>,
    /// With retry: the run to try again, by its name (default: the last finished one that fits).
    pub run: Option<String>,
    /// The git repository with the code to change, such as git@github.com:myorg/trader.git. Found by
    /// itself once the service has one: in the configuration, in its last run, in the open folder.
    pub repository_url: Option<String>,
    /// The git repository with the task documents, the folder `.taskmaster` (default: the remote of the
    /// open folder).
    pub platform_repository_url: Option<String>,
    /// The branch of the task documents (default: that repository's default branch).
    pub platform_branch: Option<String>,
    /// The folder of the platform repository that holds `.taskmaster` (default: looked for).
    pub docs_directory: Option<String>,
    /// The account's name on GitHub (default: configured for the agent, else the agent's name).
    pub github_user: Option<String>,
    /// The folder inside the repository to work in; made if it is not there (default: the service's name
    /// if there is such a folder, the root if the repository is the service's own).
    pub working_directory: Option<String>,
    /// Minutes that the run may take (default: 120).
    pub timeout_minutes: Option<f64>,
    /// US dollars that the run may cost (default: no limit).
    pub cost_usd: Option<f64>,
    /// Turns that the agent may take (default: no limit).
    pub turns: Option<u32>,
}

impl SubmitArguments {
    pub(super) fn service(&self) -> Result<Option<ServiceName>, Error> {
        parse_optional(self.service.as_deref())
    }

    pub(super) fn task(&self) -> Result<Option<TaskId>, Error> {
        task(self.task_id.as_ref())
    }

    pub(super) fn agent(&self) -> Result<Option<AgentName>, Error> {
        parse_optional(self.agent.as_deref())
    }
}

/// What `init_docs` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocsArguments {
    /// The task to document: its number in tasks.json, such as 5. Left out: all tasks.
    pub task_id: Option<TaskIdArg>,
    /// The Claude model, such as opus or sonnet (default: opus).
    pub model: Option<String>,
    /// Write documents again that are there: regenerate, overwrite. Without it they are left alone.
    #[serde(default)]
    pub force: bool,
    /// The folder that holds `.taskmaster` (default: the nearest upwards from the open folder).
    pub working_directory: Option<String>,
    /// The service whose tasks these are (default: the folder or repository that holds `.taskmaster`).
    pub service: Option<String>,
    /// The agent who writes (default: claude-agent-1).
    pub agent: Option<String>,
    /// The branch that is read, and that the pull request is for (default: the one that is open).
    pub branch: Option<String>,
    /// The git repository with the tasks (default: the remote of the open folder).
    pub platform_repository_url: Option<String>,
    /// Go on with an earlier run that failed or was stopped: what is missing is written.
    #[serde(default)]
    pub retry: bool,
    /// What the agent is told beyond the tasks, in the user's words.
    pub guidance: Option<String>,
    /// Minutes that the run may take (default: 120).
    pub timeout_minutes: Option<f64>,
    /// US dollars that the run may cost (default: no limit).
    pub cost_usd: Option<f64>,
    /// Turns that the agents may take in all (default: no limit).
    pub turns: Option<u32>,
}

impl DocsArguments {
    pub(super) fn task(&self) -> Result<Option<TaskId>, Error> {
        task(self.task_id.as_ref())
    }
}

/// What `list_tasks` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListArguments {
    /// Only runs of this service.
    pub service: Option<String>,
    /// Only runs for this task.
    pub task_id: Option<TaskIdArg>,
    /// Only runs in this phase: Pending, Preparing, Running, Publishing, Succeeded, Failed or Stopped.
    pub phase: Option<String>,
    /// At most so many runs (default: 20).
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u32>,
}

/// What `get_task_logs` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsArguments {
    /// The run's name; or `current`, `latest`, `task 3`, the name of a service. Left out: the run at work,
    /// else the latest.
    pub run: Option<String>,
    /// Only runs of this service.
    pub service: Option<String>,
    /// Only runs for this task.
    pub task_id: Option<TaskIdArg>,
    /// Only what came after this cursor: `next` of the answer before. 0 is the beginning.
    pub cursor: Option<u64>,
    /// The last so many lines (default, where no cursor is given: 100).
    #[schemars(range(min = 1, max = 500))]
    pub tail: Option<u32>,
    /// With a cursor: at most so many lines (default: 100).
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<u32>,
}

/// What `wait_for_task` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitArguments {
    /// The run's name; or `current`, `latest`, `task 3`, the name of a service. Left out: the run at work,
    /// else the latest.
    pub run: Option<String>,
    /// Only runs of this service.
    pub service: Option<String>,
    /// Only runs for this task.
    pub task_id: Option<TaskIdArg>,
    /// How long to wait, in seconds (default: 30, at most 45). Call again to wait longer.
    #[schemars(range(min = 0, max = 45))]
    pub timeout_seconds: Option<f64>,
}

/// What `stop_task` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopArguments {
    /// The run's name; or `current`, `task 3`, the name of a service. Left out: the run at work, if there
    /// is only one.
    pub run: Option<String>,
    /// Only runs of this service.
    pub service: Option<String>,
    /// Only runs for this task.
    pub task_id: Option<TaskIdArg>,
    /// Save the work in the workspace without pushing it: faster, but the branch on the remote stays behind.
    #[serde(default)]
    pub now: bool,
}

/// The arguments that say which run is meant are the same in several tools.
macro_rules! which_run {
    ($($arguments:ty),*) => {$(
        impl $arguments {
            pub(super) fn which(&self) -> RunArguments {
                RunArguments {
                    run: self.run.clone(),
                    service: self.service.clone(),
                    task_id: self.task_id.clone(),
                }
            }
        }
    )*};
}
which_run!(SubmitArguments, LogsArguments, WaitArguments, StopArguments);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_argument_accepts_number_or_text() {
        for (json, expected) in [("1", 1), ("\"1\"", 1), ("\"task 3\"", 3), ("\"#12\"", 12), ("\" 7 \"", 7)] {
            let number: TaskIdArg = serde_json::from_str(json).unwrap();
            assert_eq!(task(Some(&number)).unwrap().unwrap().get(), expected, "{json}");
        }
        for json in ["0", "\"1.2\"", "\"one\"", "1000000"] {
            let number: TaskIdArg = serde_json::from_str(json).unwrap();
            assert!(task(Some(&number)).is_err(), "{json}");
        }
    }

    #[test]
    fn blank_argument_is_treated_as_absent() {
        assert_eq!(parse_optional::<ServiceName>(Some(" ")).unwrap(), None);
        assert!(parse_optional::<ServiceName>(Some("No Service")).is_err());
    }
}
