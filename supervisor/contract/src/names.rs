//! Names. A value of these types is always valid.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Maximum length of a run name: the limit of RFC 1123 labels, as in Kubernetes names and labels.
pub const RUN_NAME_MAX: usize = 63;

/// Maximum length of a service name; leaves room for `workspace-` and for the suffix of run names.
pub const SERVICE_NAME_MAX: usize = 40;

/// An invalid name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid {what} `{value}`: {problem}")]
pub struct InvalidName {
    /// Kind of name, such as `service name`.
    pub what: &'static str,
    /// Value as given, escaped and truncated to 80 characters, without credentials.
    pub value: String,
    /// Why the value is invalid or what is expected.
    pub problem: String,
}

fn invalid(what: &'static str, value: &str, problem: impl Into<String>) -> InvalidName {
    let value = value.chars().take(80).flat_map(char::escape_debug).collect();
    InvalidName { what, value, problem: problem.into() }
}

/// Validates an RFC 1123 label: lowercase letters, digits and inner hyphens.
fn validate_label(what: &'static str, value: &str, max: usize) -> Result<(), InvalidName> {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ok = !value.is_empty()
        && value.len() <= max
        && value.chars().all(|c| edge(c) || c == '-')
        && value.starts_with(edge)
        && value.ends_with(edge);
    if ok {
        return Ok(());
    }
    Err(invalid(
        what,
        value,
        format!(
            "expected 1 to {max} lowercase letters, digits and hyphens, \
             starting and ending with a letter or digit"
        ),
    ))
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $pattern:literal, $validate:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("pattern" = $pattern))]
        pub struct $name(String);

        impl $name {
            /// Creates a validated value.
            ///
            /// # Errors
            /// Returns an error if the value is invalid.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                let validate: fn(&str) -> Result<(), InvalidName> = $validate;
                validate(&value)?;
                Ok(Self(value))
            }

            /// Returns the value as a string slice.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

mod repository;

pub use repository::{RepositoryUrl, ScpAddress, Transport};

text_type!(
    /// Name of a service, the unit that owns a persistent workspace; such as `trader`.
    ServiceName,
    "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
    |value| validate_label("service name", value, SERVICE_NAME_MAX)
);

text_type!(
    /// Name of an agent, a configured account; such as `claude-agent-1`.
    AgentName,
    "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
    |value| validate_label("agent name", value, SERVICE_NAME_MAX)
);

text_type!(
    /// Name of a run and of the objects created for it; such as `trader-claude-agent-1-task1-attempt2`.
    RunName,
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    |value| validate_label("run name", value, RUN_NAME_MAX)
);

text_type!(
    /// Branch name as defined by git-check-ref-format(1), without `refs/heads/`.
    BranchName,
    "^[^\\s~^:?*\\[\\\\]+$",
    validate_branch
);

text_type!(
    /// Directory in a repository, relative to the root; `.` is the root.
    WorkingDirectory,
    "^[^/].*$",
    validate_directory
);

fn validate_branch(value: &str) -> Result<(), InvalidName> {
    let component = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock") && !part.ends_with('.')
    };
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\\u{7f}".contains(c);
    let ok = value.len() <= 200
        && !value.starts_with('-')
        && value != "@"
        && value != "HEAD"
        && !value.starts_with("refs/")
        && !value.contains("..")
        && !value.contains("@{")
        && !value.contains(forbidden)
        && value.split('/').all(component);
    if ok {
        return Ok(());
    }
    Err(invalid("branch name", value, "not allowed by git-check-ref-format(1)"))
}

fn validate_directory(value: &str) -> Result<(), InvalidName> {
    let inner = |part: &str| !part.is_empty() && part != ".." && part != "." && part != ".git";
    let trimmed = value.strip_suffix('/').unwrap_or(value);
    let ok = value.len() <= 1000
        && !value.chars().any(char::is_control)
        && !value.contains('\\')
        && (trimmed == "." || trimmed.split('/').all(inner));
    if ok {
        return Ok(());
    }
    Err(invalid(
        "directory",
        value,
        "expected a relative path inside the repository, such as `services/trader`, or `.`",
    ))
}

impl WorkingDirectory {
    /// Returns the path without a trailing slash; empty for the root of the repository.
    #[must_use]
    pub fn relative(&self) -> &str {
        let trimmed = self.0.strip_suffix('/').unwrap_or(&self.0);
        if trimmed == "." { "" } else { trimmed }
    }
}

/// Id of a task in `tasks.json`: 1 to 999999.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(with = "u32", extend("minimum" = 1, "maximum" = 999_999))]
pub struct TaskId(u32);

