//! Cost of the MCP server compared with a server on the official TypeScript SDK, measured interleaved.

use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::dispatcher_env::{DispatcherEnv, peak_memory};
use crate::mcp_client::McpClient;
use crate::mcp_tools::NodeClients;

/// Number of starts, and of submissions and status calls per server.
const STARTS: usize = 15;
const CALLS: u32 = 60;

/// Milliseconds of each start and call, and the peak memory in KiB.
#[derive(Debug, Default)]
struct Measured {
    start: Vec<f64>,
    submit: Vec<f64>,
    status: Vec<f64>,
    memory: u64,
}

/// A measurement of both servers.
#[derive(Debug)]
pub struct Compared {
    /// Description with unit.
    pub what: String,
    pub ours: f64,
    pub peer: f64,
}

/// Measures both servers.
pub fn measure() -> Vec<Compared> {
    let env = DispatcherEnv::new("held");
    let peers = env.path("peer");
    std::fs::create_dir(&peers).expect("a folder");
    let ours = || env.dispatcher(&["mcp"]);
    let peer = || {
        let clients = NodeClients::get();
        let mut command: Command = clients.command(&clients.peer);
        // Starts a child for each submission, as the orchestrator does.
        command.arg(&peers).args(["/bin/sh", "-c", "exit 0"]).env("HOME", env.path("home"));
        command
    };
    let (mut our, mut theirs) = (Measured::default(), Measured::default());
    // The first start fills the disk caches and is not counted.
    for round in 0..=STARTS {
        for (measured, command) in [(&mut our, ours()), (&mut theirs, peer())] {
            let seconds = start(command);
            if round > 0 {
                measured.start.push(seconds);
            }
        }
    }
    let (mut our_client, mut their_client) = (McpClient::start(ours()), McpClient::start(peer()));
    for task in 1..=CALLS {
        for (measured, client) in [(&mut our, &mut our_client), (&mut theirs, &mut their_client)] {
            let started = Instant::now();
            client.call("submit_implementation_task", DispatcherEnv::submission("trader", task));
            measured.submit.push(milliseconds(started));
            let run = format!("trader-claude-agent-1-task{task}-attempt1");
            let started = Instant::now();
            client.call("get_task_status", json!({"run": run}));
            measured.status.push(milliseconds(started));
        }
        let run = env.path(&format!("state/runs/trader-claude-agent-1-task{task}-attempt1/go"));
        std::fs::write(run, "").expect("the run may end");
    }
    our.memory = peak_memory(our_client.id());
    theirs.memory = peak_memory(their_client.id());
    compare(&mut our, &mut theirs)
}

/// Returns the milliseconds from the start of a server to its list of tools.
fn start(command: Command) -> f64 {
    let started = Instant::now();
    let mut client = McpClient::start(command);
    client.request("tools/list", json!({}));
    milliseconds(started)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn compare(ours: &mut Measured, peer: &mut Measured) -> Vec<Compared> {
    let mut all = Vec::new();
    for (what, ours, peer) in [
        ("start to tools/list", &mut ours.start, &mut peer.start),
        ("submit", &mut ours.submit, &mut peer.submit),
        ("status", &mut ours.status, &mut peer.status),
    ] {
        for (name, part) in [("median", 0.5), ("p99", 0.99)] {
            let what = format!("{what}, {name}, ms");
            all.push(Compared { what, ours: quantile(ours, part), peer: quantile(peer, part) });
        }
    }
    let megabytes = |kib: u64| kib as f64 / 1024.0;
    let what = "peak memory, MiB".to_owned();
    all.push(Compared { what, ours: megabytes(ours.memory), peer: megabytes(peer.memory) });
    all
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((last * part).round() as usize).copied().unwrap_or(f64::NAN)
}
