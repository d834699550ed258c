//! A task by flags and environment alone, and a task by file: both become one request.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use orchestrator_contract::names::{
    AgentName, BranchName, Kind, RepositoryUrl, ServiceName, TaskId, TaskKey, WorkingDirectory,
};
use orchestrator_contract::task::{
    CleanMode, DocsOptions, FieldError, Limits, Mode, Platform, PullRequestPolicy, Target, TaskSpec,
};

/// The task by flags and environment alone.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskFlags {
    /// What the run is for: `implementation` of a task, or `docs`: writing the documents of tasks.
    #[arg(long, env = "ORCHESTRATOR_KIND", value_parser = kind_parser(), default_value_t)]
    pub kind: Kind,
    /// The task's number in tasks.json.
    #[arg(long, env = "ORCHESTRATOR_TASK")]
    pub task: Option<String>,
    /// Writes the documents of all tasks (docs runs).
    #[arg(long, env = "ORCHESTRATOR_ALL", conflicts_with = "task")]
    pub all: bool,
    /// Writes documents again that are there (docs runs).
    #[arg(long, env = "ORCHESTRATOR_FORCE")]
    pub force: bool,
    /// How many tasks are documented at once (docs runs).
    #[arg(long, env = "ORCHESTRATOR_CONCURRENCY", default_value_t = DocsOptions::default().concurrency)]
    pub concurrency: u32,
    /// The service.
    #[arg(long, env = "ORCHESTRATOR_SERVICE")]
    pub service: Option<String>,
    /// Who works.
    #[arg(long, env = "ORCHESTRATOR_AGENT", default_value = "claude-agent-1")]
    pub agent: String,
    /// The model; `sonnet` if not given, and `opus` for docs runs.
    #[arg(long, env = "ORCHESTRATOR_MODEL")]
    pub model: Option<String>,
    /// The repository with the code; docs runs have none.
    #[arg(long, env = "ORCHESTRATOR_REPOSITORY_URL")]
    pub repository_url: Option<String>,
    /// The repository with the task's documents.
    #[arg(long, env = "ORCHESTRATOR_PLATFORM_REPOSITORY_URL")]
    pub platform_repository_url: Option<String>,
    /// The branch that the pull request is for; the remote's default if not given.
    #[arg(long, env = "ORCHESTRATOR_BRANCH")]
    pub branch: Option<String>,
    /// The platform's branch; the remote's default if not given.
    #[arg(long, env = "ORCHESTRATOR_PLATFORM_BRANCH")]
    pub platform_branch: Option<String>,
    /// The folder that holds `.taskmaster`.
    #[arg(long, env = "ORCHESTRATOR_DOCS_DIRECTORY")]
    pub docs_directory: Option<String>,
    /// Where in the repository the agent works; for docs runs the same as --docs-directory.
    #[arg(long, env = "ORCHESTRATOR_WORKING_DIRECTORY")]
    pub working_directory: Option<String>,
    /// The account on the git host.
    #[arg(long, env = "ORCHESTRATOR_GITHUB_USER")]
    pub github_user: Option<String>,
    /// Goes on where the last attempt ended.
    #[arg(long, env = "ORCHESTRATOR_RETRY", conflicts_with = "fresh")]
    pub retry: bool,
    /// Starts over on a new branch.
    #[arg(long, env = "ORCHESTRATOR_FRESH")]
    pub fresh: bool,
    /// What the agent is told beyond the documents.
    #[arg(long, env = "ORCHESTRATOR_GUIDANCE")]
    pub guidance: Option<String>,
    /// A command that must succeed on the agent's work. Can be repeated.
    #[arg(long, env = "ORCHESTRATOR_VERIFY", value_delimiter = '\n')]
    pub verify: Vec<String>,
    /// A command that runs before the agent. Can be repeated.
    #[arg(long, env = "ORCHESTRATOR_SETUP", value_delimiter = '\n')]
    pub setup: Vec<String>,
    /// The MCP servers, instead of the default ones. Can be repeated.
    #[arg(long = "mcp-server", env = "ORCHESTRATOR_MCP_SERVERS", value_delimiter = ',')]
    pub mcp_servers: Option<Vec<String>>,
    /// Pushes the branch and opens no pull request.
    #[arg(long, env = "ORCHESTRATOR_NO_PULL_REQUEST")]
    pub no_pull_request: bool,
    /// Minutes that the run may take.
    #[arg(long, env = "ORCHESTRATOR_TIMEOUT_MINUTES", alias = "minutes")]
    pub timeout_minutes: Option<f64>,
    /// US dollars that the agent may cost.
    #[arg(long, env = "ORCHESTRATOR_COST_USD")]
    pub cost: Option<f64>,
    /// Turns that the agent may take.
    #[arg(long, env = "ORCHESTRATOR_TURNS")]
    pub turns: Option<u32>,
    /// How many commits of history are fetched.
    #[arg(long, env = "ORCHESTRATOR_DEPTH", default_value_t = 1)]
    pub depth: u32,
}

/// Parses a kind; the help lists the values.
fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    let values = Kind::ALL.map(|kind| {
        PossibleValue::new(kind.name()).help(match kind {
            Kind::Implementation => "Implements a task",
            Kind::Docs => "Writes the documents of tasks",
        })
    });
    PossibleValuesParser::new(values).try_map(|text| text.parse::<Kind>())
}

