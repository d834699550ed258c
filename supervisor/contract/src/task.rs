//! What a run is asked to do: one JSON value, validated in one place.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{
    AgentName, BranchName, Kind, RepositoryUrl, RunName, ServiceName, TaskId, TaskKey, WorkingDirectory,
};

/// A run, as the dispatcher asks for it and the supervisor performs it.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// The contract's version: 1.
    pub version: u32,
    /// The run's name, unique for all time within the service.
    pub run: RunName,
    /// What the run is for.
    #[serde(default)]
    pub kind: Kind,
    /// The service whose workspace is used.
    pub service: ServiceName,
    /// Who works.
    pub agent: AgentName,
    /// The task; none for a docs run over all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// How this attempt relates to earlier ones.
    #[serde(default)]
    pub mode: Mode,
    /// The model, by any name that the Claude CLI takes.
    #[serde(default = "default_model")]
    pub model: String,
    /// How documents are written; only for docs runs, which may leave it out as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<DocsOptions>,
    /// What the agent is told beyond the task's documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<String>,
    /// The code to change.
    pub target: Target,
    /// Where the task's documents are.
    pub platform: Platform,
    /// The account on the git host; the agent's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github_user: Option<String>,
    /// Name and address on commits; made from the account if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_identity: Option<CommitIdentity>,
    /// What the run may use up.
    #[serde(default)]
    pub limits: Limits,
    /// Commands that run before the agent, as the agent would run them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Commands that must succeed on the agent's work, without credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<String>,
    /// The MCP servers by name; the configured defaults if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<String>>,
    /// Whether a pull request is wanted.
    #[serde(default)]
    pub pull_request: PullRequestPolicy,
    /// What is removed from the working tree between two tasks.
    #[serde(default)]
    pub clean: CleanMode,
    /// Paths (gitignore patterns) that a run may not change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths: Vec<String>,
}

fn default_model() -> String {
    "sonnet".to_owned()
}

/// How a docs run writes documents.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocsOptions {
    /// Writes documents again that are there; the old text is the agent's starting point.
    pub force: bool,
    /// How many conversations are held at once, each about one task.
    #[schemars(range(min = 1, max = 16))]
    pub concurrency: u32,
}

impl Default for DocsOptions {
    fn default() -> Self {
        // One agent with its MCP servers takes about 500 MB of memory.
        Self { force: false, concurrency: 2 }
    }
}

/// The code to change; for a docs run the platform repository, at the branch that its
/// pull request is for.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The repository.
    pub url: RepositoryUrl,
    /// The base branch; the remote's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BranchName>,
    /// Where in the repository the agent works; found by the service's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<WorkingDirectory>,
    /// How many commits of history are fetched.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub depth: u32,
}

fn default_depth() -> u32 {
    1
}

/// Where the task's documents are.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// The repository.
    pub url: RepositoryUrl,
    /// The branch; the remote's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// The folder that holds `.taskmaster`; looked for if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs_directory: Option<WorkingDirectory>,
}

/// How an attempt relates to earlier ones.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The first attempt: a new branch from the base.
    #[default]
    First,
    /// Goes on where the last attempt ended: same branch, same conversation.
    Retry,
    /// Starts over: a new branch from the base, a new conversation, a new pull request.
    Fresh,
}

/// Name and address on commits.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CommitIdentity {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

/// What a run may use up. Each limit ends the run with its work saved and pushed.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Minutes of wall time from the start of preparation to the end of verification.
    #[schemars(range(min = 0.01, max = 10_080.0))]
    pub timeout_minutes: f64,
    /// Minutes without any output of the agent.
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub idle_minutes: f64,
    /// Agent turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub turns: Option<u32>,
    /// US dollars, by the CLI's own figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: Option<f64>,
    /// Minutes to wait while another run holds the workspace.
    #[schemars(range(min = 0.0, max = 10_080.0))]
    pub queue_minutes: f64,
    /// Minutes that all verify commands together may take.
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub verify_minutes: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Long enough for a large task, short enough to be found the same day.
            timeout_minutes: 120.0,
            // The CLI itself can be silent for 6 minutes while the API does not answer.
            idle_minutes: 15.0,
            turns: None,
            cost_usd: None,
            queue_minutes: 240.0,
            verify_minutes: 30.0,
        }
    }
}

/// Whether a pull request is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestPolicy {
    /// Open one where the host is known to have them.
    #[default]
    Create,
    /// The pushed branch is all that is wanted.
    None,
}

/// What is removed from the working tree between two tasks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanMode {
    /// Everything but ignored files, so that build output is kept.
    #[default]
    Untracked,
    /// Ignored files as well.
    All,
}

