//! Step `agent`: writes prompt and settings of a session, and builds its command.

use std::path::{Path, PathBuf};

use orchestrator_contract::outcome::McpServer;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Reason, TaskId};

use super::command_line::{
    AgentPaths, CliOptions, Session, compose_arguments, compose_cli_environment, compose_environment,
    compose_message, compose_settings,
};
use super::exit::verdict_schema;
use super::gateway::Gateway;
use super::prompt::{
    PriorAttempt, TaskPromptInput, render_system_prompt, render_task, render_verification_failure,
};
use super::session::{SessionCommand, SessionScope, find_session};
use crate::context::Context;
use crate::failure::Failure;
use crate::mcp::relay::RelayHost;
use crate::process::Environment;
use crate::run::AgentPrompt;
use crate::sandbox::{Role, SandboxSpec};
use crate::workspace::branch::{BaseMerge, PreparedBranch};
use crate::workspace::documents::TaskDocuments;
use crate::workspace::preflight::Preflight;
use crate::workspace::state::LastAttempt;

/// Started MCP servers, as the agent uses them.
#[derive(Debug)]
pub struct AgentTools {
    /// Servers for the outcome, including failed and skipped ones.
    pub servers: Vec<McpServer>,
    /// Name and description of each configured server, for the prompt.
    pub described: Vec<(String, String)>,
    /// Relay of the servers that hold secrets.
    pub relay: RelayHost,
    /// Timeout of a tool call, in milliseconds.
    pub tool_timeout_ms: Option<u128>,
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
    /// Note for the outcome.
    pub note: Option<String>,
}

/// Returns the directories of processes that run on the agent's behalf.
#[must_use]
pub fn agent_paths(context: &Context) -> AgentPaths {
    AgentPaths {
        home: context.layout.agent_home(&context.task.run),
        tmp: context.layout.agent_tmp(),
        cache: context.layout.agent_cache(),
        path: context.inherited.path(),
        rustup_home: context.inherited.rustup_home(),
    }
}

/// Returns the environment of setup and verify commands and of MCP servers, without credentials.
#[must_use]
pub fn base_environment(context: &Context) -> Environment {
    compose_environment(&agent_paths(context), &context.inherited.passthrough())
}

/// Returns the sandbox of the agent CLI.
pub(crate) fn agent_sandbox(context: &Context, tools: &AgentTools, claude: &Path) -> SandboxSpec {
    let spec = context.sandbox_spec(Role::Agent).read_program(claude);
    spec.write(tools.relay.folder())
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
    let directory = context.working_directory(&prepared.working_directory);
    let earlier = prepared.last.as_ref().filter(|_| task.mode == Mode::Retry);
    let resumable =
        earlier.and_then(|last| last.session.clone()).filter(|session| restore_session(context, session));
    let summary = earlier.map(summarize);
    let (session_id, resumes, history, note) = match (current, resumable, &summary) {
        (Some(current), ..) => (current.to_owned(), true, PriorAttempt::Resumed, None),
        (None, Some(session), _) => (session, true, PriorAttempt::Resumed, None),
        (None, None, Some(summary)) => {
            let note = "the session of the earlier attempt is missing; the agent got a summary".to_owned();
            (new_session_id(), false, PriorAttempt::Summary(summary.as_str()), Some(note))
        }
        (None, None, None) => (new_session_id(), false, PriorAttempt::None, None),
    };
    let platform = context.layout.platform_repo();
    let instructions = project_instructions(context, &prepared.working_directory);
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
        project_instructions: instructions.as_deref(),
        servers: &tools.described,
        verify: &task.verify,
        history,
    };
    let message = match prompt {
        AgentPrompt::Task => render_task(&prompt_input),
        AgentPrompt::VerificationFailed(failure) => render_verification_failure(failure),
    };
    let system_prompt = context.record.folder().join("system.md");
    write(&system_prompt, &render_system_prompt(&prompt_input))?;
    if *prompt == AgentPrompt::Task {
        write(&context.record.prompt(), &message)?;
    }
    let params = SessionParams {
        session: if resumes { Session::Resume(&session_id) } else { Session::New(&session_id) },
        paths: agent_paths(context),
        system_prompt: &system_prompt,
        message: &message,
        directory,
        transcript: context.record.transcript(),
        sandbox: agent_sandbox(context, tools, &preflight.claude),
        scope: SessionScope::Exclusive,
        limits,
    };
    let command = compose_session(context, preflight, tools, params)?;
    Ok(PlannedSession { command, session_id, note })
}

