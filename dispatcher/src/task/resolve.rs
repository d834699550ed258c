//! Resolves a request into a task spec: fills in what the request leaves out.

use orchestrator_contract::task::{CommitIdentity, DocsOptions, Limits, Platform, Target};
use orchestrator_contract::{BranchName, Kind, Reason, RepositoryUrl, RunName, ServiceName, TaskSpec};

use super::advice::Advice;
use super::model;
use super::request::{Overrides, Request};
use super::settings::{AgentProfile, Defaults, LimitSettings, ServiceSettings};
use crate::error::Error;

/// Everything that a request is resolved against.
#[derive(Clone, Debug, Default)]
pub struct ResolveInput {
    pub defaults: Defaults,
    pub service: ServiceSettings,
    pub agent: AgentProfile,
    /// Path or description of the configuration, for messages.
    pub configuration: String,
    /// The working directory, for messages.
    pub folder: String,
    /// Git remote of the working directory.
    pub remote: Option<RepositoryUrl>,
    /// Why the remote cannot be used, or needs attention.
    pub remote_warning: Option<String>,
    /// Services with runs or an entry in the configuration, for suggestions.
    pub known_services: Vec<ServiceName>,
    /// Target repository of the service's last run.
    pub last_target: Option<RepositoryUrl>,
    /// Task spec of the attempt to retry.
    pub earlier: Option<TaskSpec>,
    /// Checked-out branch, if the working directory is a clone of the platform repository.
    pub open_branch: Option<BranchName>,
}

/// A task spec without its final attempt number and run name.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskDraft(TaskSpec);

impl TaskDraft {
    /// Returns the task spec of attempt `attempt`, named `run`.
    #[must_use]
    pub fn with_attempt(&self, run: RunName, attempt: u32) -> TaskSpec {
        TaskSpec { run, attempt, ..self.0.clone() }
    }

    /// Returns whether the task uses a repository.
    #[must_use]
    pub fn uses(&self, url: &RepositoryUrl) -> bool {
        self.0.target.url.is_same_repository(url) || self.0.platform.url.is_same_repository(url)
    }

    /// Returns whether a task spec differs only in attempt number and run name.
    #[must_use]
    pub fn is_same_as(&self, task: &TaskSpec) -> bool {
        self.with_attempt(task.run.clone(), task.attempt) == *task
    }
}

/// Fills in what the request leaves out.
///
/// # Errors
/// Returns an error if a repository is unknown, naming where it was looked up, or if
/// the resulting task is invalid, listing every invalid field.
pub fn resolve(request: &Request, input: &ResolveInput) -> Result<TaskDraft, Error> {
    let ResolveInput { defaults, service, agent, .. } = input;
    let overrides = &request.overrides;
    let task_key = request.identity();
    let github_user = overrides.github_user.clone().or_else(|| agent.github_user.clone());
    let target = match request.kind {
        Kind::Implementation => Some(target_url(request, input)?),
        Kind::Docs => None,
    };
    let platform = platform_url(request, input)?;
    let mut task = TaskSpec {
        version: orchestrator_contract::VERSION,
        run: task_key.run_name(DRAFT_ATTEMPT, |_| false),
        kind: task_key.kind,
        service: request.service.clone(),
        agent: request.agent.clone(),
        task_id: request.task,
        attempt: DRAFT_ATTEMPT,
        mode: request.mode,
        docs: None,
        model: String::new(),
        guidance: overrides.guidance.clone().filter(|text| !text.trim().is_empty()),
        target: Target {
            url: target.unwrap_or_else(|| platform.clone()),
            base: None,
            working_directory: None,
            depth: service.depth.or(defaults.depth).unwrap_or(DEFAULT_DEPTH),
        },
        platform: Platform {
            url: platform,
            branch: None,
            docs_directory: overrides.docs_directory.clone().or_else(|| service.docs_directory.clone()),
        },
        commit_identity: commit_identity(agent, github_user.as_deref().unwrap_or(request.agent.as_str())),
        github_user,
        limits: limits(overrides, input),
        setup: Vec::new(),
        verify: Vec::new(),
        verify_keep: Vec::new(),
        mcp_servers: either(service.mcp_servers.as_ref(), defaults.mcp_servers.as_ref()),
        pull_request: overrides
            .pull_request
            .or(service.pull_request)
            .or(defaults.pull_request)
            .unwrap_or_default(),
        clean: service.clean.or(defaults.clean).unwrap_or_default(),
        protected_paths: either(service.protected_paths.as_ref(), defaults.protected_paths.as_ref())
            .unwrap_or_default(),
        protected_paths_allow: either(
            service.protected_paths_allow.as_ref(),
            defaults.protected_paths_allow.as_ref(),
        )
        .unwrap_or_default(),
    };
    match request.kind {
        Kind::Implementation => complete_implementation(&mut task, overrides, input),
        Kind::Docs => complete_docs(&mut task, overrides, input),
    }
    task.model = model::parse(&task.model, defaults.models.as_deref().unwrap_or_default())?;
    let errors = task.validate();
    if errors.is_empty() { Ok(TaskDraft(task)) } else { Err(Error::from_field_errors(&errors)) }
}