/// A fault of a task, with the field that has it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field, as a path such as `target.url`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl TaskSpec {
    /// Reads a task and reports every fault found, not only the first.
    ///
    /// # Errors
    /// The faults: malformed JSON (with line and column), unknown or missing
    /// fields, invalid names, limits out of range.
    pub fn from_json(text: &str) -> Result<Self, Vec<FieldError>> {
        let fault = |field: &str, problem: String| FieldError { field: field.to_owned(), message: problem };
        let object: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| vec![fault("task", error.to_string())])?;
        match serde_json::from_str::<Self>(text) {
            Ok(task) => {
                let faults = task.validate();
                if faults.is_empty() { Ok(task) } else { Err(faults) }
            }
            Err(first) => {
                let faults = decode_fields(&object);
                Err(if faults.is_empty() { vec![fault("task", first.to_string())] } else { faults })
            }
        }
    }

    /// What is wrong with the task as a whole, beyond the form of its fields.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut check = |bad: bool, field: &str, problem: &str| {
            if bad {
                faults.push(FieldError { field: field.to_owned(), message: problem.to_owned() });
            }
        };
        check(self.version != crate::VERSION, "version", "is not 1, the only version this program knows");
        check(self.attempt == 0, "attempt", "is 0: attempts are counted from 1");
        check(
            self.kind == Kind::Implementation && self.task_id.is_none(),
            "task_id",
            "is missing: an implementation run needs a task",
        );
        check(
            self.mode != Mode::First && self.attempt == 1,
            "mode",
            "is retry or fresh, but this is the first attempt",
        );
        check(
            self.model.is_empty()
                || self.model.starts_with('-')
                || self.model.chars().any(|c| c.is_control() || c.is_whitespace()),
            "model",
            "is no model name: give one such as `sonnet`",
        );
        check(
            self.guidance.as_ref().is_some_and(|text| text.len() > GUIDANCE_MAX),
            "guidance",
            "is longer than 256 KiB: put long texts into the task's documents",
        );
        self.validate_docs(&mut check);
        check(self.target.depth == 0, "target.depth", "is 0: at least one commit is needed");
        if let Some(identity) = &self.commit_identity {
            let bad = |text: &str| text.trim().is_empty() || text.contains(['<', '>', '\n', '\0']);
            check(
                bad(&identity.name) || bad(&identity.email),
                "commit_identity",
                "has an empty or malformed name or e-mail",
            );
        }
        for (field, value, least, most) in [
            ("limits.minutes", self.limits.timeout_minutes, 0.01, 10_080.0),
            ("limits.idle_minutes", self.limits.idle_minutes, 0.01, 1_440.0),
            ("limits.queue_minutes", self.limits.queue_minutes, 0.0, 10_080.0),
            ("limits.verify_minutes", self.limits.verify_minutes, 0.01, 1_440.0),
            ("limits.cost_usd", self.limits.cost_usd.unwrap_or(1.0), 0.000_001, 1e6),
        ] {
            let problem = format!("is {value}: give a number from {least} to {most}");
            check(!(least..=most).contains(&value), field, &problem);
        }
        check(self.limits.turns == Some(0), "limits.turns", "is 0: give at least 1, or leave it out");
        faults
    }

    /// What is wrong with the parts of a task that only one kind of run has.
    fn validate_docs(&self, check: &mut impl FnMut(bool, &str, &str)) {
        if self.kind == Kind::Implementation {
            check(self.docs.is_some(), "docs", "is only for docs runs: leave it out");
            return;
        }
        check(
            self.target.url != self.platform.url,
            "target.url",
            "is not the platform repository, which a docs run writes: give `platform.url` here as well",
        );
        check(
            self.platform.branch.is_some() && self.platform.branch != self.target.base,
            "platform.branch",
            "is not `target.base`, which a docs run reads and writes: leave it out",
        );
        check(
            self.target.working_directory.is_some(),
            "target.working_directory",
            "means nothing in a docs run: give `platform.docs_directory`, the folder that holds `.taskmaster`",
        );
        check(!self.verify.is_empty(), "verify", "means nothing in a docs run: leave it out");
        check(!self.setup.is_empty(), "setup", "means nothing in a docs run: leave it out");
        check(
            !(1..=16).contains(&self.docs_options().concurrency),
            "docs.concurrency",
            "is no number from 1 to 16",
        );
    }

    /// How documents are written, with every default.
    #[must_use]
    pub fn docs_options(&self) -> DocsOptions {
        self.docs.clone().unwrap_or_default()
    }

    /// Who does what: the attempts of one identity are numbered together.
    #[must_use]
    pub fn identity(&self) -> TaskKey {
        TaskKey {
            kind: self.kind,
            service: self.service.clone(),
            agent: self.agent.clone(),
            task: self.task_id,
        }
    }

    /// The account on the git host.
    #[must_use]
    pub fn github_account(&self) -> &str {
        self.github_user.as_deref().unwrap_or(self.agent.as_str())
    }

    /// The name and address on the supervisor's own commits.
    #[must_use]
    pub fn commit_identity_or_default(&self) -> CommitIdentity {
        self.commit_identity.clone().unwrap_or_else(|| CommitIdentity {
            name: self.github_account().to_owned(),
            email: format!("{}@users.noreply.github.com", self.github_account()),
        })
    }
}

