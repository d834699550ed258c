//! Step `agent`: writes what the agent is told and holds one conversation with it.

use std::path::{Path, PathBuf};

use orchestrator_contract::{Kind, Reason};

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
use crate::context::{AgentTools, Context, RepositoryRole, StepOutputs, failure, io_failure};
use crate::process::{Confinement, Environment, landlock_available};
use crate::run::{AgentPrompt, Failure};
use crate::workspace::branch::{BaseMerge, PreparedBranch};
use crate::workspace::preflight::Preflight;

/// What is left of the task's limits for one conversation.
#[derive(Clone, Copy, Debug)]
pub struct RemainingLimits {
    /// Turns.
    pub turns: Option<u32>,
    /// US dollars.
    pub cost_usd: Option<f64>,
}

/// A conversation that is ready to be held.
#[derive(Debug)]
pub struct PlannedSession {
    /// How it is started.
    pub conversation: SessionCommand,
    /// The conversation's id.
    pub session: String,
    /// What a person should know.
    pub note: Option<String>,
}

/// Where things are for everything that works on the agent's behalf.
#[must_use]
pub fn places(context: &Context) -> AgentPaths {
    AgentPaths {
        home: context.layout.agent_home(&context.task.run),
        tmp: context.layout.agent_tmp(),
        cache: context.layout.agent_cache(),
        path: context.inherited.path(),
        rustup_home: context.inherited.rustup_home(),
    }
}

/// The environment of setup and verify commands and of MCP servers: no credentials.
#[must_use]
pub fn base_environment(context: &Context) -> Environment {
    compose_environment(&places(context), &context.inherited.passthrough())
}

/// Folders of the system that everything needs; mounted secrets are not among them.
const SYSTEM_DIRS: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/proc",
    "/sys",
    "/dev",
    "/run/systemd/resolve",
    "/var/lib/dpkg",
    "/snap",
];

/// What everything that works on the agent's behalf may touch.
#[must_use]
pub fn confinement(context: &Context, relay: Option<&Path>, claude: Option<&Path>) -> Confinement {
    use crate::config::Sandbox;
    let layout = &context.layout;
    let mut readable: Vec<PathBuf> = SYSTEM_DIRS.iter().map(PathBuf::from).collect();
    let mut writable = vec![layout.agent_dir()];
    match context.task.kind {
        Kind::Implementation => {
            readable.push(layout.platform_repo());
            writable.push(context.worktree());
        }
        // Each conversation adds the folder of its task.
        Kind::Docs => readable.push(context.worktree()),
    }
    readable.extend([
        context.control_repository_path(RepositoryRole::Target).join("objects"),
        context.record.mcp_config(),
        context.record.settings(),
        context.record.folder().join("system.md"),
        context.supervisor.clone(),
    ]);
    readable.extend(context.inherited.rustup_home());
    let path = context.inherited.path();
    for folder in std::env::split_paths(&path).filter(|folder| folder.is_absolute()) {
        readable.extend(canonical_dir(&folder));
        // Programs of npm are links into the folder beside.
        if folder.ends_with(".bin") {
            readable.extend(folder.parent().map(Path::to_owned));
        }
    }
    readable.extend(claude.and_then(|claude| canonical_dir(claude.parent()?)));
    readable.extend(claude.and_then(|claude| std::fs::canonicalize(claude).ok()));
    readable.extend(context.settings.allow_read.iter().cloned());
    // Terminals, /dev/null and shared memory are written by ordinary programs.
    writable.extend(
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm"]
            .map(PathBuf::from),
    );
    writable.extend(relay.map(Path::to_owned));
    let sandbox = context.settings.sandbox == Sandbox::Auto && landlock_available();
    Confinement { readable, writable, sandbox }
}

fn canonical_dir(folder: &Path) -> Option<PathBuf> {
    // A relative or missing entry of PATH grants nothing.
    std::fs::canonicalize(folder).ok().filter(|folder| folder.parent().is_some())
}

