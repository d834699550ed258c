//! Arguments of the tools, parsed into the domain's types with errors that name the valid form.

use std::borrow::Cow;
use std::str::FromStr;

use orchestrator_contract::names::InvalidName;
use orchestrator_contract::{AgentName, ServiceName, TaskId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::error::Error;
use crate::task::service_name;

/// A task number; also text such as `task 3`.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct TaskIdArg(String);

impl JsonSchema for TaskIdArg {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1 })
    }
}

impl TaskIdArg {
    fn task(&self) -> Result<TaskId, Error> {
        let text = self.0.trim().to_lowercase();
        let number = text.strip_prefix("task").unwrap_or(&text).trim_start_matches([' ', '#', '-']);
        number.parse().map_err(|error: InvalidName| {
            Error::invalid_request(error.to_string())
                .with_hint("Use the task's number, such as 1.")
                .in_place("task_id")
        })
    }

    /// Returns whether all tasks are meant.
    fn is_all(&self) -> bool {
        let text = self.0.trim().to_lowercase();
        let words = text.split_whitespace().filter(|word| !matches!(*word, "tasks" | "of" | "them"));
        words.eq(["all"])
    }
}

/// Parses an optional argument; blank text counts as absent.
pub(super) fn parse_optional<T>(parameter: &str, text: Option<&str>) -> Result<Option<T>, Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|error: T::Err| Error::invalid_request(error.to_string()).in_place(parameter))
        })
        .transpose()
}

/// Parses an optional name of a service; blank text counts as absent.
pub(super) fn service(text: Option<&str>, known: &[ServiceName]) -> Result<Option<ServiceName>, Error> {
    let text = text.filter(|text| !text.trim().is_empty());
    let parse = |text| service_name::parse(text, known).map_err(|error| error.in_place("service"));
    text.map(parse).transpose()
}

/// Parses an optional task number.
pub(super) fn task(number: Option<&TaskIdArg>) -> Result<Option<TaskId>, Error> {
    number.map(TaskIdArg::task).transpose()
}

/// Arguments that select a run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunArguments {
    /// Run name, such as `trader-claude-agent-1-task1-attempt1`; also `current`, `latest`, `task 3` or the
    /// name of a service (default: the active run, else the latest).
    pub run: Option<String>,
    /// Service to filter by, such as `trader`.
    pub service: Option<String>,
    /// Task number to filter by, such as 1.
    pub task_id: Option<TaskIdArg>,
}

impl RunArguments {
    pub(super) fn service(&self, known: &[ServiceName]) -> Result<Option<ServiceName>, Error> {
        service(self.service.as_deref(), known)
    }

    pub(super) fn task(&self) -> Result<Option<TaskId>, Error> {
        task(self.task_id.as_ref())
    }
}

