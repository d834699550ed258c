//! Assembles a run from arguments, runs it and returns its exit code.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use orchestrator_contract::containers::ContainerRole;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::task::{Mode, TaskSpec};
use orchestrator_contract::{Level, Outcome, Reason, Step};

use crate::agent::gateway::budget::Spending;
use crate::config::{
    Arguments, Command, ProcessEnv, RunArguments, SandboxArguments, SecretSource, TaskError, TaskInput,
};
use crate::context::Context;
use crate::event_loop::{self, LoopExit};
use crate::failure::{Failure, error_chain};
use crate::git::RemoteSettings;
use crate::process::{become_subreaper, raise_descriptor_limit};
use crate::record::EventLog;
use crate::redact::{Redactor, Secrets};
use crate::sandbox::explain::Explanation;
use crate::sandbox::{self, Requirement};
use crate::site::{Site, THIS_PROGRAM};
use crate::workspace::attempts::{allocate_attempt, last_attempt, record_attempt};
use crate::workspace::clock::RunClock;

/// Threads for blocking work that are started before the agent: a save, and what runs beside it.
const BLOCKING_THREADS: usize = 3;

/// Longer than a run can take, so that the threads stay.
const BLOCKING_THREAD_KEEP_ALIVE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Runs the command line of the supervisor.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            drop(error.print());
            let code = if error.use_stderr() { Reason::InvalidTask.exit_code() } else { 0 };
            return ExitCode::from(code);
        }
    };
    match arguments.command {
        None => start(arguments.run),
        Some(Command::Run(run)) => start(*run),
        Some(Command::Check(mut run)) => {
            run.until = Some(Step::Preflight);
            start(*run)
        }
        Some(Command::Schema) => {
            let text =
                serde_json::to_string_pretty(&orchestrator_contract::schema::schema()).unwrap_or_default();
            let printed = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(if printed.is_ok() { 0 } else { Reason::IoError.exit_code() })
        }
        Some(Command::Sandbox(arguments)) => print_sandbox(arguments),
        Some(Command::PrepareVolumes { volumes, tools }) => prepare_volumes(&volumes, &tools),
        Some(Command::McpRelay { name: _, address, token }) => match runtime() {
            Ok(runtime) => runtime.block_on(crate::mcp::relay_client::relay_main(&address, &token)),
            Err(_) => ExitCode::from(Reason::InternalError.exit_code()),
        },
    }
}

fn prepare_volumes(volumes: &Path, tools: &Path) -> ExitCode {
    let Ok(executable) = std::env::current_exe() else { return Reason::InternalError.exit_code().into() };
    match crate::container::volumes::prepare(volumes, tools, &executable) {
        Ok(notes) => {
            for note in notes {
                // The notes are for the log of the container; the volume is prepared without it.
                drop(writeln!(std::io::stdout(), "{note}"));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let reason = Reason::WorkspaceUnwritable;
            drop(writeln!(std::io::stderr(), "{reason}: {error}. {}", reason.hint()));
            reason.exit_code().into()
        }
    }
}

fn print_sandbox(arguments: SandboxArguments) -> ExitCode {
    let SandboxArguments { explain, json, workspace, allow_read, sandbox, sandbox_kind } = arguments;
    let Ok(supervisor) = std::env::current_exe() else { return Reason::InternalError.exit_code().into() };
    let selected = sandbox::select(sandbox, sandbox_kind, &supervisor);
    let inherited = ProcessEnv::read();
    let (path, rustup_home) = (inherited.path(), inherited.rustup_home());
    let places = sandbox::Places { path, rustup_home, supervisor, allow_read };
    let explanation = Explanation::new(selected, &places, explain.then_some(workspace.as_path()));
    let text = if json {
        serde_json::to_string_pretty(&explanation).unwrap_or_default()
    } else {
        explanation.render()
    };
    let printed = writeln!(std::io::stdout(), "{}", text.trim_end());
    if let Some(refused) = &explanation.refused {
        drop(writeln!(std::io::stderr(), "{refused}"));
    }
    match (printed, &explanation.refused) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(_)) => Reason::SandboxUnavailable.exit_code().into(),
        (Err(_), _) => Reason::IoError.exit_code().into(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE)
        .enable_all()
        .build()
}