/// Sets what only an implementation has.
fn complete_implementation(task: &mut TaskSpec, overrides: &Overrides, input: &ResolveInput) {
    let ResolveInput { defaults, service, .. } = input;
    let overrides = overrides.clone();
    task.model = overrides.model.or_else(|| defaults.model.clone()).unwrap_or_else(|| MODEL.to_owned());
    task.target.base =
        overrides.branch.or_else(|| service.branch.clone()).or_else(|| defaults.branch.clone());
    task.target.working_directory = overrides.working_directory.or_else(|| service.working_directory.clone());
    task.platform.branch = overrides.platform_branch.or_else(|| defaults.platform_branch.clone());
    task.setup = overrides
        .setup
        .or_else(|| either(service.setup.as_ref(), defaults.setup.as_ref()))
        .unwrap_or_default();
    task.verify = overrides
        .verify
        .or_else(|| either(service.verify.as_ref(), defaults.verify.as_ref()))
        .unwrap_or_default();
    task.verify_keep =
        service.verify_keep.as_ref().or(defaults.verify_keep.as_ref()).cloned().unwrap_or_default();
}

/// Sets what only a docs run has. The service's branch and commands concern its code, not its documents.
fn complete_docs(task: &mut TaskSpec, overrides: &Overrides, input: &ResolveInput) {
    let overrides = overrides.clone();
    task.model = overrides.model.unwrap_or_else(|| DOCS_MODEL.to_owned());
    let is_open = input.remote.as_ref().is_some_and(|remote| remote.is_same_repository(&task.platform.url));
    let open_branch = input.open_branch.clone().filter(|_| is_open);
    task.target.base = overrides.branch.or(overrides.platform_branch).or(open_branch);
    let DocsOptions { force, concurrency } = DocsOptions::default();
    task.docs = Some(DocsOptions {
        force: overrides.force.unwrap_or(force),
        concurrency: overrides.concurrency.unwrap_or(concurrency),
    });
}

fn limits(overrides: &Overrides, input: &ResolveInput) -> Limits {
    let requested = LimitSettings {
        timeout_minutes: overrides.timeout_minutes,
        turns: overrides.turns,
        cost_usd: overrides.cost_usd,
        wait_for_quota_minutes: overrides.wait_for_quota_minutes,
        ..LimitSettings::default()
    };
    requested.over(input.service.limits.over(input.defaults.limits.over(Limits::default())))
}

fn either(one: Option<&Vec<String>>, other: Option<&Vec<String>>) -> Option<Vec<String>> {
    one.or(other).cloned()
}

/// Attempt number of a draft: validated as a possible retry, replaced later.
const DRAFT_ATTEMPT: u32 = 2;

/// Default model of implementations, as in the contract.
const MODEL: &str = "sonnet";

/// Default model of docs runs: implementations depend on their quality.
const DOCS_MODEL: &str = "opus";

/// Default number of commits to fetch, as in the contract.
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