/// Arguments of `submit_implementation_task`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitArguments {
    /// Number of the task in tasks.json, such as 1. Required, except to retry the last task of a service.
    pub task_id: Option<TaskIdArg>,
    /// Service that the task belongs to, such as `trader`: a short lowercase name. A new name creates a new
    /// workspace, `workspace-{service}`. Required, except for a retry if only one service has runs.
    pub service: Option<String>,
    /// Agent that runs the task, with its own GitHub account and credentials (default: claude-agent-1; for a
    /// retry, the agent of the earlier attempt).
    pub agent: Option<String>,
    /// Claude model, such as sonnet or opus (default: sonnet).
    pub model: Option<String>,
    /// Base branch to start from and to open the pull request against (default: the repository's default
    /// branch, such as main). The feature branch gets its own name.
    pub branch: Option<String>,
    /// Retry a finished attempt on the same branch and session, keeping its work. Pass `guidance`.
    #[serde(default)]
    pub retry: bool,
    /// Start over despite an earlier attempt: new branch, new session, new pull request. Without an earlier
    /// attempt, the first one.
    #[serde(default)]
    pub fresh: bool,
    /// Extra instructions for the agent beyond the task's documents: what went wrong before and what to do
    /// instead, in the user's words.
    pub guidance: Option<String>,
    /// Name of the run to retry, with `retry` (default: the last finished run that matches).
    pub run: Option<String>,
    /// Git repository with the code to change, such as git@github.com:myorg/trader.git (default: from the
    /// configuration, the service's last run, or the remote of the open folder).
    pub repository_url: Option<String>,
    /// Git repository with the task documents in `.taskmaster` (default: the remote of the open folder).
    pub platform_repository_url: Option<String>,
    /// Branch of the task documents (default: the default branch of their repository).
    pub platform_branch: Option<String>,
    /// Directory of the platform repository that holds `.taskmaster` (default: found automatically).
    pub docs_directory: Option<String>,
    /// GitHub account name (default: the one configured for the agent, else the agent's name).
    pub github_user: Option<String>,
    /// Directory of the repository to work in, such as trading-engine; created if missing (default: the
    /// service's name if such a directory exists, the root if the repository is the service's own).
    pub working_directory: Option<String>,
    /// Maximum minutes for the run (default: 120).
    pub timeout_minutes: Option<f64>,
    /// Maximum cost of the run in US dollars (default: no limit).
    pub cost_usd: Option<f64>,
    /// Maximum number of agent turns (default: no limit).
    pub turns: Option<u32>,
    /// Minutes to wait for the end of a usage limit of the model, at most 1440; the run then resumes
    /// (default: 0, the run ends immediately).
    pub wait_for_quota_minutes: Option<f64>,
}

impl SubmitArguments {
    pub(super) fn service(&self, known: &[ServiceName]) -> Result<Option<ServiceName>, Error> {
        service(self.service.as_deref(), known)
    }

    pub(super) fn task(&self) -> Result<Option<TaskId>, Error> {
        task(self.task_id.as_ref())
    }

    pub(super) fn agent(&self) -> Result<Option<AgentName>, Error> {
        parse_optional("agent", self.agent.as_deref())
    }
}

/// Arguments of `init_docs`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocsArguments {
    /// Number of the task in tasks.json to document, such as 5 (default: all tasks).
    pub task_id: Option<TaskIdArg>,
    /// Claude model, such as opus or sonnet (default: opus).
    pub model: Option<String>,
    /// Rewrite existing documents: regenerate, overwrite (default: keep them).
    #[serde(default)]
    pub force: bool,
    /// Directory that holds `.taskmaster`, such as services/trader (default: the nearest one, from the open
    /// folder upwards).
    pub working_directory: Option<String>,
    /// Service that the tasks belong to, such as `trader` (default: the name of the directory or repository
    /// that holds `.taskmaster`).
    pub service: Option<String>,
    /// Agent that writes the documents (default: claude-agent-1).
    pub agent: Option<String>,
    /// Branch to read the tasks from and to open the pull request against (default: the checked-out branch).
    pub branch: Option<String>,
    /// Git repository with the tasks (default: the remote of the open folder).
    pub platform_repository_url: Option<String>,
    /// Resume an earlier run that failed or was stopped: write the missing documents.
    #[serde(default)]
    pub retry: bool,
    /// Extra instructions for the agent beyond the tasks, in the user's words.
    pub guidance: Option<String>,
    /// Maximum minutes for the run (default: 120).
    pub timeout_minutes: Option<f64>,
    /// Maximum cost of the run in US dollars (default: no limit).
    pub cost_usd: Option<f64>,
    /// Maximum number of turns of all agent sessions together (default: no limit).
    pub turns: Option<u32>,
}

impl DocsArguments {
    /// Returns the task; none for all of them.
    pub(super) fn task(&self) -> Result<Option<TaskId>, Error> {
        task(self.task_id.as_ref().filter(|task| !task.is_all()))
    }
}