/// Plans a conversation: a new one, one that resumes the earlier attempt's, or the same again.
///
/// # Errors
/// What it needs cannot be written, or the model has no credential any more.
pub fn plan_conversation(
    context: &Context,
    facts: &StepOutputs,
    message: &AgentPrompt,
    current: Option<&str>,
    left: RemainingLimits,
) -> Result<PlannedSession, Failure> {
    let missing =
        |what: &str| Failure::new(Reason::InternalError, format!("the agent was started without {what}"));
    let prepared = facts.prepared.as_ref().ok_or_else(|| missing("a branch"))?;
    let documents = facts.documents.as_ref().ok_or_else(|| missing("documents"))?;
    let tools = facts.tools.as_ref().ok_or_else(|| missing("tools"))?;
    let checked = facts.checked.as_ref().ok_or_else(|| missing("checks"))?;
    let task = &context.task;
    let directory = context.working_directory(&prepared.working_directory);
    let earlier = prepared.last.as_ref().filter(|_| task.mode == orchestrator_contract::task::Mode::Retry);
    let resumable =
        earlier.and_then(|last| last.session.clone()).filter(|session| restore_session(context, session));
    let summary = earlier.map(summarise);
    let (session, resume, history, note) = match (current, &resumable, &summary) {
        (Some(current), ..) => (current.to_owned(), true, PriorAttempt::Resumed, None),
        (None, Some(session), _) => (session.clone(), true, PriorAttempt::Resumed, None),
        (None, None, Some(summary)) => {
            let note = "the earlier conversation is gone; the agent got a summary of it instead".to_owned();
            (new_session(), false, PriorAttempt::Summary(summary.as_str()), Some(note))
        }
        (None, None, None) => (new_session(), false, PriorAttempt::None, None),
    };
    let platform = context.layout.platform_repo();
    let instructions = project_instructions(context, &prepared.working_directory);
    let task_id = task.task_id.ok_or_else(|| missing("a task"))?;
    let base = facts.target.as_ref().map(|target| target.base.branch.clone()).unwrap_or_default();
    let guidance = guidance(context, prepared);
    let brief = TaskPromptInput {
        service: &task.service,
        task: task_id,
        documents,
        platform: &platform,
        working_directory: &directory,
        branch: &prepared.branch,
        base: &base,
        guidance: guidance.as_deref(),
        project_instructions: instructions.as_deref(),
        servers: &tools.described,
        verify: &task.verify,
        history,
    };
    let text = match message {
        AgentPrompt::Task => render_task(&brief),
        AgentPrompt::VerificationFailed(failure) => render_verification_failure(failure),
    };
    let system = context.record.folder().join("system.md");
    write(&system, &render_system_prompt(&brief))?;
    if *message == AgentPrompt::Task {
        write(&context.record.prompt(), &text)?;
    }
    let conversation = compose_conversation(
        context,
        checked,
        tools,
        SessionParams {
            session: if resume { Session::Resume(&session) } else { Session::New(&session) },
            places: places(context),
            system: &system,
            message: &text,
            directory,
            transcript: context.record.transcript(),
            confinement: confinement(context, tools.relay.folder(), Some(&checked.claude)),
            company: SessionScope::Exclusive,
            left,
        },
    )?;
    Ok(PlannedSession { conversation, session, note })
}

/// What makes one conversation differ from another of the same run.
#[derive(Debug)]
pub(crate) struct SessionParams<'a> {
    /// A new conversation, or one that goes on.
    pub(crate) session: Session<'a>,
    /// Where things are for it.
    pub(crate) places: AgentPaths,
    /// The file of the standing instructions.
    pub(crate) system: &'a Path,
    /// What it is told.
    pub(crate) message: &'a str,
    /// Where it works.
    pub(crate) directory: PathBuf,
    /// Where what it prints is kept.
    pub(crate) transcript: PathBuf,
    /// What it may touch.
    pub(crate) confinement: Confinement,
    /// Whether others are held meanwhile.
    pub(crate) company: SessionScope,
    /// What it may use.
    pub(crate) left: RemainingLimits,
}

