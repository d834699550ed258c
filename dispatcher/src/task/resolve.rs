//! From a request to a task: everything that was not said is filled in here.

use orchestrator_contract::task::{CommitIdentity, DocsOptions, Limits, Platform, Target};
use orchestrator_contract::{BranchName, Kind, Reason, RepositoryUrl, RunName, TaskSpec};

use super::request::Request;
use super::settings::{AgentProfile, Defaults, LimitSettings, ServiceSettings};
use crate::error::Error;

/// What a request is resolved against.
#[derive(Clone, Debug, Default)]
pub struct ResolveInput {
    /// The configuration's defaults.
    pub defaults: Defaults,
    /// The configuration's entry for the service.
    pub service: ServiceSettings,
    /// The configuration's entry for the agent.
    pub agent: AgentProfile,
    /// Where the configuration is, for messages.
    pub configuration: String,
    /// The open folder, for messages.
    pub folder: String,
    /// The open folder's git remote.
    pub remote: Option<RepositoryUrl>,
    /// Why the remote cannot be used as it is.
    pub remote_warning: Option<String>,
    /// The target of the service's last run.
    pub last_target: Option<RepositoryUrl>,
    /// The task that is tried again.
    pub earlier: Option<TaskSpec>,
    /// The branch of the open folder, where that is the platform repository.
    pub open_branch: Option<BranchName>,
}

/// A task that has everything but its attempt's number and name.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskDraft(TaskSpec);

impl TaskDraft {
    /// The task as attempt `attempt`, named `run`.
    #[must_use]
    pub fn with_attempt(&self, run: RunName, attempt: u32) -> TaskSpec {
        TaskSpec { run, attempt, ..self.0.clone() }
    }

    /// Whether the task uses a repository.
    #[must_use]
    pub fn uses(&self, url: &RepositoryUrl) -> bool {
        self.0.target.url == *url || self.0.platform.url == *url
    }

    /// Whether a run was asked for the same.
    #[must_use]
    pub fn is_same_as(&self, task: &TaskSpec) -> bool {
        self.with_attempt(task.run.clone(), task.attempt) == *task
    }
}

/// Fills in what the request leaves out.
///
/// # Errors
/// Says what is missing and where it was looked for, or every fault found.
pub fn resolve(request: &Request, sources: &ResolveInput) -> Result<TaskDraft, Error> {
    let ResolveInput { defaults, service, agent, .. } = sources;
    let wishes = request.overrides.clone();
    let given = LimitSettings {
        timeout_minutes: wishes.timeout_minutes,
        turns: wishes.turns,
        cost_usd: wishes.cost_usd,
        ..LimitSettings::default()
    };
    let identity = request.identity();
    let github_user = wishes.github_user.clone().or_else(|| agent.github_user.clone());
    let either =
        |one: &Option<Vec<String>>, other: &Option<Vec<String>>| one.clone().or_else(|| other.clone());
    let target = match request.kind {
        Kind::Implementation => Some(target_url(request, sources)?),
        Kind::Docs => None,
    };
    let platform = platform_url(request, sources)?;
    let mut task = TaskSpec {
        version: orchestrator_contract::VERSION,
        run: identity.run_name(DRAFT_ATTEMPT, |_| false),
        kind: identity.kind,
        service: request.service.clone(),
        agent: request.agent.clone(),
        task_id: request.task,
        attempt: DRAFT_ATTEMPT,
        mode: request.mode,
        docs: None,
        model: String::new(),
        guidance: wishes.guidance.filter(|text| !text.trim().is_empty()),
        target: Target {
            url: target.unwrap_or_else(|| platform.clone()),
            base: None,
            working_directory: None,
            depth: service.depth.or(defaults.depth).unwrap_or(DEFAULT_DEPTH),
        },
        platform: Platform {
            url: platform,
            branch: None,
            docs_directory: wishes.docs_directory.or_else(|| service.docs_directory.clone()),
        },
        commit_identity: commit_identity(agent, github_user.as_deref().unwrap_or(request.agent.as_str())),
        github_user,
        limits: given.over(service.limits.over(defaults.limits.over(Limits::default()))),
        setup: Vec::new(),
        verify: Vec::new(),
        mcp_servers: either(&service.mcp_servers, &defaults.mcp_servers),
        pull_request: wishes
            .pull_request
            .or(service.pull_request)
            .or(defaults.pull_request)
            .unwrap_or_default(),
        clean: service.clean.or(defaults.clean).unwrap_or_default(),
        protected_paths: either(&service.protected_paths, &defaults.protected_paths).unwrap_or_default(),
    };
    match request.kind {
        Kind::Implementation => {
            task.model = wishes.model.or_else(|| defaults.model.clone()).unwrap_or_else(|| MODEL.to_owned());
            task.target.base =
                wishes.branch.or_else(|| service.branch.clone()).or_else(|| defaults.branch.clone());
            task.target.working_directory =
                wishes.working_directory.or_else(|| service.working_directory.clone());
            task.platform.branch = wishes.platform_branch.or_else(|| defaults.platform_branch.clone());
            task.setup = wishes.setup.or_else(|| either(&service.setup, &defaults.setup)).unwrap_or_default();
            task.verify =
                wishes.verify.or_else(|| either(&service.verify, &defaults.verify)).unwrap_or_default();
        }
        // What a service's code is built and changed with says nothing about its documents.
        Kind::Docs => {
            task.model = wishes.model.unwrap_or_else(|| DOCS_MODEL.to_owned());
            let open = sources.remote.as_ref() == Some(&task.platform.url);
            let open = sources.open_branch.clone().filter(|_| open);
            task.target.base = wishes.branch.or(wishes.platform_branch).or(open);
            let DocsOptions { force, concurrency: at_once } = DocsOptions::default();
            task.docs = Some(DocsOptions {
                force: wishes.force.unwrap_or(force),
                concurrency: wishes.at_once.unwrap_or(at_once),
            });
        }
    }
    let faults = task.validate();
    if faults.is_empty() { Ok(TaskDraft(task)) } else { Err(Error::from_field_errors(&faults)) }
}