/// Arguments of `list_tasks`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListArguments {
    /// Service to filter by, such as `trader`.
    pub service: Option<String>,
    /// Task number to filter by, such as 1.
    pub task_id: Option<TaskIdArg>,
    /// Phase to filter by: Pending, Preparing, Running, Publishing, Succeeded, Failed or Stopped.
    pub phase: Option<String>,
    /// Maximum number of runs to return (default: 20).
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u32>,
}

/// Arguments of `get_task_logs`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsArguments {
    /// Run name; also `current`, `latest`, `task 3` or the name of a service (default: the active run, else
    /// the latest).
    pub run: Option<String>,
    /// Service to filter by, such as `trader`.
    pub service: Option<String>,
    /// Task number to filter by, such as 1.
    pub task_id: Option<TaskIdArg>,
    /// Cursor to read after: `next_cursor` of the previous result. 0 reads from the start.
    pub cursor: Option<u64>,
    /// Number of last lines to return (default without a cursor: 100).
    #[schemars(range(min = 1, max = 500))]
    pub tail: Option<u32>,
    /// Maximum number of lines to return after the cursor (default: 100).
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<u32>,
}

/// Arguments of `wait_for_task`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitArguments {
    /// Run name; also `current`, `latest`, `task 3` or the name of a service (default: the active run, else
    /// the latest).
    pub run: Option<String>,
    /// Service to filter by, such as `trader`.
    pub service: Option<String>,
    /// Task number to filter by, such as 1.
    pub task_id: Option<TaskIdArg>,
    /// Maximum seconds to wait, up to 45 (default: 30). Call again to wait longer.
    #[schemars(range(min = 0, max = 45))]
    pub timeout_seconds: Option<f64>,
}

/// Arguments of `stop_task`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopArguments {
    /// Run name; also `current`, `task 3` or the name of a service (default: the active run, if there is only
    /// one).
    pub run: Option<String>,
    /// Service to filter by, such as `trader`.
    pub service: Option<String>,
    /// Task number to filter by, such as 1.
    pub task_id: Option<TaskIdArg>,
    /// Save the work in the workspace without pushing it: faster, but the remote branch lacks the latest work.
    #[serde(default)]
    pub now: bool,
}

/// Implements the conversion to [`RunArguments`] for tools with the same three arguments.
macro_rules! impl_run_arguments {
    ($($arguments:ty),*) => {$(
        impl $arguments {
            pub(super) fn run_arguments(&self) -> RunArguments {
                RunArguments {
                    run: self.run.clone(),
                    service: self.service.clone(),
                    task_id: self.task_id.clone(),
                }
            }
        }
    )*};
}
impl_run_arguments!(SubmitArguments, LogsArguments, WaitArguments, StopArguments);

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(text: &str) -> TaskIdArg {
        TaskIdArg(text.to_owned())
    }

    #[test]
    fn task_argument_accepts_number_or_text() {
        for (text, expected) in [("1", 1), ("task 3", 3), ("Task #3", 3), ("#12", 12), (" 7 ", 7)] {
            assert_eq!(task(Some(&arg(text))).unwrap().unwrap().get(), expected, "{text}");
        }
        for text in ["0", "1.2", "one", "1000000", "all"] {
            let error = task(Some(&arg(text))).unwrap_err();
            assert!(error.to_string().starts_with("`task_id`: "), "{text}: {error}");
        }
    }

    #[test]
    fn docs_argument_all_means_every_task() {
        for (text, expected) in [("all", None), ("ALL", None), ("all tasks", None), ("5", Some(5))] {
            let arguments = DocsArguments { task_id: Some(arg(text)), ..DocsArguments::default() };
            assert_eq!(arguments.task().unwrap().map(TaskId::get), expected, "{text}");
        }
    }

    #[test]
    fn blank_argument_is_treated_as_absent() {
        assert_eq!(service(Some(" "), &[]).unwrap(), None);
        let error = parse_optional::<AgentName>("agent", Some("No Agent")).unwrap_err();
        assert!(error.to_string().starts_with("`agent`: "), "{error}");
    }
}
