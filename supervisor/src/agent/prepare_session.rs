//! Step `agent`: writes prompt and settings of a session, and builds its command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orchestrator_contract::outcome::McpServer;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Reason, TaskId};

use super::command_line::{
    AgentPaths, CliOptions, Session, compose_arguments, compose_cli_environment, compose_environment,
    compose_message, compose_settings,
};
use super::exit::verdict_schema;
use super::gateway::{Allowance, Gateway};
use super::prompt::{
    PriorAttempt, TaskPromptInput, render_continuation, render_system_prompt, render_task,
    render_verification_failure,
};
use super::session::{SessionCommand, SessionScope};
use super::session_setup::{ConversationFiles, HomeStart, SessionSetup, SetupParams};
use crate::context::Context;
use crate::failure::Failure;
use crate::homes::sessions::SessionStore;
use crate::homes::{CreateError, Home};
use crate::mcp::compose::ServerPlan;
use crate::mcp::relay::{RelayGrant, RelayHost};
use crate::process::Environment;
use crate::run::AgentPrompt;
use crate::sandbox::Role;
use crate::site::Site;
use crate::workspace::branch::{BaseMerge, PreparedBranch};
use crate::workspace::caches;
use crate::workspace::documents::TaskDocuments;
use crate::workspace::fetch::blocking;
use crate::workspace::instructions::read_instructions;
use crate::workspace::preflight::Preflight;
use crate::workspace::state::LastAttempt;

/// Started MCP servers, as the agent uses them.
#[derive(Debug)]
pub struct AgentTools {
    /// Servers for the outcome, including failed and skipped ones.
    pub servers: Vec<McpServer>,
    /// Name and description of each configured server, for the prompt.
    pub described: Vec<(String, String)>,
    /// Relay of the servers in sandboxes of their own.
    pub relay: RelayHost,
    /// Servers that run, for the configuration of each conversation.
    pub plan: ServerPlan,
    /// Fresh directories of this run's conversations.
    pub conversations: Conversations,
    /// Timeout of a tool call, in milliseconds.
    pub tool_timeout_ms: Option<u128>,
}

/// The fresh directories of a run's conversations, by session id.
///
/// A session that continues within the run, after a failed verification or review, keeps its
/// directory.
#[derive(Debug, Default)]
pub struct Conversations(Mutex<BTreeMap<String, Home>>);

impl Conversations {
    fn homes(&self) -> MutexGuard<'_, BTreeMap<String, Home>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory of a session, and what has to be done before the session uses it.
    fn home_of(&self, context: &Context, session: Session<'_>) -> (Home, HomeStart) {
        let (Session::New(id) | Session::Resume(id)) = session;
        let mut homes = self.homes();
        if let Some(home) = homes.get(id) {
            return (home.clone(), HomeStart::Used);
        }
        let home = Home::new(&context.layout.agent_dir());
        homes.insert(id.to_owned(), home.clone());
        let start = match session {
            Session::New(_) => HomeStart::Fresh,
            Session::Resume(_) => HomeStart::Restored,
        };
        (home, start)
    }
}

/// Values that the session of an implementation run receives from earlier steps.
#[derive(Clone, Copy, Debug)]
pub struct SessionInput<'a> {
    pub task: TaskId,
    pub preflight: &'a Preflight,
    /// Name of the base branch.
    pub base: &'a str,
    pub prepared: &'a PreparedBranch,
    pub documents: &'a TaskDocuments,
    pub tools: &'a AgentTools,
}

/// Remainder of the task's limits for one session.
#[derive(Clone, Copy, Debug)]
pub struct RemainingLimits {
    pub turns: Option<u32>,
    pub cost_usd: Option<f64>,
}

/// Session that is ready to start.
#[derive(Debug)]
pub struct PlannedSession {
    pub command: SessionCommand,
    pub session_id: String,
    /// Notes for the outcome.
    pub notes: Vec<String>,
}

/// Creates a fresh directory in `parent` for programs of a site, with private caches.
///
/// # Errors
/// Returns an error if it cannot be created.
pub async fn create_home(context: &Context, site: &Site, parent: PathBuf) -> Result<Home, Failure> {
    let (root, opened) = (context.layout.root().to_owned(), site.clone());
    let home = blocking(move || {
        let home = Home::new(&parent);
        let failed = |error: CreateError| Failure::from_error(error.reason(), &error);
        home.create(&opened.open(&root)?).map_err(failed)?;
        Ok(home)
    })
    .await?;
    caches::seed_home(site, &context.layout.trusted_caches(), &home).await;
    Ok(home)
}

