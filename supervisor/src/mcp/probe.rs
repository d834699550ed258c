//! Probes each MCP server before the agent depends on it: starts it and lists its tools.

use std::ffi::OsString;
use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpServer, McpStatus};
use rmcp::ServiceExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::bounded::Bounded;
use super::catalog::RunsIn;
use super::child::{AgentPlace, RunningServers, ServerProcess};
pub use super::child::{SecretSource, ServerEnv};
use super::compose::{PlannedServer, ServerPlan};
use super::sandbox::compose_server_environment;
use crate::process::Exit;
use crate::program::{ProgramEnd, ProgramOutput, ProgramSpec};
use crate::redact::Redactor;
use crate::sandbox::{Kind, Role, SandboxSpec};

/// How long a server may take to start and list its tools; the same as in the agent CLI.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a server's standard error kept: the tail.
const STDERR_TAIL_BYTES: usize = 4096;

/// Maximum size of a server's answers to the probe.
const ANSWERS_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Maximum characters of a server's name with its version.
const IDENTITY_MAX_CHARS: usize = 100;

/// How long to wait for the rest of standard error after the server was killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The error of a required server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("required MCP server `{name}` failed: {why}")]
pub struct ServerFailed {
    pub name: String,
    /// What failed, with the tail of the server's standard error.
    pub why: String,
    /// The status of every server.
    pub servers: Vec<McpServer>,
}

impl ServerFailed {
    /// Returns the reason that the run ends with.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::McpServerFailed
    }
}

/// Probes all planned servers concurrently and removes failed ones from the plan.
///
/// Returns the status of every server, including skipped ones.
///
/// # Errors
/// Returns an error if a required server failed.
pub async fn probe(
    plan: &mut ServerPlan,
    server_env: &ServerEnv,
    redactor: &Redactor,
    limit: Duration,
) -> Result<Vec<McpServer>, ServerFailed> {
    let probes = plan.servers.iter().map(|server| probe_one(server, server_env, redactor, limit));
    let reports = futures::future::join_all(probes).await;
    let failed = |report: &McpServer| report.status != McpStatus::Connected;
    let required =
        plan.servers.iter().zip(&reports).find(|(server, report)| server.required && failed(report));
    let required = required.map(|(server, report)| (server.name.clone(), report.note.clone()));
    let mut reported = reports.iter();
    plan.servers.retain(|_| reported.next().is_some_and(|report| !failed(report)));
    let mut servers = reports;
    servers.extend(plan.skipped.iter().map(super::compose::SkippedServer::report));
    servers.sort_by(|one, other| one.name.cmp(&other.name));
    match required {
        Some((name, why)) => Err(ServerFailed { name, why: why.unwrap_or_default(), servers }),
        None => Ok(servers),
    }
}

async fn probe_one(
    server: &PlannedServer,
    server_env: &ServerEnv,
    redactor: &Redactor,
    limit: Duration,
) -> McpServer {
    let report = |status, identity, tools, note| McpServer {
        name: server.name.clone(),
        status,
        server: identity,
        tools,
        note,
    };
    let failed = |why: &str| report(McpStatus::Failed, None, 0, Some(redactor.redact(why).into_owned()));
    if let (RunsIn::AgentSandbox, Some(place)) = (server.runs_in, &server_env.agent) {
        return match probe_in_container(server, place, limit).await {
            Ok((identity, tools)) => report(McpStatus::Connected, identity, tools, None),
            Err(why) => failed(&why),
        };
    }
    let mut child = match ServerProcess::start(server, server_env, &RunningServers::default()).await {
        Ok(child) => child,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let reader = |output: Option<ProgramOutput>| output.and_then(|output| output.into_reader().ok());
    let program = &mut child.program;
    let pipes = (reader(program.stdout.take()), program.input.take(), reader(program.stderr.take()));
    let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
        child.stop().await;
        return failed("no stdio pipes");
    };
    let tail = tokio::spawn(stderr_tail(stderr, redactor.clone()));
    let listed = tokio::time::timeout(limit, initialize_and_list_tools(stdout, stdin)).await;
    // A server that exited before it was killed has an exit code.
    let exited = match child.stop().await {
        Some(ProgramEnd::Exited(exit @ Exit::Code(_))) => Some(exit),
        Some(ProgramEnd::Exited(Exit::Signal(_)) | ProgramEnd::Lost) | None => None,
    };
    let abort = tail.abort_handle();
    let stderr =
        tokio::time::timeout(DRAIN_TIMEOUT, tail).await.ok().and_then(Result::ok).unwrap_or_default();
    abort.abort();
    let why = match listed {
        Ok(Ok((identity, tools))) => return report(McpStatus::Connected, identity, tools, None),
        Ok(Err(why)) => match exited {
            Some(status) => format!("exited early ({status})"),
            None => why,
        },
        Err(_) => format!("did not list its tools within {} s", limit.as_secs()),
    };
    failed(&if stderr.is_empty() { why } else { format!("{why}; stderr: {stderr}") })
}

/// Probes a server in the agent's container, where only the agent starts it later.
async fn probe_in_container(
    server: &PlannedServer,
    place: &AgentPlace,
    limit: Duration,
) -> Result<(Option<String>, u32), String> {
    let environment = compose_server_environment(&place.variables, server);
    let arguments: Vec<OsString> = server.args.iter().map(OsString::from).collect();
    let spec = ProgramSpec {
        program: &server.command,
        arguments: &arguments,
        environment: &environment,
        directory: &server.home.home(),
        sandbox: &SandboxSpec::new(Role::Agent, Kind::Off),
        input: true,
    };
    let started = place.site.start(spec).await;
    let mut program = started.map_err(|failure| format!("cannot start: {}", failure.message))?;
    let output = program.stdout.take().and_then(|output| output.into_reader().ok());
    let (Some(output), Some(input)) = (output, program.input.take()) else {
        return Err("no stdio streams".to_owned());
    };
    let listed = tokio::time::timeout(limit, initialize_and_list_tools(output, input)).await;
    program.kill().await;
    listed.unwrap_or_else(|_| Err(format!("did not list its tools within {} s", limit.as_secs())))
}

/// Returns a server's name with its version, and the number of its tools.
async fn initialize_and_list_tools(
    stdout: impl AsyncRead + Send + Unpin + 'static,
    stdin: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(Option<String>, u32), String> {
    let stdout = Bounded::total(stdout, ANSWERS_MAX_BYTES);
    let running = ().serve((stdout, stdin)).await.map_err(|error| format!("initialization failed: {error}"))?;
    let tools = running.list_all_tools().await.map_err(|error| format!("cannot list tools: {error}"))?;
    let identity = running.peer_info().and_then(|info| {
        info.server_info.as_ref().map(|server| {
            let text = format!("{} {}", server.name, server.version);
            text.chars().filter(|character| !character.is_control()).take(IDENTITY_MAX_CHARS).collect()
        })
    });
    running.cancel().await.ok();
    Ok((identity, u32::try_from(tools.len()).unwrap_or(u32::MAX)))
}

/// Reads the tail of a server's standard error, redacted and in one line.
async fn stderr_tail(mut stderr: impl AsyncRead + Unpin, redactor: Redactor) -> String {
    let mut stream = redactor.stream();
    let mut tail: Vec<u8> = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        tail.extend_from_slice(&stream.push(&chunk[..length]));
        tail.drain(..tail.len().saturating_sub(STDERR_TAIL_BYTES));
    }
    tail.extend(stream.finish());
    tail.drain(..tail.len().saturating_sub(STDERR_TAIL_BYTES));
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" / ").chars().filter(|character| !character.is_control()).collect()
}
