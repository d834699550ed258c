//! Starts each server once and asks for its tools, before the agent depends on them.

use std::process::Stdio;
use std::time::Duration;

use orchestrator_contract::Reason;
use orchestrator_contract::outcome::{McpServer, McpStatus};
use rmcp::ServiceExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;

use super::child::{ProcessGroups, ServerProcess};
pub use super::child::{SecretSource, ServerEnv};
use super::compose::{PlannedServer, ServerPlan};
use crate::redact::Redactor;

/// How long a server may take to start and list its tools: what the agent's CLI gives it.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a server's error output is kept.
const STDERR_TAIL_BYTES: usize = 4096;

/// How long error output may still come after the server was killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A required server failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("MCP server `{name}` is required and failed: {why}")]
pub struct ServerFailed {
    /// The server.
    pub name: String,
    /// How, with the end of its error output.
    pub why: String,
    /// What every server did.
    pub servers: Vec<McpServer>,
}

impl ServerFailed {
    /// Why the run ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::McpServerFailed
    }
}

/// Probes all planned servers at the same time and drops those that fail from the plan.
/// Says of every server, those left out included, whether the agent has it.
///
/// # Errors
/// A required server failed.
pub async fn probe(
    composed: &mut ServerPlan,
    ground: &ServerEnv,
    redactor: &Redactor,
    limit: Duration,
) -> Result<Vec<McpServer>, ServerFailed> {
    let probes = composed.servers.iter().map(|server| probe_one(server, ground, redactor, limit));
    let reports = futures::future::join_all(probes).await;
    let failed = |report: &McpServer| report.status != McpStatus::Connected;
    let required =
        composed.servers.iter().zip(&reports).find(|(server, report)| server.required && failed(report));
    let required = required.map(|(server, report)| (server.name.clone(), report.note.clone()));
    let mut reported = reports.iter();
    composed.servers.retain(|_| reported.next().is_some_and(|report| !failed(report)));
    let mut servers = reports;
    servers.extend(composed.skipped.iter().map(super::compose::SkippedServer::report));
    servers.sort_by(|one, other| one.name.cmp(&other.name));
    match required {
        Some((name, why)) => Err(ServerFailed { name, why: why.unwrap_or_default(), servers }),
        None => Ok(servers),
    }
}

async fn probe_one(
    server: &PlannedServer,
    ground: &ServerEnv,
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
    let mut child = match ServerProcess::start(server, ground, &ProcessGroups::default(), Stdio::piped()) {
        Ok(child) => child,
        Err(error) => return failed(&format!("it cannot be started: {error}")),
    };
    let pipes = (child.child.take_stdout(), child.child.take_stdin(), child.child.take_stderr());
    let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
        child.end().await;
        return failed("it has no pipes");
    };
    let tail = tokio::spawn(stderr_tail(stderr, redactor.clone()));
    let answer = tokio::time::timeout(limit, initialize_and_list_tools(stdout, stdin)).await;
    let exited = child.child.try_wait().ok().flatten();
    child.end().await;
    let abort = tail.abort_handle();
    let said = tokio::time::timeout(DRAIN_TIMEOUT, tail).await.ok().and_then(Result::ok).unwrap_or_default();
    abort.abort();
    let why = match answer {
        Ok(Ok((identity, tools))) => return report(McpStatus::Connected, identity, tools, None),
        Ok(Err(why)) => match exited {
            Some(status) => format!("it ended with {status}"),
            None => why,
        },
        Err(_) => format!("it did not list its tools within {} s", limit.as_secs()),
    };
    failed(&if said.is_empty() { why } else { format!("{why}; it said: {said}") })
}

/// Asks a server for its name and the number of its tools.
async fn initialize_and_list_tools(
    stdout: tokio::process::ChildStdout,
    stdin: tokio::process::ChildStdin,
) -> Result<(Option<String>, u32), String> {
    let running = ().serve((stdout, stdin)).await.map_err(|error| format!("no MCP answer: {error}"))?;
    let tools =
        running.list_all_tools().await.map_err(|error| format!("it does not list its tools: {error}"))?;
    let identity = running.peer_info().and_then(|info| {
        info.server_info.as_ref().map(|server| format!("{} {}", server.name, server.version))
    });
    running.cancel().await.ok();
    Ok((identity, u32::try_from(tools.len()).unwrap_or(u32::MAX)))
}

/// The end of what a server says, redacted, in one line.
async fn stderr_tail(mut stderr: ChildStderr, redactor: Redactor) -> String {
    let mut stream = redactor.stream();
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        kept.extend_from_slice(&stream.push(&chunk[..length]));
        kept.drain(..kept.len().saturating_sub(STDERR_TAIL_BYTES));
    }
    kept.extend(stream.finish());
    kept.drain(..kept.len().saturating_sub(STDERR_TAIL_BYTES));
    let text = String::from_utf8_lossy(&kept);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" / ").chars().filter(|character| !character.is_control()).collect()
}