/// Starts the threads that the end of the run needs, before an agent can use up the process limit.
async fn start_blocking_threads() {
    // A task that lasts longer than the next one takes to be queued, so that this gets another thread.
    let wait = || tokio::task::spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(2)));
    for thread in [(); BLOCKING_THREADS].map(|()| wait()) {
        // Without a thread for itself a task waits for another one.
        drop(thread.await);
    }
}

fn start(settings: RunArguments) -> ExitCode {
    // In a session of its own, the run survives the end of the terminal.
    if settings.new_session {
        // Fails only for a process group leader, which its terminal does not own.
        let _ = rustix::process::setsid();
    }
    become_subreaper();
    raise_descriptor_limit();
    // Keep files readable for the group: the next run may have another uid.
    let _ = rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let inherited = ProcessEnv::read().with_files(settings.secrets.secrets_dir.as_deref());
    let secrets = SecretSource::new(settings.secrets.clone(), inherited.clone());
    let mut known = Secrets::new();
    for (kind, value) in secrets.all() {
        known = known.with(kind, value);
    }
    let redactor = Redactor::new(known);
    let Ok(journal) = EventLog::on_stdout(settings.log_format, redactor.clone()) else {
        return ExitCode::from(Reason::InternalError.exit_code());
    };
    let code = match prepare(settings, inherited, secrets, redactor, &journal) {
        Ok(context) => run(context, &journal),
        Err(failure) => report_early_failure(&journal, &failure),
    };
    journal.finish();
    ExitCode::from(code)
}

/// Logs a failure before the run has a name, and returns its exit code.
fn report_early_failure(journal: &EventLog, failure: &Failure) -> u8 {
    let text =
        format!("{}: {}. {}", failure.reason, failure.message.trim_end_matches('.'), failure.reason.hint());
    journal.log(Level::Error, "supervisor", text);
    failure.reason.exit_code()
}

fn prepare(
    settings: RunArguments,
    inherited: ProcessEnv,
    secrets: SecretSource,
    redactor: Redactor,
    journal: &EventLog,
) -> Result<Context, Failure> {
    let internal = |action: &str, error: &dyn std::fmt::Display| {
        Failure::new(Reason::InternalError, format!("cannot {action}: {error}"))
    };
    // Install the TLS provider of this process; it fails only if one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    crate::git::init().map_err(|error| Failure::from_error(Reason::InternalError, &error))?;
    let supervisor =
        std::env::current_exe().map_err(|error| internal("find the supervisor executable", &error))?;
    let request = read_request(&settings)?;
    let (layout, containers) = match (&settings.state_dir, &settings.guests_dir) {
        (Some(state), Some(guests)) => {
            (Layout::with_state(&settings.workspace, absolute(state)?), Some(guests))
        }
        (Some(_) | None, _) => (Layout::new(absolute(&settings.workspace)?), None),
    };
    let task = assign_attempt(request, &layout)?;
    let record = layout.run_dir(&task.run);
    std::fs::create_dir_all(record.folder()).map_err(|error| unwritable(record.folder(), &error))?;
    journal.attach_run(task.run.clone(), &record.log()).map_err(|error| unwritable(&record.log(), &error))?;
    crate::record::file::write_json(&record.task(), &task)
        .map_err(|error| unwritable(&record.task(), &error))?;
    let mut remotes = RemoteSettings::new(Path::new(THIS_PROGRAM));
    remotes.proxy =
        inherited.text("HTTPS_PROXY").or_else(|| inherited.text("https_proxy")).map(str::to_owned);
    remotes.no_proxy = inherited.text("NO_PROXY").or_else(|| inherited.text("no_proxy")).map(str::to_owned);
    remotes.certificates = crate::tls::CertificatePaths::from_env(|name| inherited.text(name));
    let machine = Site::Machine { program: THIS_PROGRAM.into(), supervisor: supervisor.clone() };
    let container = |role: ContainerRole| match containers {
        Some(guests) => Site::container(role, &guests.join(role.name())),
        None => Ok(machine.clone()),
    };
    let agent_site = container(ContainerRole::Agent)?;
    let verify_site =
        if task.verify.is_empty() { machine.clone() } else { container(ContainerRole::Verify)? };
    // Beside containers only MCP servers run here; without a sandbox they are skipped.
    let required = if containers.is_some() { Requirement::BestEffort } else { settings.sandbox };
    let sandbox = sandbox::select(required, settings.sandbox_kind, &supervisor);
    let spending = Spending::new(task.limits.cost_usd, Some(record.usage()));
    Ok(Context {
        spending,
        task,
        settings,
        inherited,
        layout,
        record,
        secrets,
        redactor,
        journal: journal.clone(),
        supervisor,
        remotes,
        sandbox,
        agent_site,
        tool_site: machine,
        verify_site,
        clock: RunClock::default(),
    })
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let mut failure = Failure::io(path, error);
    if failure.reason == Reason::IoError {
        failure.reason = Reason::WorkspaceUnwritable;
    }
    failure
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Failure> {
    std::fs::create_dir_all(path).map_err(|error| unwritable(path, &error))?;
    // Resolve symlinks once: later checks compare whole paths.
    std::fs::canonicalize(path).map_err(|error| unwritable(path, &error))
}

fn read_request(settings: &RunArguments) -> Result<TaskInput, Failure> {
    let invalid = |error: TaskError| Failure::from_error(Reason::InvalidTask, &error);
    let Some(path) = &settings.task_file else { return settings.task.clone().parse().map_err(invalid) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Reason::InvalidTask, format!("cannot read the task file `{}`: {error}", path.display()))
    })?;
    let task = TaskSpec::from_json(&text).map_err(|errors| {
        Failure::new(
            Reason::InvalidTask,
            format!("invalid task file `{}`: {}", path.display(), TaskError(errors)),
        )
    })?;
    Ok(TaskInput::Assigned(Box::new(task)))
}

