//! Parses the task from flags and environment variables.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use orchestrator_contract::names::{
    AgentName, BranchName, Kind, RepositoryUrl, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
use orchestrator_contract::task::{
    CleanMode, DocsOptions, FieldError, Limits, Mode, Platform, PullRequestPolicy, Target, TaskSpec,
};

/// The task, from flags and environment variables.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskFlags {
    /// Kind of run
    #[arg(long, env = "ORCHESTRATOR_KIND", value_parser = kind_parser(), default_value_t)]
    pub kind: Kind,
    /// Number of the task in tasks.json
    #[arg(long, env = "ORCHESTRATOR_TASK")]
    pub task: Option<String>,
    /// Write the documents of all tasks (docs runs)
    #[arg(long, env = "ORCHESTRATOR_ALL", conflicts_with = "task")]
    pub all: bool,
    /// Rewrite existing documents; the agent sees the old text (docs runs)
    #[arg(long, env = "ORCHESTRATOR_FORCE")]
    pub force: bool,
    /// Number of tasks to document concurrently (docs runs)
    #[arg(long, env = "ORCHESTRATOR_CONCURRENCY", default_value_t = DocsOptions::default().concurrency)]
    pub concurrency: u32,
    /// Name of the service
    #[arg(long, env = "ORCHESTRATOR_SERVICE")]
    pub service: Option<String>,
    /// Agent that runs the task
    #[arg(long, env = "ORCHESTRATOR_AGENT", default_value = "claude-agent-1")]
    pub agent: String,
    /// Model to use; by default `sonnet`, or `opus` for docs runs
    #[arg(long, env = "ORCHESTRATOR_MODEL")]
    pub model: Option<String>,
    /// URL of the repository to change; not for docs runs
    #[arg(long, env = "ORCHESTRATOR_REPOSITORY_URL")]
    pub repository_url: Option<String>,
    /// URL of the platform repository, which contains `.taskmaster`
    #[arg(long, env = "ORCHESTRATOR_PLATFORM_REPOSITORY_URL")]
    pub platform_repository_url: Option<String>,
    /// Base branch of the pull request; by default that of the remote
    #[arg(long, env = "ORCHESTRATOR_BRANCH")]
    pub branch: Option<String>,
    /// Branch of the platform repository; by default that of the remote
    #[arg(long, env = "ORCHESTRATOR_PLATFORM_BRANCH")]
    pub platform_branch: Option<String>,
    /// Directory of the platform repository that contains `.taskmaster`
    #[arg(long, env = "ORCHESTRATOR_DOCS_DIRECTORY")]
    pub docs_directory: Option<String>,
    /// Directory of the repository that the agent works in
    ///
    /// For docs runs the same as --docs-directory.
    #[arg(long, env = "ORCHESTRATOR_WORKING_DIRECTORY")]
    pub working_directory: Option<String>,
    /// Account name on the git host
    #[arg(long, env = "ORCHESTRATOR_GITHUB_USER")]
    pub github_user: Option<String>,
    /// Resume the work of the last attempt
    #[arg(long, env = "ORCHESTRATOR_RETRY", conflicts_with = "fresh")]
    pub retry: bool,
    /// Start over on a new branch
    #[arg(long, env = "ORCHESTRATOR_FRESH")]
    pub fresh: bool,
    /// Extra instructions for the agent
    #[arg(long, env = "ORCHESTRATOR_GUIDANCE")]
    pub guidance: Option<String>,
    /// Command that must succeed on the agent's work (repeatable)
    #[arg(long, env = "ORCHESTRATOR_VERIFY", value_delimiter = '\n')]
    pub verify: Vec<String>,
    /// Directory to keep from one verification to the next, such as `target` (repeatable)
    #[arg(long, env = "ORCHESTRATOR_VERIFY_KEEP", value_delimiter = '\n')]
    pub verify_keep: Vec<WorkingDirectory>,
    /// Command to run before the agent (repeatable)
    #[arg(long, env = "ORCHESTRATOR_SETUP", value_delimiter = '\n')]
    pub setup: Vec<String>,
    /// MCP server to use instead of the default ones (repeatable)
    #[arg(long = "mcp-server", env = "ORCHESTRATOR_MCP_SERVERS", value_delimiter = ',')]
    pub mcp_servers: Option<Vec<String>>,
    /// Push the branch without opening a pull request
    #[arg(long, env = "ORCHESTRATOR_NO_PULL_REQUEST")]
    pub no_pull_request: bool,
    /// Maximum duration of the run, in minutes
    #[arg(long, env = "ORCHESTRATOR_TIMEOUT_MINUTES", alias = "minutes")]
    pub timeout_minutes: Option<f64>,
    /// Maximum cost of the agent, in US dollars
    #[arg(long, env = "ORCHESTRATOR_COST_USD")]
    pub cost: Option<f64>,
    /// Maximum number of turns of the agent
    #[arg(long, env = "ORCHESTRATOR_TURNS")]
    pub turns: Option<u32>,
    /// Maximum wait for the end of a usage limit of the model, in minutes
    #[arg(long, env = "ORCHESTRATOR_WAIT_FOR_QUOTA", value_name = "MINUTES")]
    pub wait_for_quota: Option<f64>,
    /// Number of commits to fetch
    #[arg(long, env = "ORCHESTRATOR_DEPTH", default_value_t = 1)]
    pub depth: u32,
}

