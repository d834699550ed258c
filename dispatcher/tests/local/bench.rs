//! A state directory and dispatcher commands that use it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Timeout of every wait; most take milliseconds.
const LIMIT: Duration = Duration::from_secs(25);

/// A state directory, a home and an open directory. Dropping it stops active runs.
pub(crate) struct Bench {
    root: tempfile::TempDir,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl CommandOutput {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["home", "open/.git"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let config = "[remote \"origin\"]\n\turl = /srv/git/trader.git\n";
        std::fs::write(root.path().join("open/.git/config"), config).unwrap();
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn run_file(&self, run: &str, name: &str) -> PathBuf {
        self.path("state/runs").join(run).join(name)
    }

    /// Returns a dispatcher command with these arguments, separated by spaces.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the program under test is started here")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_dispatcher"));
        let supervisor = source("supervisor.sh");
        command
            .args(arguments.split_whitespace())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("ORCHESTRATOR_STATE_DIR", self.path("state"))
            .env("ORCHESTRATOR_SUPERVISOR", supervisor)
            .current_dir(self.path("open"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> CommandOutput {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command with a supervisor that ends with `end`.
    pub(crate) fn run_ending(&self, end: &str, arguments: &str) -> CommandOutput {
        self.command(arguments).env("ORCHESTRATOR_TEST_END", end).output().unwrap().into()
    }

    /// Submits task 1 of the trader service and returns the run's name.
    pub(crate) fn submit(&self, end: &str) -> String {
        let done = self.run_ending(end, "submit --task 1 --service trader -o json");
        assert_eq!(done.code, 0, "{done:?}");
        done.json()["run"].as_str().unwrap().to_owned()
    }

    /// Submits task 1 and waits for the run to end.
    pub(crate) fn submit_and_wait(&self, end: &str) -> String {
        let run = self.submit(end);
        self.run(&format!("wait {run}"));
        run
    }

    pub(crate) fn release(&self, run: &str) {
        std::fs::write(self.run_file(run, "go"), "").unwrap();
    }

    pub(crate) fn runs(&self) -> Vec<Value> {
        self.run("list -o json").json()["runs"].as_array().unwrap().clone()
    }

    /// Starts all commands and waits for them.
    pub(crate) fn concurrently(&self, commands: impl Iterator<Item = Command>) -> Vec<CommandOutput> {
        let children: Vec<Child> = commands.map(|mut command| command.spawn().unwrap()).collect();
        children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let Ok(runs) = std::fs::read_dir(self.path("state/runs")) else { return };
        for run in runs.flatten() {
            std::fs::write(run.path().join("stop"), "now").ok();
            let lock = run.path().join("lock");
            eventually("the supervisor to exit", || {
                let Ok(file) = std::fs::File::open(&lock) else { return true };
                rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok()
            });
        }
    }
}

/// Returns the path of a script beside this file.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/local").join(name)
}

/// Polls a condition until the timeout.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited too long for {what}");
        #[expect(clippy::disallowed_methods, reason = "polls without a runtime")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads from a child until it has printed `text`.
pub(crate) fn read_until(child: &mut Child, text: &str) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "ended after {:?}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}
