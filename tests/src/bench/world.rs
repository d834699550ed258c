//! A git server, a workspace and the real supervisor, which runs the scripted agent.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use orchestrator_contract::Outcome;
use serde_json::{Value, json};

use super::script::Script;
use crate::git_server::{Access, GitServer};

/// The token that may do everything; a canary too.
pub const TOKEN: &str = "canary-token-0f7d1c5b9a";

/// The model's key; no service ever sees it.
pub const KEY: &str = "dummy-key-123456";

/// The code.
pub const TARGET: &str = "myorg/trader";

/// The documentation.
pub const PLATFORM: &str = "myorg/platform";

/// The branch of the first attempt.
pub const BRANCH: &str = "feature/task-1-implementation";

/// After this long a supervisor is hung.
const HUNG: Duration = Duration::from_secs(120);

/// Everything a run needs, in folders of its own.
pub struct BenchEnv {
    /// The git host.
    pub server: GitServer,
    folder: tempfile::TempDir,
    supervisor: PathBuf,
}

/// A supervisor that runs.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    started: Instant,
    root: PathBuf,
    peak: u64,
}

/// A supervisor that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; 128 + signal where it was killed.
    pub code: i32,
    /// What it printed.
    pub lines: Vec<String>,
    /// The outcome, if it told one.
    pub outcome: Option<Outcome>,
    /// What lives of the run after its end, by command line.
    pub survivors: Vec<String>,
    /// Seconds from start to exit.
    pub seconds: f64,
    /// The supervisor's own peak memory in bytes.
    pub peak: u64,
}

impl BenchEnv {
    /// A world with a small target repository, if `target`, and the task's documents.
    pub fn new(supervisor: &Path, agent: &Path, target: bool) -> Self {
        let server = GitServer::start();
        server.allow(TOKEN, Access::Write);
        let tasks = r#"{"tasks":[{"id":1,"title":"Add it","description":"Add it.","status":"pending"}]}"#;
        let documents =
            [(".taskmaster/tasks/tasks.json", tasks), (".taskmaster/docs/task-1/task.md", "# Add it\n")];
        server.create(PLATFORM, "main", &documents);
        if target {
            let files = [("lib.rs", "// hello\n"), (".gitignore", "/target\n"), ("docs/a.md", "a\n")];
            server.create(TARGET, "main", &files);
        }
        let folder = tempfile::Builder::new().prefix("world-").tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        fs::copy(agent, bin.join("claude")).expect("the scripted agent");
        Self { server, folder, supervisor: supervisor.to_owned() }
    }

    /// The folder that holds all of this world but the server's repositories.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The workspace.
    pub fn workspace(&self) -> PathBuf {
        self.root().join("workspace")
    }

    /// A folder of the workspace that is there or not.
    pub fn forget_workspace(&self) {
        if self.workspace().exists() {
            fs::remove_dir_all(self.workspace()).expect("the workspace is removed");
        }
    }

    /// A task of this world: attempt `attempt`, in retry mode after the first.
    pub fn task(&self, attempt: u32) -> Value {
        json!({
            "version": 1,
            "run": format!("trader-claude-agent-1-task1-attempt{attempt}"),
            "service": "trader",
            "agent": "claude-agent-1",
            "task_id": 1,
            "attempt": attempt,
            "mode": if attempt == 1 { "first" } else { "retry" },
            "target": {"url": self.server.url(TARGET)},
            "platform": {"url": self.server.url(PLATFORM)},
            "mcp_servers": [],
            "pull_request": "none",
        })
    }