/// Parses a kind; the help lists the values.
fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    let values = Kind::ALL.map(|kind| {
        PossibleValue::new(kind.name()).help(match kind {
            Kind::Implementation => "Implement a task",
            Kind::Docs => "Write the documents of tasks",
        })
    });
    PossibleValuesParser::new(values).try_map(|text| text.parse::<Kind>())
}

/// A task with or without an attempt number.
#[derive(Clone, Debug)]
pub enum TaskInput {
    /// The dispatcher has assigned the attempt number and the run name.
    Assigned(Box<TaskSpec>),
    /// The supervisor assigns the attempt number, in the workspace.
    Unassigned(Box<UnassignedTask>),
}

/// A task without attempt number and run name.
#[derive(Clone, Debug)]
pub struct UnassignedTask {
    /// The task key.
    pub identity: TaskKey,
    mode: Mode,
    flags: TaskFlags,
    target: Target,
    platform: Platform,
}

/// All errors of an invalid task.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TaskError(pub Vec<FieldError>);

impl TaskFlags {
    /// Parses the flags.
    ///
    /// # Errors
    /// Returns every missing flag and every invalid value.
    pub fn parse(self) -> Result<TaskInput, TaskError> {
        let mut parser = Parser { errors: Vec::new() };
        let docs = self.kind == Kind::Docs;
        let task = match (docs, self.all, self.task.as_deref()) {
            (true, true, None) => None,
            (true, false, None) => {
                parser.push_error("--task", "required for a docs run without --all".to_owned());
                None
            }
            (_, _, task) => parser.required::<TaskId>("--task", task),
        };
        if !docs && (self.all || self.force) {
            let flag = if self.all { "--all" } else { "--force" };
            parser.push_error(flag, "requires --kind docs".to_owned());
        }
        let service = parser.required::<ServiceName>("--service", self.service.as_deref());
        let platform_url = self.platform_repository_url.as_deref();
        let platform_url = parser.required::<RepositoryUrl>("--platform-repository-url", platform_url);
        let url = if docs {
            parser.reject("--repository-url", self.repository_url.is_some());
            platform_url.clone()
        } else {
            parser.required::<RepositoryUrl>("--repository-url", self.repository_url.as_deref())
        };
        let agent = parser.required::<AgentName>("--agent", Some(&self.agent));
        let base = parser.optional::<BranchName>("--branch", self.branch.as_deref());
        let platform_branch =
            parser.optional::<BranchName>("--platform-branch", self.platform_branch.as_deref());
        let docs_directory =
            self.docs_directory.as_deref().or(self.working_directory.as_deref().filter(|_| docs));
        let docs_directory = parser.optional::<WorkingDirectory>("--docs-directory", docs_directory);
        let working_directory = self.working_directory.as_deref().filter(|_| !docs);
        let working_directory = parser.optional::<WorkingDirectory>("--working-directory", working_directory);
        let mode = match (self.retry, self.fresh) {
            (true, _) => Mode::Retry,
            (false, true) => Mode::Fresh,
            (false, false) => Mode::First,
        };
        let (Some(service), Some(agent), Some(url), Some(platform_url)) = (service, agent, url, platform_url)
        else {
            return Err(TaskError(parser.errors));
        };
        if !parser.errors.is_empty() {
            return Err(TaskError(parser.errors));
        }
        let unassigned = UnassignedTask {
            identity: TaskKey { kind: self.kind, service, agent, task },
            mode,
            target: Target { url, base, working_directory, depth: self.depth },
            platform: Platform { url: platform_url, branch: platform_branch, docs_directory },
            flags: self,
        };
        // Validates before an attempt number is allocated.
        let attempt = if mode == Mode::First { 1 } else { 2 };
        let errors = unassigned.clone().assign_attempt(attempt).validate();
        if errors.is_empty() {
            Ok(TaskInput::Unassigned(Box::new(unassigned)))
        } else {
            Err(TaskError(errors))
        }
    }
}