fn target_url(request: &Request, input: &ResolveInput) -> Result<RepositoryUrl, Error> {
    let service = request.service.as_str();
    let own = input.remote.as_ref().filter(|remote| is_service_repository(remote, service));
    let found = request
        .overrides
        .repository_url
        .as_ref()
        .or(input.service.repository_url.as_ref())
        .or(input.earlier.as_ref().map(|task| &task.target.url))
        .or(input.last_target.as_ref())
        .or(own);
    if let Some(url) = found {
        return Ok(url.clone());
    }
    let open = match &input.remote {
        Some(remote) => format!(
            "the name of the open repository, `{}`, is neither `{service}` nor ends in `-{service}`",
            remote.name()
        ),
        None => no_remote(input),
    };
    Err(Error::new(
        Reason::InvalidTask,
        format!(
            "unknown repository of service `{service}`: {} has no `repository_url` in \
             `[services.{service}]`, the service has no earlier run, and {open}",
            input.configuration
        ),
    )
    .with_hint(
        Advice::SetRepositoryUrl.suggesting(service, input.known_services.iter().map(ServiceName::as_str)),
    ))
}

fn no_remote(input: &ResolveInput) -> String {
    match &input.remote_warning {
        Some(warning) => warning.clone(),
        None => format!("the directory {} has no git remote", input.folder),
    }
}

/// Returns whether a repository's name equals the service or ends in `-{service}`, ignoring case.
fn is_service_repository(remote: &RepositoryUrl, service: &str) -> bool {
    let (name, service) = (remote.name().to_lowercase(), service.to_lowercase());
    name == service || name.strip_suffix(&service).is_some_and(|head| head.ends_with('-') && head.len() > 1)
}

fn platform_url(request: &Request, input: &ResolveInput) -> Result<RepositoryUrl, Error> {
    let found = request
        .overrides
        .platform_repository_url
        .as_ref()
        .or(input.defaults.platform_repository_url.as_ref())
        .or(input.earlier.as_ref().map(|task| &task.platform.url))
        .or(input.remote.as_ref());
    found.cloned().ok_or_else(|| {
        Error::new(
            Reason::InvalidTask,
            format!(
                "unknown platform repository: {} has no `platform_repository_url` in \
                 `[defaults]`, and {}",
                input.configuration,
                no_remote(input)
            ),
        )
        .with_hint(Advice::SetPlatformRepositoryUrl)
    })
}

#[cfg(test)]
mod tests {
    use orchestrator_contract::WorkingDirectory;

    use super::*;
    use orchestrator_contract::task::Mode;
    use orchestrator_contract::{AgentName, TaskId};

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

    fn target(request: &Request, input: &ResolveInput) -> Result<String, String> {
        let draft = resolve(request, input).map_err(|error| error.to_string())?;
        Ok(draft.0.target.url.to_string())
    }

    #[test]
    fn target_repository_lookup_follows_documented_order() {
        let mut request = request("trader");
        let mut input = open("git@github.com:myorg/platform-trader.git");
        assert_eq!(target(&request, &input).unwrap(), "git@github.com:myorg/platform-trader.git");
        input.last_target = Some(url("https://host/last/run"));
        assert_eq!(target(&request, &input).unwrap(), "https://host/last/run");
        input.service.repository_url = Some(url("https://host/con/fig"));
        assert_eq!(target(&request, &input).unwrap(), "https://host/con/fig");
        request.overrides.repository_url = Some(url("https://host/fl/ag"));
        assert_eq!(target(&request, &input).unwrap(), "https://host/fl/ag");
    }

    #[test]
    fn similarly_named_repository_is_not_selected() {
        for remote in ["https://h/o/supertrader", "https://h/o/trader-docs", "https://h/o/platform"] {
            let error = resolve(&request("trader"), &open(remote)).unwrap_err();
            assert_eq!(error.hint(), &Advice::SetRepositoryUrl, "{error}");
        }
        for remote in ["https://h/o/trader.git", "https://h/o/Trader", "https://h/o/Platform-TRADER.git"] {
            assert!(target(&request("trader"), &open(remote)).is_ok(), "{remote}");
        }
    }

