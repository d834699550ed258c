//! The dispatcher with the supervisor of its own tests, which only tells how runs go: for what clients see
//! and for crowds, where the real one would cost too much.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binaries::Binaries;

/// Longest that a server may take to listen, or a run to end.
const LIMIT: Duration = Duration::from_secs(30);

/// A state folder, a home and an open folder; runs that still live are stopped at its end.
pub struct DispatcherEnv {
    root: tempfile::TempDir,
    end: String,
}

/// A `dispatcher serve`; killed when dropped.
pub struct ServeProcess {
    child: Child,
    /// Its MCP endpoint.
    pub url: String,
}

impl DispatcherEnv {
    /// A stage whose runs end as `end` says: `done`, `failed`, `held` until stopped; see the script.
    pub fn new(end: &str) -> Self {
        let root = tempfile::Builder::new().prefix("stage-").tempdir().expect("a folder");
        for folder in ["home", "open/.git", "state"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        let config = "[remote \"origin\"]\n\turl = https://github.com/myorg/platform\n";
        std::fs::write(root.path().join("open/.git/config"), config).expect("a clone's configuration");
        Self { root, end: end.to_owned() }
    }

    /// A path in the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The environment of everything here.
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

    /// The dispatcher, in the open folder.
    pub fn dispatcher(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&Binaries::get().dispatcher);
        command.args(arguments).env_clear().envs(self.environment()).current_dir(self.path("open"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// How a client starts the MCP server over stdio, in the words of the Python client.
    pub fn stdio(&self) -> Value {
        let environment: serde_json::Map<String, Value> =
            self.environment().into_iter().map(|(name, value)| (name, value.into())).collect();
        json!({
            "command": Binaries::get().dispatcher, "args": ["mcp"], "env": environment, "cwd": self.path("open"),
        })
    }

    /// What `submit_implementation_task` takes for a task of a service, with both repositories named.
    pub fn submission(service: &str, task: u32) -> Value {
        json!({
            "task_id": task, "service": service,
            "repository_url": format!("https://github.com/myorg/{service}"),
            "platform_repository_url": "https://github.com/myorg/platform",
        })
    }

    /// The runs that the dispatcher lists.
    pub fn runs(&self) -> Vec<Value> {
        let output = self.dispatcher(&["list", "-o", "json"]).output().expect("the dispatcher");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        value["runs"].as_array().cloned().expect("runs")
    }

    /// Serves over HTTP on a free port of this machine, also to web pages from that very port.
    pub fn serve(&self) -> ServeProcess {
        // A page's origin has to be known before the server has a port, so the port is looked for here.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address").to_string();
        drop(free);
        let origin = format!("http://{address}");
        let mut command = self.dispatcher(&["serve", "--address", &address, "--allowed-origin", &origin]);
        let mut child = command.stdout(Stdio::null()).spawn().expect("the dispatcher");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr was piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let event: Value = serde_json::from_str(&line).ok()?;
            (event["message"] == "listening").then(|| event["address"].as_str().map(str::to_owned))?
        });
        let Some(address) = address else { panic!("serve ended with {:?} and never listened", child.wait()) };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        ServeProcess { child, url: format!("http://{address}/mcp") }
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

/// Whether a process holds this lock.
fn held(lock: &Path) -> bool {
    let Ok(file) = std::fs::File::open(lock) else { return false };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}

impl ServeProcess {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a process ever had, in KiB.
pub fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}
