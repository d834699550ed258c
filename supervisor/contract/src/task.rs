//! Task specs: the JSON that tells a supervisor what one attempt does, and its validation.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{
    AgentName, BranchName, Kind, RepositoryUrl, RunName, ServiceName, TaskId, TaskKey, WorkingDirectory,
};

/// What one attempt does; written by the dispatcher, read by the supervisor.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Contract version: 1.
    pub version: u32,
    /// Name of the run; never reused within the service.
    pub run: RunName,
    /// Kind of the run (default: `implementation`).
    #[serde(default)]
    pub kind: Kind,
    /// Service that owns the workspace.
    pub service: ServiceName,
    /// Agent that runs the task.
    pub agent: AgentName,
    /// Task in `tasks.json`; required for implementation runs, absent for a docs run over all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// Attempt number, starting at 1.
    pub attempt: u32,
    /// Relation to earlier attempts (default: `first`).
    #[serde(default)]
    pub mode: Mode,
    /// Model name or alias that the Claude Code CLI accepts (default: `sonnet`).
    #[serde(default = "default_model")]
    pub model: String,
    /// Options of a docs run; not allowed for implementation runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<DocsOptions>,
    /// Extra instructions for the agent; at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<String>,
    /// Repository to change.
    pub target: Target,
    /// Repository that contains the task documents.
    pub platform: Platform,
    /// Account on the git host (default: the agent's name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github_user: Option<String>,
    /// Name and e-mail address on commits (default: the account and its GitHub noreply address).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_identity: Option<CommitIdentity>,
    /// Limits of the run.
    #[serde(default)]
    pub limits: Limits,
    /// Shell commands that run before the agent and before the verify commands, each time in the tree
    /// that follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Shell commands that must succeed on the committed work; they run without credentials, in a clean
    /// export of the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<String>,
    /// Directories of the repository to keep from one verification to the next for speed, such as
    /// `target`; tests of earlier tasks wrote their content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify_keep: Vec<WorkingDirectory>,
    /// Names of the MCP servers (default: the servers that are enabled by default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<String>>,
    /// Whether to open a pull request (default: `create`).
    #[serde(default)]
    pub pull_request: PullRequestPolicy,
    /// Files to remove from the worktree before another task starts (default: `untracked`).
    #[serde(default)]
    pub clean: CleanMode,
    /// Paths that the run must not change, as gitignore patterns; CI workflows always are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths: Vec<String>,
    /// Paths of CI workflows that the run may change, as gitignore patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_paths_allow: Vec<String>,
}

fn default_model() -> String {
    "sonnet".to_owned()
}

/// Options of a docs run.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocsOptions {
    /// Whether to rewrite existing documents; the agent sees the old text (default: false).
    pub force: bool,
    /// Maximum number of concurrent agent sessions, one per task (default: 2).
    #[schemars(range(min = 1, max = 16))]
    pub concurrency: u32,
}

impl Default for DocsOptions {
    fn default() -> Self {
        // A session and its MCP servers use about 500 MB of memory.
        Self { force: false, concurrency: 2 }
    }
}

/// Repository to change; for a docs run the platform repository.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Repository URL; for a docs run the same as `platform.url`.
    pub url: RepositoryUrl,
    /// Base branch (default: the remote's default branch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BranchName>,
    /// Directory in which the agent works (default: determined by the service name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<WorkingDirectory>,
    /// Number of commits of history to fetch (default: 1).
    #[serde(default = "default_depth")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub depth: u32,
}

fn default_depth() -> u32 {
    1
}

/// Repository that contains the task documents.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Repository URL.
    pub url: RepositoryUrl,
    /// Branch to read (default: the remote's default branch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// Directory that contains `.taskmaster` (default: searched for).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs_directory: Option<WorkingDirectory>,
}

/// Relation of an attempt to earlier attempts of the same task.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// First attempt: a new branch from the base.
    #[default]
    First,
    /// Continues the previous attempt: same branch, same session.
    Retry,
    /// Starts over: a new branch from the base, a new session, a new pull request.
    Fresh,
}

/// Name and e-mail address on commits.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CommitIdentity {
    /// Name, without `<`, `>` and line breaks.
    pub name: String,
    /// E-mail address, without `<`, `>` and line breaks.
    pub email: String,
}

/// Limits of a run. A run that reaches one ends after saving and pushing its work.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum duration from preparation to the end of verification, in minutes (default: 120).
    #[schemars(range(min = 0.01, max = 10_080.0))]
    pub timeout_minutes: f64,
    /// Maximum time without agent output, in minutes (default: 15).
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub idle_minutes: f64,
    /// Maximum number of agent turns (default: unlimited).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub turns: Option<u32>,
    /// Maximum cost in US dollars (default: unlimited).
    ///
    /// The model gateway refuses a request that could exceed it, so it is never exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: Option<f64>,
    /// Maximum time to wait while another run holds the workspace, in minutes (default: 240).
    #[schemars(range(min = 0.0, max = 10_080.0))]
    pub queue_minutes: f64,
    /// Maximum duration of all verify commands together, in minutes (default: 30).
    #[schemars(range(min = 0.01, max = 1_440.0))]
    pub verify_minutes: f64,
    /// Maximum time that the run waits for the end of a usage limit of the model, all waits together, in
    /// minutes (default: 0, the run ends immediately).
    ///
    /// Absent if 0: an older supervisor knows no such limit.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0.0, max = 1_440.0))]
    pub wait_for_quota_minutes: f64,
}