    #[test]
    fn unknown_service_suggests_similar_known_one() {
        let mut input = open("https://h/o/platform");
        input.known_services = vec![ServiceName::new("trader").unwrap(), ServiceName::new("auth").unwrap()];
        let hint = |service: &str| resolve(&request(service), &input).unwrap_err().hint().clone();
        let suggested = Advice::SetRepositoryUrl.suggesting("tradr", ["trader"]);
        assert_eq!(hint("tradr"), suggested);
        assert_ne!(suggested, Advice::SetRepositoryUrl);
        assert_eq!(hint("payments"), Advice::SetRepositoryUrl);
    }

    #[test]
    fn unknown_target_error_lists_tried_sources() {
        let error = target(&request("trader"), &open("https://h/o/platform")).unwrap_err();
        insta::assert_snapshot!(error, @"unknown repository of service `trader`: /work/orchestrator.toml has no `repository_url` in `[services.trader]`, the service has no earlier run, and the name of the open repository, `platform`, is neither `trader` nor ends in `-trader`");
    }

    #[test]
    fn unknown_platform_error_lists_tried_sources() {
        let mut input = open("https://h/o/trader");
        input.remote = None;
        input.last_target = Some(url("https://h/o/trader"));
        let error = resolve(&request("trader"), &input).unwrap_err();
        assert_eq!(error.hint(), &Advice::SetPlatformRepositoryUrl);
        insta::assert_snapshot!(error, @"unknown platform repository: /work/orchestrator.toml has no `platform_repository_url` in `[defaults]`, and the directory /work has no git remote");
    }

    #[test]
    fn settings_precedence_is_request_service_defaults() {
        let mut input = open("https://h/o/trader");
        input.defaults.limits.timeout_minutes = Some(1.0);
        input.defaults.limits.turns = Some(1);
        input.defaults.limits.queue_minutes = Some(1.0);
        input.defaults.limits.wait_for_quota_minutes = Some(1.0);
        input.service.limits.timeout_minutes = Some(2.0);
        input.service.limits.turns = Some(2);
        input.service.limits.wait_for_quota_minutes = Some(2.0);
        input.defaults.verify = Some(vec!["a".to_owned()]);
        input.service.verify = Some(vec!["b".to_owned()]);
        input.defaults.verify_keep = Some(vec![WorkingDirectory::new("target").unwrap()]);
        let mut request = request("trader");
        let task = resolve(&request, &input).unwrap().0;
        assert_eq!((task.limits.timeout_minutes, task.limits.wait_for_quota_minutes), (2.0, 2.0));
        request.overrides.timeout_minutes = Some(3.0);
        request.overrides.wait_for_quota_minutes = Some(3.0);
        let task = resolve(&request, &input).unwrap().0;
        assert_eq!(task.limits.wait_for_quota_minutes, 3.0);
        assert_eq!(
            (task.limits.timeout_minutes, task.limits.turns, task.limits.queue_minutes),
            (3.0, Some(2), 1.0)
        );
        assert_eq!(task.verify, ["b"]);
        assert_eq!(task.verify_keep[0].relative(), "target");
    }

    #[test]
    fn model_is_normalized_or_refused_at_submission() {
        let mut input = open("https://h/o/trader");
        let mut request = request("trader");
        let resolved = |request: &Request, input: &ResolveInput| {
            resolve(request, input).map(|draft| draft.0.model).map_err(|error| error.to_string())
        };
        assert_eq!(resolved(&request, &input).unwrap(), "sonnet");
        request.overrides.model = Some("OPUS".to_owned());
        assert_eq!(resolved(&request, &input).unwrap(), "opus");
        request.overrides.model = Some("gpt-5".to_owned());
        assert_eq!(resolved(&request, &input).unwrap_err(), "unknown model `gpt-5`");
        input.defaults.models = Some(vec!["gpt-5".to_owned()]);
        assert_eq!(resolved(&request, &input).unwrap(), "gpt-5");
        request.overrides.model = None;
        input.defaults.model = Some("gemini".to_owned());
        assert_eq!(resolved(&request, &input).unwrap_err(), "unknown model `gemini`");
    }

    #[test]
    fn invalid_request_error_names_every_field() {
        let mut request = request("trader");
        request.overrides.timeout_minutes = Some(-1.0);
        request.overrides.turns = Some(0);
        let error = resolve(&request, &open("https://h/o/trader")).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        for field in ["limits.timeout_minutes", "limits.turns"] {
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
