//! The dispatcher with a scripted supervisor, for MCP clients and load tests.
//!
//! The supervisor is a shell script that prints the events of a run; the real one would be too expensive here.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::token_proxy;

/// Timeout for a server to listen and for a run to stop.
const LIMIT: Duration = Duration::from_secs(30);

/// A state directory, a home and an open clone. Dropping it stops active runs.
pub struct DispatcherEnv {
    root: tempfile::TempDir,
    end: String,
}

/// A `dispatcher serve` process, killed when dropped.
pub struct ServeProcess {
    child: ChildGuard,
    /// URL of the MCP endpoint.
    pub url: String,
    /// The token that the server created.
    pub token: String,
}

impl DispatcherEnv {
    /// Creates an environment whose runs end with `end`: `done`, `failed` or `held` (until stopped).
    pub fn new(end: &str) -> Self {
        let root = tempfile::Builder::new().prefix("env-").tempdir().expect("a folder");
        for folder in ["home", "open/.git", "state"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        let config = "[remote \"origin\"]\n\turl = https://github.com/myorg/platform\n";
        std::fs::write(root.path().join("open/.git/config"), config).expect("a clone's configuration");
        Self { root, end: end.to_owned() }
    }

    /// Returns a path in the environment's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Returns the environment variables of every process.
    pub fn environment(&self) -> Vec<(String, String)> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dispatcher/tests/local/supervisor.sh");
        let text = |path: PathBuf| path.display().to_string();
        let variables = [
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", text(self.path("home"))),
            ("ORCHESTRATOR_STATE_DIR", text(self.path("state"))),
            ("ORCHESTRATOR_SUPERVISOR", text(script)),
            ("ORCHESTRATOR_TEST_END", self.end.clone()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Returns a dispatcher command in the open clone.
    pub fn dispatcher(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&Binaries::get().dispatcher);
        command.args(arguments).env_clear().envs(self.environment()).current_dir(self.path("open"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns the stdio server configuration for the Python MCP client.
    pub fn stdio(&self) -> Value {
        let environment: serde_json::Map<String, Value> =
            self.environment().into_iter().map(|(name, value)| (name, value.into())).collect();
        json!({
            "command": Binaries::get().dispatcher, "args": ["mcp"], "env": environment, "cwd": self.path("open"),
        })
    }

    /// Returns the arguments of `submit_implementation_task`, with both repositories named.
    pub fn submission(service: &str, task: u32) -> Value {
        json!({
            "task_id": task, "service": service,
            "repository_url": format!("https://github.com/myorg/{service}"),
            "platform_repository_url": "https://github.com/myorg/platform",
        })
    }

    /// Returns the output of `dispatcher list`.
    pub fn runs(&self) -> Vec<Value> {
        let output = self.dispatcher(&["list", "-o", "json"]).output().expect("the dispatcher");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        value["runs"].as_array().cloned().expect("runs")
    }

    /// Serves HTTP on a free loopback port, allowing the origin of that port.
    pub fn serve(&self) -> ServeProcess {
        // The allowed origin contains the port, so it is chosen before the server starts.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address").to_string();
        drop(free);
        self.serve_on(&address, &format!("http://{address}"))
    }

    /// Serves HTTP behind a proxy that adds the token, for clients that cannot send one.
    pub fn serve_without_token(&self) -> ServeProcess {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = proxy.local_addr().expect("its address");
        let served = self.serve_on("127.0.0.1:0", &format!("http://{address}"));
        let server = served.url.trim_start_matches("http://").trim_end_matches("/mcp");
        token_proxy::serve(proxy, server.parse().expect("an address"), &served.token);
        ServeProcess { url: format!("http://{address}/mcp"), ..served }
    }

    fn serve_on(&self, address: &str, origin: &str) -> ServeProcess {
        let mut command = self.dispatcher(&["serve", "--address", address, "--allowed-origin", origin]);
        let mut child = command.stdout(Stdio::null()).spawn().expect("the dispatcher");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr was piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let event: Value = serde_json::from_str(&line).ok()?;
            (event["message"] == "listening").then(|| event["address"].as_str().map(str::to_owned))?
        });
        let Some(address) = address else { panic!("serve ended with {:?} and never listened", child.wait()) };
        // Drains stderr, so that the pipe does not fill.
        std::thread::spawn(move || lines.for_each(drop));
        let token = std::fs::read_to_string(self.path("home/.config/orchestrator/serve-token"));
        let token = token.expect("the server's token").trim().to_owned();
        ServeProcess { child: ChildGuard(child), url: format!("http://{address}/mcp"), token }
    }
}

impl Drop for DispatcherEnv {
    fn drop(&mut self) {
        for run in std::fs::read_dir(self.path("state/runs")).into_iter().flatten().flatten() {
            std::fs::write(run.path().join("stop"), "now").ok();
            let start = Instant::now();
            while held(&run.path().join("lock")) && start.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Returns whether a process holds the lock.
fn held(lock: &Path) -> bool {
    let Ok(file) = std::fs::File::open(lock) else { return false };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}

/// A process that is killed when dropped.
struct ChildGuard(Child);

impl ServeProcess {
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Returns the server for the Python MCP client.
    pub fn connection(&self) -> Value {
        json!({"url": self.url, "token": self.token})
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the peak resident memory of a process in KiB.
pub fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}