    /// Starts the supervisor on a task with an agent that does this.
    pub fn start(&self, script: &Script, task: &Value, arguments: &[&str]) -> Running {
        let root = self.root();
        fs::create_dir_all(self.workspace()).expect("a workspace");
        fs::write(root.join("bin/script.json"), serde_json::to_vec(script).expect("JSON")).expect("a script");
        fs::write(root.join("task.json"), task.to_string()).expect("a task");
        let mut command = Command::new(&self.supervisor);
        command.arg("run").arg("--task-file").arg(root.join("task.json"));
        command.arg("--workspace").arg(self.workspace());
        command.arg("--claude").arg(root.join("bin/claude"));
        command.arg("--termination-log").arg(root.join("termination"));
        command.args(["--log-format", "json", "--agent-grace-seconds", "1"]).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", root).env("GITHUB_TOKEN", TOKEN).env("ANTHROPIC_API_KEY", KEY);
        // The git server here is no GitHub; the token is for it.
        command.env("ORCHESTRATOR_GIT_HOSTS", "127.0.0.1");
        command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped());
        let errors = fs::File::create(root.join("stderr")).expect("a file");
        command.stderr(errors);
        let started = Instant::now();
        let mut child = command.spawn().expect("the supervisor starts");
        let (send, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                // Nobody listens any more when the test has failed.
                drop(send.send(String::from_utf8_lossy(&line).into_owned()));
            }
        });
        Running { child, lines, seen: Vec::new(), started, root: root.to_owned(), peak: 0 }
    }

    /// Runs the supervisor to its end.
    pub fn run(&self, script: &Script, task: &Value, arguments: &[&str]) -> Ran {
        self.start(script, task, arguments).end()
    }

    /// What the supervisor printed on standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.root().join("stderr")).unwrap_or_default()
    }
}

impl Running {
    /// Waits for a line that contains this text.
    pub fn wait_for(&mut self, text: &str) {
        let end = self.started + HUNG;
        while !self.seen.last().is_some_and(|line| line.contains(text)) {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no line with {text:?} ({error}): {:#?}", self.seen),
            }
        }
    }

    /// Waits for a file that the agent writes, which says how far it is.
    pub fn wait_for_file(&self, path: &Path) {
        while !path.exists() {
            assert!(self.started.elapsed() < HUNG, "{} never appeared", path.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the supervisor lives");
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let status = loop {
            self.peak = self.peak.max(peak_memory(self.child.id()).unwrap_or_default());
            if let Some(status) = self.child.try_wait().expect("the supervisor is ours") {
                break status;
            }
            if self.started.elapsed() > HUNG {
                self.child.kill().expect("the supervisor is ours");
                panic!(
                    "the supervisor hangs: {:#?}",
                    self.seen.iter().chain(&self.lines.try_iter().collect::<Vec<_>>()).collect::<Vec<_>>()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let survivors = processes_of(&self.root);
        let mut lines = self.seen;
        // The pipe is closed unless something of the run lives and holds it.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            lines.push(line);
        }
        let last: Option<Value> = lines.last().and_then(|line| serde_json::from_str(line).ok());
        let outcome = last.and_then(|event| serde_json::from_value(event["outcome"].clone()).ok());
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ran { code, lines, outcome, survivors, seconds, peak: self.peak }
    }
}

impl Ran {
    /// The seconds that a step took, by its event.
    pub fn step_seconds(&self, step: &str) -> Option<f64> {
        let events = self.lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["event"] == "step" && event["step"] == step && event["state"] == "done")
            .find_map(|event| event["seconds"].as_f64())
    }

    /// What it told, by the readable part of each event.
    pub fn story(&self) -> String {
        let events = self.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
        events.map(|event| format!("{}\n", event["message"].as_str().unwrap_or("?"))).collect()
    }
}

/// The peak of a process's resident memory; none when it is gone.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Processes whose program, folder or arguments lie in `root`.
fn processes_of(root: &Path) -> Vec<String> {
    let root = root.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let alive = entries.filter_map(|entry| {
        let folder = entry.path();
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let link =
            |name: &str| fs::read_link(folder.join(name)).map(|path| path.to_string_lossy().into_owned());
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours =
            line.contains(&root) || [link("cwd"), link("exe")].iter().flatten().any(|at| at.contains(&root));
        ours.then(|| format!("{pid}: {line}"))
    });
    alive.collect()
}