/// Puts together how a conversation is started.
///
/// # Errors
/// The settings cannot be written, or the model has no credential any more.
pub(crate) fn compose_conversation(
    context: &Context,
    checked: &Preflight,
    tools: &AgentTools,
    held: SessionParams<'_>,
) -> Result<SessionCommand, Failure> {
    let SessionParams { session, places, system, message, directory, transcript, confinement, company, left } =
        held;
    write(&context.record.settings(), &compose_settings().to_string())?;
    let model = context
        .secrets
        .model()
        .map_err(|error| failure(Reason::CredentialMissing, &error))?
        .ok_or_else(|| Failure::new(Reason::CredentialMissing, "the model's credential is gone"))?;
    let base = compose_environment(&places, &context.inherited.passthrough());
    let root = rustix::process::geteuid().is_root();
    let mut environment = compose_cli_environment(&base, &places, &model.environment, root);
    if let Some(timeout) = tools.tool_timeout_ms {
        environment.insert("MCP_TOOL_TIMEOUT".into(), timeout.to_string().into());
    }
    let gateway = Gateway::open(&context.secrets, &model.auth)
        .map_err(|error| failure(Reason::InvalidConfiguration, &error))?;
    if let Some(gateway) = &gateway {
        gateway.replace_credential(&mut environment);
    }
    let schema = verdict_schema();
    let arguments = compose_arguments(&CliOptions {
        model: &context.task.model,
        session,
        mcp_config: &context.record.mcp_config(),
        settings: &context.record.settings(),
        system_prompt: system,
        turns: left.turns,
        cost_usd: left.cost_usd,
        verdict_schema: &schema,
    });
    Ok(SessionCommand {
        supervisor: context.supervisor.clone(),
        program: checked.claude.clone(),
        arguments,
        environment,
        confinement,
        directory,
        message: compose_message(message),
        transcript,
        company,
        gateway,
    })
}

/// A person's guidance, and what the preparation found that the agent must know.
fn guidance(context: &Context, prepared: &PreparedBranch) -> Option<String> {
    let conflict = match &prepared.base_merge {
        merge @ BaseMerge::Conflict { .. } => merge.note(),
        BaseMerge::UpToDate | BaseMerge::Merged { .. } | BaseMerge::Unrelated { .. } => None,
    };
    let parts: Vec<&str> = context.task.guidance.as_deref().into_iter().chain(conflict.as_deref()).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

pub(crate) fn new_session() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn summarise(last: &crate::workspace::state::LastAttempt) -> String {
    let end = if last.end.is_empty() { "It broke off." } else { &last.end };
    let summary = if last.summary.is_empty() { "It left no summary." } else { &last.summary };
    format!("Attempt {}: {end}\n\n{summary}", last.run)
}

/// Makes an earlier attempt's conversation available in this run's home; false if it is gone.
fn restore_session(context: &Context, session: &str) -> bool {
    // The id comes from a file of ours, but it becomes a file name.
    if uuid::Uuid::parse_str(session).is_err() {
        return false;
    }
    let home = context.layout.agent_home(&context.task.run);
    if find_session(&home, session).is_some() {
        return true;
    }
    let Ok(homes) = std::fs::read_dir(context.layout.agent_dir().join("home")) else { return false };
    let found = homes.flatten().find_map(|entry| find_session(&entry.path(), session));
    let Some(found) = found else { return false };
    let Some(folder) = found.parent().and_then(Path::file_name) else { return false };
    let target = home.join(".claude/projects").join(folder);
    let copy = std::fs::create_dir_all(&target)
        .and_then(|()| std::fs::copy(&found, target.join(format!("{session}.jsonl"))));
    copy.is_ok()
}

/// The repository's `CLAUDE.md`, which the CLI itself is kept from reading together with
/// settings and hooks that must not take effect.
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
    std::fs::write(path, text).map_err(|error| io_failure(path, &error))
}