/// What is asked for, before an attempt has its number.
#[derive(Clone, Debug)]
pub enum TaskInput {
    /// Numbered and named by the dispatcher.
    Assigned(Box<TaskSpec>),
    /// To be numbered by the supervisor, in the workspace.
    Unassigned(Box<UnassignedTask>),
}

/// A task without attempt number and name.
#[derive(Clone, Debug)]
pub struct UnassignedTask {
    /// Who does what.
    pub identity: TaskKey,
    mode: Mode,
    flags: TaskFlags,
    target: Target,
    platform: Platform,
}

/// A task that cannot be used, with every fault found.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TaskError(pub Vec<FieldError>);

impl TaskFlags {
    /// Parses the flags and reports every fault.
    ///
    /// # Errors
    /// Flags are missing or have invalid values.
    pub fn parse(self) -> Result<TaskInput, TaskError> {
        let mut parse = Parser { faults: Vec::new() };
        let docs = self.kind == Kind::Docs;
        let task = match (docs, self.all, self.task.as_deref()) {
            (true, true, None) => None,
            (true, false, None) => {
                parse.push_error("--task", "is missing: give the task's number, or --all".to_owned());
                None
            }
            (_, _, task) => parse.required::<TaskId>("--task", task),
        };
        if !docs && (self.all || self.force) {
            let flag = if self.all { "--all" } else { "--force" };
            parse.push_error(flag, "is only for docs runs: give --kind docs".to_owned());
        }
        let service = parse.required::<ServiceName>("--service", self.service.as_deref());
        let platform_url = self.platform_repository_url.as_deref();
        let platform_url = parse.required::<RepositoryUrl>("--platform-repository-url", platform_url);
        let url = if docs {
            parse.reject("--repository-url", self.repository_url.is_some());
            platform_url.clone()
        } else {
            parse.required::<RepositoryUrl>("--repository-url", self.repository_url.as_deref())
        };
        let agent = parse.required::<AgentName>("--agent", Some(&self.agent));
        let base = parse.optional::<BranchName>("--branch", self.branch.as_deref());
        let platform_branch =
            parse.optional::<BranchName>("--platform-branch", self.platform_branch.as_deref());
        let named = self.docs_directory.as_deref().or(self.working_directory.as_deref().filter(|_| docs));
        let docs_directory = parse.optional::<WorkingDirectory>("--docs-directory", named);
        let working_directory = self.working_directory.as_deref().filter(|_| !docs);
        let working_directory = parse.optional::<WorkingDirectory>("--working-directory", working_directory);
        let mode = match (self.retry, self.fresh) {
            (true, _) => Mode::Retry,
            (false, true) => Mode::Fresh,
            (false, false) => Mode::First,
        };
        let (Some(service), Some(agent), Some(url), Some(platform_url)) = (service, agent, url, platform_url)
        else {
            return Err(TaskError(parse.faults));
        };
        if !parse.faults.is_empty() {
            return Err(TaskError(parse.faults));
        }
        let unnamed = UnassignedTask {
            identity: TaskKey { kind: self.kind, service, agent, task },
            mode,
            target: Target { url, base, working_directory, depth: self.depth },
            platform: Platform { url: platform_url, branch: platform_branch, docs_directory },
            flags: self,
        };
        // What the numbered task would be refused for is refused now.
        let attempt = if mode == Mode::First { 1 } else { 2 };
        let faults = unnamed.clone().assign_attempt(attempt).validate();
        if faults.is_empty() { Ok(TaskInput::Unassigned(Box::new(unnamed))) } else { Err(TaskError(faults)) }
    }
}

/// The model if none is given. Documents are written once and read by every attempt: the
/// better model pays.
fn model_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Implementation => "sonnet",
        Kind::Docs => "opus",
    }
}

struct Parser {
    faults: Vec<FieldError>,
}

impl Parser {
    fn push_error(&mut self, flag: &str, problem: String) {
        self.faults.push(FieldError { field: flag.to_owned(), message: problem });
    }

    fn reject(&mut self, flag: &str, given: bool) {
        if given {
            self.push_error(flag, "means nothing in a docs run: leave it out".to_owned());
        }
    }

    fn required<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        flag: &str,
        value: Option<&str>,
    ) -> Option<T> {
        if value.is_none() {
            let problem = "is missing: give the flag, its environment variable, or --task-file";
            self.push_error(flag, problem.to_owned());
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
    /// What the run is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.identity.kind
    }

    /// How the attempt relates to earlier ones.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The task of this attempt.
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
            model: flags.model.unwrap_or_else(|| model_of(identity.kind).to_owned()),
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
                ..defaults
            },
            setup: flags.setup,
            verify: flags.verify,
            mcp_servers: flags.mcp_servers,
            pull_request: if flags.no_pull_request {
                PullRequestPolicy::None
            } else {
                PullRequestPolicy::Create
            },
            clean: CleanMode::default(),
            protected_paths: Vec::new(),
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
        let fields: Vec<&str> = error.0.iter().map(|fault| fault.field.as_str()).collect();
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
        let TaskInput::Unassigned(unnamed) = docs(true).parse().unwrap() else { panic!("it has a name") };
        let task = unnamed.assign_attempt(1);
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