/// A draft is checked as an attempt that may be a retry; its number is replaced later.
const DRAFT_ATTEMPT: u32 = 2;

/// The same as in the contract.
const MODEL: &str = "sonnet";

/// Who writes what others work from is to think longest.
const DOCS_MODEL: &str = "opus";

/// The same as in the contract.
const DEFAULT_DEPTH: u32 = 1;

fn commit_identity(agent: &AgentProfile, account: &str) -> Option<CommitIdentity> {
    let AgentProfile { github_user: _, commit_name, commit_email } = agent;
    if commit_name.is_none() && commit_email.is_none() {
        return None;
    }
    Some(CommitIdentity {
        name: commit_name.clone().unwrap_or_else(|| account.to_owned()),
        email: commit_email.clone().unwrap_or_else(|| format!("{account}@users.noreply.github.com")),
    })
}

fn target_url(request: &Request, sources: &ResolveInput) -> Result<RepositoryUrl, Error> {
    let service = request.service.as_str();
    let own = sources.remote.as_ref().filter(|remote| is_service_repository(remote, service));
    let found = request
        .overrides
        .repository_url
        .as_ref()
        .or(sources.service.repository_url.as_ref())
        .or(sources.earlier.as_ref().map(|task| &task.target.url))
        .or(sources.last_target.as_ref())
        .or(own);
    if let Some(url) = found {
        return Ok(url.clone());
    }
    let open = match &sources.remote {
        Some(remote) => format!(
            "the open repository is `{}`, which is neither `{service}` nor ends in `-{service}`",
            remote.name()
        ),
        None => no_remote(sources),
    };
    Err(Error::new(
        Reason::InvalidTask,
        format!(
            "cannot tell which repository service `{service}` has: {} has no `repository_url` in \
             `[services.{service}]`, the service has no earlier run, and {open}",
            sources.configuration
        ),
    )
    .with_hint("Give it with --repository-url."))
}

fn no_remote(sources: &ResolveInput) -> String {
    match &sources.remote_warning {
        Some(warning) => warning.clone(),
        None => format!("the open folder {} has no git remote", sources.folder),
    }
}

/// Whether a repository is the service's own: its name equals the service or ends in `-{service}`.
fn is_service_repository(remote: &RepositoryUrl, service: &str) -> bool {
    remote.name() == service
        || remote.name().strip_suffix(service).is_some_and(|head| head.ends_with('-') && head.len() > 1)
}