/// Returns the default model. Documents are read by every attempt, so a better model pays off.
fn default_model(kind: Kind) -> &'static str {
    match kind {
        Kind::Implementation => "sonnet",
        Kind::Docs => "opus",
    }
}

struct Parser {
    errors: Vec<FieldError>,
}

impl Parser {
    fn push_error(&mut self, flag: &str, message: String) {
        self.errors.push(FieldError { field: flag.to_owned(), message });
    }

    fn reject(&mut self, flag: &str, given: bool) {
        if given {
            self.push_error(flag, "not allowed in a docs run".to_owned());
        }
    }

    fn required<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        flag: &str,
        value: Option<&str>,
    ) -> Option<T> {
        if value.is_none() {
            self.push_error(flag, "required without --task-file".to_owned());
        }
        self.optional(flag, value)
    }

    fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        flag: &str,
        value: Option<&str>,
    ) -> Option<T> {
        let parsed = value?.parse::<T>();
        parsed.map_err(|error| self.push_error(flag, error.to_string())).ok()
    }
}

impl UnassignedTask {
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.identity.kind
    }

    /// Returns how the attempt relates to earlier ones.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the task spec of this attempt.
    #[must_use]
    pub fn assign_attempt(self, attempt: u32) -> TaskSpec {
        let Self { identity, mode, flags, target, platform } = self;
        let defaults = Limits::default();
        TaskSpec {
            version: orchestrator_contract::VERSION,
            run: identity.run_name(attempt, |_| false),
            kind: identity.kind,
            service: identity.service,
            agent: identity.agent,
            task_id: identity.task,
            attempt,
            mode,
            model: flags.model.unwrap_or_else(|| default_model(identity.kind).to_owned()),
            docs: match identity.kind {
                Kind::Implementation => None,
                Kind::Docs => Some(DocsOptions { force: flags.force, concurrency: flags.concurrency }),
            },
            guidance: flags.guidance,
            target,
            platform,
            github_user: flags.github_user,
            commit_identity: None,
            limits: Limits {
                timeout_minutes: flags.timeout_minutes.unwrap_or(defaults.timeout_minutes),
                cost_usd: flags.cost,
                turns: flags.turns,
                wait_for_quota_minutes: flags.wait_for_quota.unwrap_or(defaults.wait_for_quota_minutes),
                ..defaults
            },
            setup: flags.setup,
            verify: flags.verify,
            verify_keep: flags.verify_keep,
            mcp_servers: flags.mcp_servers,
            pull_request: if flags.no_pull_request {
                PullRequestPolicy::None
            } else {
                PullRequestPolicy::Create
            },
            clean: CleanMode::default(),
            protected_paths: Vec::new(),
            protected_paths_allow: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_flags_are_all_reported() {
        let flags = TaskFlags {
            task: Some("one".to_owned()),
            service: Some("../x".to_owned()),
            agent: "a".to_owned(),
            repository_url: Some("https://host/o/r".to_owned()),
            ..TaskFlags::default()
        };
        let error = flags.parse().unwrap_err();
        let fields: Vec<&str> = error.0.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["--task", "--service", "--platform-repository-url"]);
    }

    fn docs(all: bool) -> TaskFlags {
        TaskFlags {
            kind: Kind::Docs,
            all,
            concurrency: 2,
            depth: 1,
            service: Some("trader".to_owned()),
            agent: "claude-agent-1".to_owned(),
            platform_repository_url: Some("https://host/o/platform".to_owned()),
            working_directory: Some("projects/trader".to_owned()),
            ..TaskFlags::default()
        }
    }

    #[test]
    fn docs_flags_need_platform_repository_only() {
        let TaskInput::Unassigned(unassigned) = docs(true).parse().unwrap() else {
            panic!("already assigned")
        };
        let task = unassigned.assign_attempt(1);
        assert_eq!(task.run.as_str(), "trader-claude-agent-1-docs-attempt1");
        assert_eq!((task.target.url, task.model.as_str()), (task.platform.url, "opus"));
        assert_eq!(task.platform.docs_directory.unwrap().as_str(), "projects/trader");
    }

    #[test]
    fn docs_flags_without_task_require_all() {
        let error = docs(false).parse().unwrap_err();
        assert!(error.to_string().contains("--all"), "{error}");
    }
}