/// Parameters that differ between the sessions of a run.
#[derive(Debug)]
pub(crate) struct SessionParams<'a> {
    pub(crate) session: Session<'a>,
    pub(crate) paths: AgentPaths,
    /// File with the system prompt.
    pub(crate) system_prompt: &'a Path,
    pub(crate) message: &'a str,
    pub(crate) directory: PathBuf,
    /// File for the redacted output.
    pub(crate) transcript: PathBuf,
    pub(crate) sandbox: SandboxSpec,
    pub(crate) scope: SessionScope,
    pub(crate) limits: RemainingLimits,
}

/// Composes the command of a session and writes its settings.
///
/// # Errors
/// Returns an error if the settings cannot be written, or if the model has no credential.
pub(crate) fn compose_session(
    context: &Context,
    preflight: &Preflight,
    tools: &AgentTools,
    params: SessionParams<'_>,
) -> Result<SessionCommand, Failure> {
    let SessionParams {
        session,
        paths,
        system_prompt,
        message,
        directory,
        transcript,
        sandbox,
        scope,
        limits,
    } = params;
    write(&context.record.settings(), &compose_settings().to_string())?;
    let model = context
        .secrets
        .model()
        .map_err(|error| Failure::from_error(Reason::CredentialMissing, &error))?
        .ok_or_else(|| Failure::new(Reason::CredentialMissing, "the model credential was removed"))?;
    let base = compose_environment(&paths, &context.inherited.passthrough());
    let root = rustix::process::geteuid().is_root();
    let mut environment = compose_cli_environment(&base, &paths, &model.environment, root);
    if let Some(timeout) = tools.tool_timeout_ms {
        environment.insert("MCP_TOOL_TIMEOUT".into(), timeout.to_string().into());
    }
    let gateway = Gateway::open(&context.secrets, &model.auth)
        .map_err(|error| Failure::from_error(Reason::InvalidConfiguration, &error))?;
    if let Some(gateway) = &gateway {
        gateway.replace_credential(&mut environment);
    }
    let schema = verdict_schema();
    let arguments = compose_arguments(&CliOptions {
        model: &context.task.model,
        session,
        mcp_config: &context.record.mcp_config(),
        settings: &context.record.settings(),
        system_prompt,
        turns: limits.turns,
        cost_usd: limits.cost_usd,
        verdict_schema: &schema,
    });
    Ok(SessionCommand {
        supervisor: context.supervisor.clone(),
        program: preflight.claude.clone(),
        arguments,
        environment,
        sandbox,
        directory,
        message: compose_message(message),
        transcript,
        company: scope,
        gateway,
    })
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

/// Copies the session of an earlier attempt into this run's home; returns false without one.
fn restore_session(context: &Context, session: &str) -> bool {
    // The id is read from a file and becomes part of a path.
    if uuid::Uuid::parse_str(session).is_err() {
        return false;
    }
    let home = context.layout.agent_home(&context.task.run);
    if find_session(&home, session).is_some() {
        return true;
    }
    let Ok(homes) = std::fs::read_dir(context.layout.agent_dir().join("home")) else { return false };
    let source = homes.flatten().find_map(|entry| find_session(&entry.path(), session));
    let Some(source) = source else { return false };
    let Some(folder) = source.parent().and_then(Path::file_name) else { return false };
    let target = home.join(".claude/projects").join(folder);
    let copied = std::fs::create_dir_all(&target)
        .and_then(|()| std::fs::copy(&source, target.join(format!("{session}.jsonl"))));
    copied.is_ok()
}

/// Returns the text of the repository's `CLAUDE.md` files.
///
/// The CLI does not read them itself: its project settings and hooks are disabled with them.
fn project_instructions(context: &Context, working_directory: &str) -> Option<String> {
    let root = context.worktree();
    let mut folders = vec![root.clone()];
    if !working_directory.is_empty() {
        folders.push(root.join(working_directory));
    }
    let read = |folder: PathBuf| {
        let path = folder.join("CLAUDE.md");
        let is_file = std::fs::symlink_metadata(&path).is_ok_and(|data| data.is_file());
        is_file.then(|| std::fs::read_to_string(&path).ok()).flatten()
    };
    let texts: Vec<String> = folders.into_iter().filter_map(read).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::io(path, &error))
}