fn is_zero(minutes: &f64) -> bool {
    *minutes == 0.0
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Long enough for a large task, short enough to notice a hanging run the same day.
            timeout_minutes: 120.0,
            // The CLI prints nothing for up to 6 minutes while the API does not respond.
            idle_minutes: 15.0,
            turns: None,
            cost_usd: None,
            queue_minutes: 240.0,
            verify_minutes: 30.0,
            wait_for_quota_minutes: 0.0,
        }
    }
}

/// Whether to open a pull request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestPolicy {
    /// Open a pull request if the git host supports it.
    #[default]
    Create,
    /// Push the branch only.
    None,
}

/// Files to remove from the worktree before another task starts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanMode {
    /// Untracked files; ignored files, such as build output, stay.
    #[default]
    Untracked,
    /// Untracked and ignored files.
    All,
}

/// An invalid field of a task spec.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Path of the field, such as `target.url`.
    pub field: String,
    /// Why the value is invalid and what is expected.
    pub message: String,
}

impl TaskSpec {
    /// Parses a task spec from JSON.
    ///
    /// # Errors
    /// Returns every invalid field, not only the first: malformed JSON (with line and column), unknown
    /// or missing fields, invalid names, limits out of range.
    pub fn from_json(text: &str) -> Result<Self, Vec<FieldError>> {
        let task_error =
            |error: &serde_json::Error| FieldError { field: "task".to_owned(), message: error.to_string() };
        let object: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| vec![task_error(&error)])?;
        match serde_json::from_str::<Self>(text) {
            Ok(task) => {
                let errors = task.validate();
                if errors.is_empty() { Ok(task) } else { Err(errors) }
            }
            Err(first) => {
                let errors = decode_fields(&object);
                Err(if errors.is_empty() { vec![task_error(&first)] } else { errors })
            }
        }
    }

    /// Returns the errors that the types of the fields cannot rule out; empty if the spec is valid.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut check = |invalid: bool, field: &str, message: &str| {
            if invalid {
                errors.push(FieldError { field: field.to_owned(), message: message.to_owned() });
            }
        };
        check(self.version != crate::VERSION, "version", "unsupported version; expected 1");
        check(self.attempt == 0, "attempt", "must be at least 1");
        check(
            self.kind == Kind::Implementation && self.task_id.is_none(),
            "task_id",
            "missing; an implementation run requires a task",
        );
        check(self.mode != Mode::First && self.attempt == 1, "mode", "must be `first` for attempt 1");
        check(
            self.model.is_empty()
                || self.model.starts_with('-')
                || self.model.chars().any(|c| c.is_control() || c.is_whitespace()),
            "model",
            "invalid model name; expected a name such as `sonnet`",
        );
        check(
            self.guidance.as_ref().is_some_and(|text| text.len() > GUIDANCE_MAX),
            "guidance",
            "must be at most 256 KiB; long texts belong in the task's documents",
        );
        self.validate_docs(&mut check);
        check(
            self.verify_keep.iter().any(|folder| folder.relative().is_empty()),
            "verify_keep",
            "must name directories below the root of the repository, such as `target`",
        );
        check(self.target.depth == 0, "target.depth", "must be at least 1");
        if let Some(identity) = &self.commit_identity {
            let invalid = |text: &str| text.trim().is_empty() || text.contains(['<', '>', '\n', '\0']);
            check(
                invalid(&identity.name) || invalid(&identity.email),
                "commit_identity",
                "name and e-mail must not be empty or contain `<`, `>` or line breaks",
            );
        }
        for (field, value, min, max) in [
            ("limits.timeout_minutes", self.limits.timeout_minutes, 0.01, 10_080.0),
            ("limits.idle_minutes", self.limits.idle_minutes, 0.01, 1_440.0),
            ("limits.queue_minutes", self.limits.queue_minutes, 0.0, 10_080.0),
            ("limits.verify_minutes", self.limits.verify_minutes, 0.01, 1_440.0),
            ("limits.wait_for_quota_minutes", self.limits.wait_for_quota_minutes, 0.0, 1_440.0),
            ("limits.cost_usd", self.limits.cost_usd.unwrap_or(1.0), 0.000_001, 1e6),
        ] {
            let message = format!("must be from {min} to {max}, not {value}");
            check(!(min..=max).contains(&value), field, &message);
        }
        check(self.limits.turns == Some(0), "limits.turns", "must be at least 1");
        errors
    }

    /// Checks the fields that depend on the kind of the run.
    fn validate_docs(&self, check: &mut impl FnMut(bool, &str, &str)) {
        if self.kind == Kind::Implementation {
            check(self.docs.is_some(), "docs", "allowed for docs runs only");
            return;
        }
        check(
            self.target.url != self.platform.url,
            "target.url",
            "must equal `platform.url`: a docs run writes the platform repository",
        );
        check(
            self.platform.branch.is_some() && self.platform.branch != self.target.base,
            "platform.branch",
            "must be absent or equal `target.base` in a docs run",
        );
        check(
            self.target.working_directory.is_some(),
            "target.working_directory",
            "not allowed in a docs run; set `platform.docs_directory` to the directory that contains `.taskmaster`",
        );
        check(!self.verify.is_empty(), "verify", "not allowed in a docs run");
        check(!self.verify_keep.is_empty(), "verify_keep", "not allowed in a docs run");
        check(!self.setup.is_empty(), "setup", "not allowed in a docs run");
        check(
            !(1..=16).contains(&self.docs_options().concurrency),
            "docs.concurrency",
            "must be from 1 to 16",
        );
    }

    /// Returns the options of a docs run, or their defaults.
    #[must_use]
    pub fn docs_options(&self) -> DocsOptions {
        self.docs.clone().unwrap_or_default()
    }

    /// Returns the task key; its attempts share one counter.
    #[must_use]
    pub fn identity(&self) -> TaskKey {
        TaskKey {
            kind: self.kind,
            service: self.service.clone(),
            agent: self.agent.clone(),
            task: self.task_id,
        }
    }

    /// Returns the account on the git host.
    #[must_use]
    pub fn github_account(&self) -> &str {
        self.github_user.as_deref().unwrap_or(self.agent.as_str())
    }

    /// Returns the name and e-mail address on the supervisor's own commits.
    #[must_use]
    pub fn commit_identity_or_default(&self) -> CommitIdentity {
        self.commit_identity.clone().unwrap_or_else(|| CommitIdentity {
            name: self.github_account().to_owned(),
            email: format!("{}@users.noreply.github.com", self.github_account()),
        })
    }
}

