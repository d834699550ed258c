//! A git server, a workspace and the real supervisor with the scripted agent.

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

/// The token with write access; also the canary for leaks.
pub const TOKEN: &str = "canary-token-0f7d1c5b9a";

/// The model key; no server receives it.
pub const KEY: &str = "dummy-key-123456";

/// The target repository.
pub const TARGET: &str = "myorg/trader";

/// The platform repository.
pub const PLATFORM: &str = "myorg/platform";

/// The branch of the first attempt.
pub const BRANCH: &str = "feature/task-1-implementation";

/// Timeout of a supervisor.
const HUNG: Duration = Duration::from_secs(120);

/// Directories and servers of one run.
pub struct BenchEnv {
    pub server: GitServer,
    folder: tempfile::TempDir,
    supervisor: PathBuf,
}

/// A running supervisor.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    started: Instant,
    root: PathBuf,
    peak: u64,
}

/// The result of a supervisor that exited.
#[derive(Debug)]
pub struct RunResult {
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// Lines of standard output.
    pub lines: Vec<String>,
    pub outcome: Option<Outcome>,
    /// Command lines of processes that outlived the run.
    pub survivors: Vec<String>,
    /// Seconds from start to exit.
    pub seconds: f64,
    /// Peak resident memory of the supervisor in bytes.
    pub peak: u64,
}

impl BenchEnv {
    /// Creates the task's documents, and a small target repository if `target`.
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
        let folder = tempfile::Builder::new().prefix("env-").tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        fs::copy(agent, bin.join("claude")).expect("the scripted agent");
        Self { server, folder, supervisor: supervisor.to_owned() }
    }

    /// Returns the directory of everything but the server's repositories.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn workspace(&self) -> PathBuf {
        self.root().join("workspace")
    }

    /// Removes the workspace, if it exists.
    pub fn forget_workspace(&self) {
        if self.workspace().exists() {
            fs::remove_dir_all(self.workspace()).expect("the workspace is removed");
        }
    }

    /// Returns the spec of an attempt, in retry mode after the first.
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

    /// Starts the supervisor with an agent that plays `script`.
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
        // The token belongs to the fake git host, not to github.com.
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
                // Fails if the test has ended already.
                drop(send.send(String::from_utf8_lossy(&line).into_owned()));
            }
        });
        Running { child, lines, seen: Vec::new(), started, root: root.to_owned(), peak: 0 }
    }

    /// Runs the supervisor until it exits.
    pub fn run(&self, script: &Script, task: &Value, arguments: &[&str]) -> RunResult {
        self.start(script, task, arguments).end()
    }

    /// Returns the supervisor's standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.root().join("stderr")).unwrap_or_default()
    }
}

impl Running {
    /// Waits for a line that contains `text`.
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

    /// Waits for a file that the agent writes.
    pub fn wait_for_file(&self, path: &Path) {
        while !path.exists() {
            assert!(self.started.elapsed() < HUNG, "{} never appeared", path.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the supervisor lives");
    }

    /// Waits for the supervisor to exit.
    pub fn end(mut self) -> RunResult {
        let status = loop {
            self.peak = self.peak.max(peak_memory(self.child.id()).unwrap_or_default());
            if let Some(status) = self.child.try_wait().expect("a child process") {
                break status;
            }
            if self.started.elapsed() > HUNG {
                self.child.kill().expect("a child process");
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
        // The pipe stays open only if a process of the run still holds it.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            lines.push(line);
        }
        let last: Option<Value> = lines.last().and_then(|line| serde_json::from_str(line).ok());
        let outcome = last.and_then(|event| serde_json::from_value(event["outcome"].clone()).ok());
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        RunResult { code, lines, outcome, survivors, seconds, peak: self.peak }
    }
}

impl RunResult {
    /// Returns the seconds of a step, from its event.
    pub fn step_seconds(&self, step: &str) -> Option<f64> {
        let events = self.lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["event"] == "step" && event["step"] == step && event["state"] == "done")
            .find_map(|event| event["seconds"].as_f64())
    }

    /// Returns the messages of all events.
    pub fn messages(&self) -> String {
        let events = self.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
        events.map(|event| format!("{}\n", event["message"].as_str().unwrap_or("?"))).collect()
    }
}

/// Returns the peak resident memory of a process in bytes, if it is running.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Returns processes whose program, directory or arguments are below `root`.
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