/// Returns the directories of processes that have this fresh directory.
#[must_use]
pub fn agent_paths(context: &Context, site: &Site, home: &Home) -> AgentPaths {
    let surroundings = context.surroundings(site);
    AgentPaths {
        home: home.home(),
        tmp: home.tmp(),
        cache: home.cache(),
        path: surroundings.path,
        rustup_home: surroundings.rustup_home,
    }
}

/// Returns the environment of setup and verify commands, without credentials.
#[must_use]
pub fn base_environment(context: &Context, site: &Site, home: &Home) -> Environment {
    compose_environment(&agent_paths(context, site, home), &context.surroundings(site).variables)
}

/// Plans a session: a new one, the resumed one of the earlier attempt, or `current` again.
///
/// # Errors
/// Returns an error if prompt or settings cannot be written, or if the model has no credential.
pub fn plan_session(
    context: &Context,
    input: &SessionInput<'_>,
    prompt: &AgentPrompt,
    current: Option<&str>,
    limits: RemainingLimits,
) -> Result<PlannedSession, Failure> {
    let SessionInput { task: task_id, preflight, base, prepared, documents, tools } = *input;
    let task = &context.task;
    let directory = context.working_directory(&prepared.working_directory.path);
    let store = SessionStore::new(&context.layout);
    let earlier = prepared.last.as_ref().filter(|_| task.mode == Mode::Retry);
    let resumable = earlier.and_then(|last| last.session.clone()).filter(|session| store.is_stored(session));
    let summary = earlier.map(summarize);
    let (session_id, resumes, history, note) = match (current, resumable, &summary) {
        (Some(current), ..) => (current.to_owned(), true, PriorAttempt::Resumed, None),
        (None, Some(session), _) => (session, true, PriorAttempt::Resumed, None),
        (None, None, Some(summary)) => {
            let why = if earlier.is_some_and(|last| last.refused) {
                "the model API refused to continue the conversation of the earlier attempt"
            } else {
                "the session of the earlier attempt is missing"
            };
            let note = format!("{why}; the agent got a summary");
            (new_session_id(), false, PriorAttempt::Summary(summary.as_str()), Some(note))
        }
        (None, None, None) => (new_session_id(), false, PriorAttempt::None, None),
    };
    let platform = context.layout.platform_repo();
    let instructions = read_instructions(context, prepared);
    let instructions_text = instructions.text();
    let guidance = guidance(context, prepared);
    let prompt_input = TaskPromptInput {
        service: &task.service,
        task: task_id,
        documents,
        platform: &platform,
        working_directory: &directory,
        branch: &prepared.branch,
        base,
        guidance: guidance.as_deref(),
        project_instructions: instructions_text.as_deref(),
        submodules: prepared.submodules.as_deref(),
        servers: &tools.described,
        verify: &task.verify,
        history,
    };
    let message = match prompt {
        AgentPrompt::Task => render_task(&prompt_input),
        AgentPrompt::VerificationFailed(failure) => render_verification_failure(failure),
        AgentPrompt::Continue => render_continuation(),
    };
    let mut notes = Vec::from_iter(note);
    if *prompt == AgentPrompt::Task {
        write(&context.record.prompt(), &message)?;
        notes.extend(instructions.notes);
    }
    let params = SessionParams {
        session: if resumes { Session::Resume(&session_id) } else { Session::New(&session_id) },
        system_prompt: &render_system_prompt(&prompt_input),
        message: &message,
        directory,
        transcript: context.record.transcript(),
        folder: None,
        scope: SessionScope::Exclusive,
        limits,
    };
    let command = compose_session(context, preflight, tools, params)?;
    Ok(PlannedSession { command, session_id, notes })
}

/// Parameters that differ between the sessions of a run.
#[derive(Debug)]
pub(crate) struct SessionParams<'a> {
    pub(crate) session: Session<'a>,
    /// The system prompt to append.
    pub(crate) system_prompt: &'a str,
    pub(crate) message: &'a str,
    pub(crate) directory: PathBuf,
    /// File for the redacted output.
    pub(crate) transcript: PathBuf,
    /// A directory of the worktree to create, which the session may write beside what every session may.
    pub(crate) folder: Option<&'a str>,
    pub(crate) scope: SessionScope,
    pub(crate) limits: RemainingLimits,
}