/// Maximum length of guidance in bytes; keeps a ConfigMap that contains it below its limit of 1 MiB.
pub const GUIDANCE_MAX: usize = 256 * 1024;

/// Decodes each field separately, so that one error does not hide another.
fn decode_fields(object: &BTreeMap<String, serde_json::Value>) -> Vec<FieldError> {
    fn try_decode<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Option<String> {
        serde_json::from_value::<T>(value.clone()).err().map(|error| error.to_string())
    }
    let mut errors = Vec::new();
    for (field, value) in object {
        let message = match field.as_str() {
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
            "setup" | "verify" | "protected_paths" | "protected_paths_allow" => {
                try_decode::<Vec<String>>(value)
            }
            "verify_keep" => try_decode::<Vec<WorkingDirectory>>(value),
            "mcp_servers" => try_decode::<Option<Vec<String>>>(value),
            "pull_request" => try_decode::<PullRequestPolicy>(value),
            "clean" => try_decode::<CleanMode>(value),
            _ => Some("unknown field".to_owned()),
        };
        errors.extend(message.map(|message| FieldError { field: field.clone(), message }));
    }
    for field in ["version", "run", "service", "agent", "attempt", "target", "platform"] {
        if !object.contains_key(field) {
            errors.push(FieldError { field: field.to_owned(), message: "missing".to_owned() });
        }
    }
    errors
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
            .replace("\"attempt\": 1", "\"attempt\": -1, \"color\": 2");
        let errors = TaskSpec::from_json(&bad).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["attempt", "color", "service"]);
    }

    #[test]
    fn docs_task_spec_must_target_platform_repository() {
        let docs = MINIMAL.replace("\"task_id\": 1", "\"kind\": \"docs\", \"verify\": [\"true\"]");
        let errors = TaskSpec::from_json(&docs).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
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
    fn kept_directories_must_be_below_repository_root() {
        for (folder, field) in [("target", None), ("web/dist", None), (".", Some("verify_keep"))] {
            let spec =
                MINIMAL.replace("\"task_id\"", &format!("\"verify_keep\": [\"{folder}\"], \"task_id\""));
            let errors = TaskSpec::from_json(&spec).err().unwrap_or_default();
            assert_eq!(errors.first().map(|error| error.field.as_str()), field, "{folder}");
        }
        for folder in ["../target", "/target", "a/../../b", ".git", "a//b", "a/.git/b", ""] {
            let spec =
                MINIMAL.replace("\"task_id\"", &format!("\"verify_keep\": [\"{folder}\"], \"task_id\""));
            assert_eq!(TaskSpec::from_json(&spec).unwrap_err()[0].field, "verify_keep", "{folder}");
        }
    }

    #[test]
    fn malformed_json_error_has_line_column() {
        let errors = TaskSpec::from_json("{\n  \"version\": 1,\n}").unwrap_err();
        assert!(errors[0].message.contains("line 3 column 1"), "{errors:?}");
    }

    #[test]
    fn task_spec_round_trips_through_json() {
        let task = TaskSpec::from_json(MINIMAL).unwrap();
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(TaskSpec::from_json(&text).unwrap(), task);
    }
}