impl TaskId {
    /// Creates a validated task id.
    ///
    /// # Errors
    /// Returns an error if the number is 0 or above 999999.
    pub fn new(value: u32) -> Result<Self, InvalidName> {
        Self::try_from(value)
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for TaskId {
    type Error = InvalidName;
    fn try_from(value: u32) -> Result<Self, Self::Error> {
        if (1..=999_999).contains(&value) {
            Ok(Self(value))
        } else {
            Err(invalid("task id", &value.to_string(), "expected a number from 1 to 999999"))
        }
    }
}

impl From<TaskId> for u32 {
    fn from(value: TaskId) -> Self {
        value.0
    }
}

impl std::str::FromStr for TaskId {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value.contains('.') && value.split('.').all(|part| part.parse::<u32>().is_ok()) {
            let parent = value.split('.').next().unwrap_or_default();
            return Err(invalid(
                "task id",
                value,
                format!("subtasks are implemented with their task; submit task {parent}"),
            ));
        }
        let number = value
            .parse::<u32>()
            .map_err(|_| invalid("task id", value, "expected the `id` in tasks.json, such as 1"))?;
        Self::try_from(number)
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Kind of a run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Implement a task in the target repository.
    #[default]
    Implementation,
    /// Write task documents in the platform repository.
    Docs,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Implementation, Self::Docs];

    /// Returns the name used in JSON, labels and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Implementation => "implementation",
            Self::Docs => "docs",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == value);
        kind.ok_or_else(|| invalid("kind", value, "expected `implementation` or `docs`"))
    }
}

/// Key of a task; its attempts share one counter.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TaskKey {
    /// Kind of the runs.
    pub kind: Kind,
    /// Service that owns the workspace.
    pub service: ServiceName,
    /// Agent that runs the task.
    pub agent: AgentName,
    /// Task in `tasks.json`; `None` for a docs run over all tasks.
    pub task: Option<TaskId>,
}

impl TaskKey {
    /// Returns a relative path that is unique within the service: `claude-agent-1/task1`.
    #[must_use]
    pub fn slug(&self) -> String {
        let Self { kind, service: _, agent, task } = self;
        match (kind, task) {
            (Kind::Implementation, Some(task)) => format!("{agent}/task{task}"),
            (Kind::Implementation, None) => format!("{agent}/task"),
            (Kind::Docs, Some(task)) => format!("{agent}/docs-task{task}"),
            (Kind::Docs, None) => format!("{agent}/docs"),
        }
    }

    /// Returns the run name of an attempt, which must be at least 1.
    ///
    /// `taken` returns whether another task key already uses a name. Such a name, or one that is too
    /// long, gets a short hash of this key.
    #[must_use]
    pub fn run_name(&self, attempt: u32, taken: impl Fn(&RunName) -> bool) -> RunName {
        let Self { kind: _, service, agent: _, task: _ } = self;
        let slug = self.slug().replace('/', "-");
        let plain = format!("{service}-{slug}-attempt{attempt}");
        if plain.len() <= RUN_NAME_MAX {
            let plain = RunName(plain);
            if !taken(&plain) {
                return plain;
            }
        }
        let suffix = format!("-{}-attempt{attempt}", self.short_hash());
        let mut head = format!("{service}-{slug}");
        head.truncate(RUN_NAME_MAX - suffix.len());
        let head = head.trim_end_matches('-');
        RunName(format!("{head}{suffix}"))
    }

    /// Returns the attempt that a run name stands for, if it is one of this key.
    #[must_use]
    pub fn attempt_of(&self, name: &str) -> Option<(u32, RunName)> {
        let attempt = name.rsplit_once("-attempt")?.1.parse().ok()?;
        let names = [false, true].map(|taken| self.run_name(attempt, |_| taken));
        let run = names.into_iter().find(|run| run.as_str() == name)?;
        Some((attempt, run))
    }

    /// Reads a stored attempt number; `None` if the text is damaged.
    ///
    /// The highest number of the type is damage too: no attempt could follow it.
    #[must_use]
    pub fn parse_attempt(text: &str) -> Option<u32> {
        text.trim().parse().ok().filter(|attempt| *attempt < u32::MAX)
    }

    /// Returns eight hexadecimal digits that distinguish task keys with colliding names.
    #[must_use]
    pub fn short_hash(&self) -> String {
        // No service name contains `/`, so different keys hash different texts.
        let digest = Sha256::digest(format!("{}/{}", self.service, self.slug()));
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the branch of a task's attempts: `feature/task-{id}-implementation`.
#[must_use]
pub fn implementation_branch(task: TaskId) -> BranchName {
    BranchName(format!("feature/task-{task}-implementation"))
}

/// Returns the branch of a fresh start: `feature/task-{id}-implementation-{attempt}`.
#[must_use]
pub fn fresh_branch(task: TaskId, attempt: u32) -> BranchName {
    BranchName(format!("feature/task-{task}-implementation-{attempt}"))
}

/// Returns the branch of a docs run: `docs/task-{id}-{number}` or `docs/all-tasks-{number}`.
#[must_use]
pub fn docs_branch(task: Option<TaskId>, number: u32) -> BranchName {
    BranchName(match task {
        Some(task) => format!("docs/task-{task}-{number}"),
        None => format!("docs/all-tasks-{number}"),
    })
}

/// Returns the branch for a run's work if the remote branch is not a fast-forward.
#[must_use]
pub fn sibling_branch(branch: &BranchName, run: &RunName) -> BranchName {
    BranchName(format!("{branch}--{run}"))
}

#[cfg(test)]
mod tests;