/// Assigns the attempt number and run name, unless the dispatcher did.
fn assign_attempt(request: TaskInput, layout: &Layout) -> Result<TaskSpec, Failure> {
    let failed = |error: crate::workspace::attempts::AttemptError| {
        Failure::from_error(Reason::WorkspaceUnwritable, &error)
    };
    match request {
        TaskInput::Assigned(task) => {
            record_attempt(layout, &task.identity(), task.attempt).map_err(failed)?;
            Ok(*task)
        }
        TaskInput::Unassigned(task) => {
            let earlier = last_attempt(layout, &task.identity).map_err(failed)?;
            if earlier == 0 && task.mode() != Mode::First {
                let message = "no earlier attempt in this workspace: omit --retry and --fresh";
                return Err(Failure::new(Reason::InvalidTask, message));
            }
            if earlier > 0 && task.mode() == Mode::First {
                let message = format!(
                    "this task already has {earlier} attempts in this workspace: use --retry to continue the last \
                     one, or --fresh to start over"
                );
                return Err(Failure::new(Reason::InvalidTask, message));
            }
            let attempt = allocate_attempt(layout, &task.identity).map_err(failed)?;
            Ok(task.assign_attempt(attempt))
        }
    }
}

fn run(context: Context, journal: &EventLog) -> u8 {
    let task = context.task.clone();
    let redactor = context.redactor.clone();
    let result = match runtime() {
        Ok(runtime) => {
            runtime.block_on(start_blocking_threads());
            let exit = runtime.block_on(event_loop::run(context));
            // Do not wait for blocking tasks: a hanging system call must not delay the exit.
            runtime.shutdown_timeout(Duration::from_millis(100));
            exit
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(LoopExit::Outcome(outcome)) => outcome.exit_code,
        Ok(LoopExit::StoppedAfter(_)) => 0,
        Err(error) => {
            let message = redactor.redact(&error_chain(&error)).into_owned();
            let reason = Reason::InternalError;
            let now = jiff::Timestamp::now();
            let message = format!("{message}. {}", reason.hint());
            journal.outcome(&Outcome::new(&task, reason, Step::Preflight, message, now, now));
            reason.exit_code()
        }
    }
}