/// Longest guidance in bytes: a ConfigMap that carries it stays under its limit of 1 MiB.
pub const GUIDANCE_MAX: usize = 256 * 1024;

/// Decodes each field on its own, so that one bad field does not hide another.
fn decode_fields(object: &BTreeMap<String, serde_json::Value>) -> Vec<FieldError> {
    fn try_decode<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Option<String> {
        serde_json::from_value::<T>(value.clone()).err().map(|error| error.to_string())
    }
    let mut faults = Vec::new();
    for (field, value) in object {
        let problem = match field.as_str() {
            "version" | "attempt" => try_decode::<u32>(value),
            "run" => try_decode::<RunName>(value),
            "kind" => try_decode::<Kind>(value),
            "service" => try_decode::<ServiceName>(value),
            "agent" => try_decode::<AgentName>(value),
            "task_id" => try_decode::<Option<TaskId>>(value),
            "mode" => try_decode::<Mode>(value),
            "docs" => try_decode::<Option<DocsOptions>>(value),
            "model" => try_decode::<String>(value),
            "guidance" | "github_user" => try_decode::<Option<String>>(value),
            "target" => try_decode::<Target>(value),
            "platform" => try_decode::<Platform>(value),
            "commit_identity" => try_decode::<Option<CommitIdentity>>(value),
            "limits" => try_decode::<Limits>(value),
            "setup" | "verify" | "protected_paths" => try_decode::<Vec<String>>(value),
            "mcp_servers" => try_decode::<Option<Vec<String>>>(value),
            "pull_request" => try_decode::<PullRequestPolicy>(value),
            "clean" => try_decode::<CleanMode>(value),
            _ => Some("is no field of a task".to_owned()),
        };
        faults.extend(problem.map(|problem| FieldError { field: field.clone(), message: problem }));
    }
    for field in ["version", "run", "service", "agent", "attempt", "target", "platform"] {
        if !object.contains_key(field) {
            faults.push(FieldError { field: field.to_owned(), message: "is missing".to_owned() });
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{
        "version": 1, "run": "trader-claude-agent-1-task1-attempt1", "service": "trader",
        "agent": "claude-agent-1", "task_id": 1, "attempt": 1,
        "target": {"url": "git@github.com:myorg/trader.git"},
        "platform": {"url": "https://github.com/myorg/platform"}
    }"#;

    #[test]
    fn minimal_task_spec_gets_defaults() {
        let task = TaskSpec::from_json(MINIMAL).unwrap();
        assert_eq!(task.model, "sonnet");
        assert_eq!(task.limits, Limits::default());
        assert_eq!(task.commit_identity_or_default().email, "claude-agent-1@users.noreply.github.com");
    }

    #[test]
    fn task_spec_errors_are_all_reported() {
        let bad = MINIMAL
            .replace("\"trader\"", "\"../x\"")
            .replace("\"attempt\": 1", "\"attempt\": -1, \"colour\": 2");
        let faults = TaskSpec::from_json(&bad).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["attempt", "colour", "service"]);
    }

    #[test]
    fn docs_task_spec_must_target_platform_repository() {
        let docs = MINIMAL.replace("\"task_id\": 1", "\"kind\": \"docs\", \"verify\": [\"true\"]");
        let faults = TaskSpec::from_json(&docs).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["target.url", "verify"]);
        let right = docs
            .replace("git@github.com:myorg/trader.git", "https://github.com/myorg/platform")
            .replace(", \"verify\": [\"true\"]", ", \"docs\": {\"force\": true}");
        let task = TaskSpec::from_json(&right).unwrap();
        assert_eq!(task.docs_options(), DocsOptions { force: true, concurrency: 2 });
        let other = MINIMAL.replace("\"task_id\"", "\"docs\": {}, \"task_id\"");
        assert_eq!(TaskSpec::from_json(&other).unwrap_err()[0].field, "docs");
    }

    #[test]
    fn malformed_json_error_has_line_column() {
        let faults = TaskSpec::from_json("{\n  \"version\": 1,\n}").unwrap_err();
        assert!(faults[0].message.contains("line 3 column 1"), "{faults:?}");
    }

    #[test]
    fn task_spec_round_trips_through_json() {
        let task = TaskSpec::from_json(MINIMAL).unwrap();
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(TaskSpec::from_json(&text).unwrap(), task);
    }
}