/// Composes the command of a session, in its fresh directory, and writes the files that it reads.
///
/// # Errors
/// Returns an error if a file or directory cannot be written, or if the model has no credential.
pub(crate) fn compose_session(
    context: &Context,
    preflight: &Preflight,
    tools: &AgentTools,
    params: SessionParams<'_>,
) -> Result<SessionCommand, Failure> {
    let SessionParams { session, system_prompt, message, directory, transcript, folder, scope, limits } =
        params;
    let (Session::New(session_id) | Session::Resume(session_id)) = session;
    let (home, start) = tools.conversations.home_of(context, session);
    let relay = tools.relay.grant().map_err(|error| Failure::from_error(error.reason(), &error))?;
    let files = compose_files(context, tools, &home, relay.as_ref(), system_prompt);
    let sandbox = context.sandbox_spec(Role::Agent, home.folder()).read_program(&preflight.claude);
    let sandbox = sandbox.write(folder.map(|folder| context.worktree().join(folder)));
    let (gateway, environment) = compose_model_environment(context, tools, &home, session_id)?;
    let schema = verdict_schema();
    let arguments = compose_arguments(&CliOptions {
        model: &context.task.model,
        session,
        mcp_config: &files.mcp_config(),
        settings: &files.settings(),
        system_prompt: &files.system_prompt(),
        turns: limits.turns,
        cost_usd: limits.cost_usd,
        verdict_schema: &schema,
    });
    let params = SetupParams { session_id, home, start, directory: directory.clone(), folder, files };
    Ok(SessionCommand {
        setup: SessionSetup::new(context, params),
        program: preflight.claude.clone(),
        arguments,
        environment,
        sandbox,
        directory,
        message: compose_message(message),
        transcript,
        company: scope,
        gateway,
        relay,
    })
}

/// Opens the gateway of a session and builds the CLI's environment.
fn compose_model_environment(
    context: &Context,
    tools: &AgentTools,
    home: &Home,
    conversation: &str,
) -> Result<(Option<Gateway>, Environment), Failure> {
    let model = context
        .secrets
        .model()
        .map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?
        .ok_or_else(|| Failure::new(Reason::CredentialMissing, "the model credential was removed"))?;
    let site = &context.agent_site;
    let paths = agent_paths(context, site, home);
    let base = base_environment(context, site, home);
    let root = site.is_root();
    let mut environment = compose_cli_environment(&base, &paths, &model.environment, root);
    if let Some(timeout) = tools.tool_timeout_ms {
        environment.insert("MCP_TOOL_TIMEOUT".into(), timeout.to_string().into());
    }
    let allowance = Allowance { spending: &context.spending, conversation, model: &context.task.model };
    let gateway = Gateway::open(&context.secrets, &model.auth, allowance, &site.listen_place())
        .map_err(|error| Failure::from_error(Reason::InvalidConfiguration, &error))?;
    if let Some(gateway) = &gateway {
        environment.retain(|name, _| !is_model_credential(name));
        gateway.replace_credential(&mut environment);
    }
    Ok((gateway, environment))
}

/// Returns whether a variable may hold a credential of the model API, also one that the run does not use.
fn is_model_credential(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_secret = ["KEY", "TOKEN", "SECRET", "PASSWORD", "HEADERS"].iter().any(|word| name.contains(word));
    name.starts_with("ANTHROPIC_") && is_secret
}

/// Composes the files that a start of the CLI reads, with its admission to the relayed MCP servers.
fn compose_files(
    context: &Context,
    tools: &AgentTools,
    home: &Home,
    grant: Option<&RelayGrant>,
    system_prompt: &str,
) -> ConversationFiles {
    let endpoint = |name: &str| grant.and_then(|grant| grant.endpoint(name));
    let config = tools.plan.agent_config(&context.agent_site.supervisor(), endpoint);
    ConversationFiles::new(home, config.to_string(), compose_settings().to_string(), system_prompt.to_owned())
}

/// Returns the user's guidance and the merge conflicts with the base.
fn guidance(context: &Context, prepared: &PreparedBranch) -> Option<String> {
    let conflict = match &prepared.base_merge {
        merge @ BaseMerge::Conflict { .. } => merge.note(),
        BaseMerge::UpToDate | BaseMerge::Merged { .. } | BaseMerge::Unrelated { .. } => None,
    };
    let parts: Vec<&str> = context.task.guidance.as_deref().into_iter().chain(conflict.as_deref()).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

pub(crate) fn new_session_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn summarize(last: &LastAttempt) -> String {
    let end = if last.end.is_empty() { "It was interrupted." } else { &last.end };
    let summary = if last.summary.is_empty() { "It left no summary." } else { &last.summary };
    format!("Attempt {}: {end}\n\n{summary}", last.run)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_credential_is_recognized() {
        for name in
            ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_ADMIN_KEY"]
        {
            assert!(is_model_credential(name.as_ref()), "{name}");
        }
        for name in ["ANTHROPIC_MODEL", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_MAX_OUTPUT_TOKENS", "TZ"] {
            assert!(!is_model_credential(name.as_ref()), "{name}");
        }
    }
}