fn platform_url(request: &Request, sources: &ResolveInput) -> Result<RepositoryUrl, Error> {
    let found = request
        .overrides
        .platform_repository_url
        .as_ref()
        .or(sources.defaults.platform_repository_url.as_ref())
        .or(sources.earlier.as_ref().map(|task| &task.platform.url))
        .or(sources.remote.as_ref());
    found.cloned().ok_or_else(|| {
        Error::new(
            Reason::InvalidTask,
            format!(
                "cannot tell where the task documentation is: {} has no `platform_repository_url` in \
                 `[defaults]`, and {}",
                sources.configuration,
                no_remote(sources)
            ),
        )
        .with_hint(
            "Give it with --platform-repository-url, or start from a clone of the platform repository.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::request::Overrides;
    use orchestrator_contract::task::Mode;
    use orchestrator_contract::{AgentName, ServiceName, TaskId};

    fn url(text: &str) -> RepositoryUrl {
        RepositoryUrl::new(text).unwrap()
    }

    fn request(service: &str) -> Request {
        Request {
            kind: Kind::Implementation,
            task: TaskId::new(1).ok(),
            service: ServiceName::new(service).unwrap(),
            agent: AgentName::new("claude-agent-1").unwrap(),
            mode: Mode::First,
            overrides: Overrides::default(),
        }
    }

    fn open(remote: &str) -> ResolveInput {
        ResolveInput {
            configuration: "/work/orchestrator.toml".to_owned(),
            folder: "/work".to_owned(),
            remote: Some(url(remote)),
            ..ResolveInput::default()
        }
    }

    fn target(request: &Request, sources: &ResolveInput) -> Result<String, String> {
        let draft = resolve(request, sources).map_err(|problem| problem.to_string())?;
        Ok(draft.0.target.url.to_string())
    }

    #[test]
    fn target_repository_lookup_follows_documented_order() {
        let mut request = request("trader");
        let mut sources = open("git@github.com:myorg/platform-trader.git");
        assert_eq!(target(&request, &sources).unwrap(), "git@github.com:myorg/platform-trader.git");
        sources.last_target = Some(url("https://host/last/run"));
        assert_eq!(target(&request, &sources).unwrap(), "https://host/last/run");
        sources.service.repository_url = Some(url("https://host/con/fig"));
        assert_eq!(target(&request, &sources).unwrap(), "https://host/con/fig");
        request.overrides.repository_url = Some(url("https://host/fl/ag"));
        assert_eq!(target(&request, &sources).unwrap(), "https://host/fl/ag");
    }

    #[test]
    fn similarly_named_repository_is_not_selected() {
        for remote in ["https://h/o/supertrader", "https://h/o/trader-docs", "https://h/o/platform"] {
            let error = target(&request("trader"), &open(remote)).unwrap_err();
            assert!(error.contains("--repository-url"), "{error}");
        }
        assert!(target(&request("trader"), &open("https://h/o/trader.git")).is_ok());
    }

    #[test]
    fn unknown_target_error_lists_tried_sources() {
        let error = target(&request("trader"), &open("https://h/o/platform")).unwrap_err();
        insta::assert_snapshot!(error, @"cannot tell which repository service `trader` has: /work/orchestrator.toml has no `repository_url` in `[services.trader]`, the service has no earlier run, and the open repository is `platform`, which is neither `trader` nor ends in `-trader`. Give it with --repository-url.");
    }

    #[test]
    fn unknown_platform_error_lists_tried_sources() {
        let mut sources = open("https://h/o/trader");
        sources.remote = None;
        sources.last_target = Some(url("https://h/o/trader"));
        insta::assert_snapshot!(target(&request("trader"), &sources).unwrap_err(), @"cannot tell where the task documentation is: /work/orchestrator.toml has no `platform_repository_url` in `[defaults]`, and the open folder /work has no git remote. Give it with --platform-repository-url, or start from a clone of the platform repository.");
    }

    #[test]
    fn settings_precedence_is_request_service_defaults() {
        let mut sources = open("https://h/o/trader");
        sources.defaults.limits.timeout_minutes = Some(1.0);
        sources.defaults.limits.turns = Some(1);
        sources.defaults.limits.queue_minutes = Some(1.0);
        sources.service.limits.timeout_minutes = Some(2.0);
        sources.service.limits.turns = Some(2);
        sources.defaults.verify = Some(vec!["a".to_owned()]);
        sources.service.verify = Some(vec!["b".to_owned()]);
        let mut request = request("trader");
        request.overrides.timeout_minutes = Some(3.0);
        let task = resolve(&request, &sources).unwrap().0;
        assert_eq!(
            (task.limits.timeout_minutes, task.limits.turns, task.limits.queue_minutes),
            (3.0, Some(2), 1.0)
        );
        assert_eq!(task.verify, ["b"]);
    }

    #[test]
    fn invalid_request_error_names_every_field() {
        let mut request = request("trader");
        request.overrides.timeout_minutes = Some(-1.0);
        request.overrides.turns = Some(0);
        request.overrides.model = Some("--evil".to_owned());
        let problem = resolve(&request, &open("https://h/o/trader")).unwrap_err();
        assert_eq!(problem.exit_code(), 64);
        for field in ["limits.timeout_minutes", "limits.turns", "model"] {
            assert!(problem.to_string().contains(field), "{problem}");
        }
    }
}
