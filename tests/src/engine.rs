//! A container engine, and runs of the agent image in it.
//!
//! Containers have the machine's network: the stand-ins of a world listen on its loopback.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use orchestrator_contract::Outcome;
use orchestrator_contract::layout::Layout;
use serde_json::Value;

use crate::test_env::{CommandOutput, TestEnv};

/// Longest that a container of a test may run.
const LIMIT: Duration = Duration::from_secs(180);

/// The user of the image.
const USER: u32 = 10001;

/// An engine with the agent image.
#[derive(Clone, Debug)]
pub struct Engine {
    address: String,
    /// The agent image, with a Rust toolchain.
    pub image: String,
}

impl Engine {
    /// The engine that `ORCHESTRATOR_ENGINE` names (`unix://...`), with the agent image of
    /// `ORCHESTRATOR_AGENT_IMAGE`. Without one, says that the test is skipped.
    pub fn get() -> Option<Self> {
        let image =
            std::env::var("ORCHESTRATOR_AGENT_IMAGE").unwrap_or_else(|_| "orchestrator/agent:ci".into());
        let Ok(address) = std::env::var("ORCHESTRATOR_ENGINE") else {
            println!("skipped: no container engine; images/README.md says how to set ORCHESTRATOR_ENGINE");
            return None;
        };
        let engine = Self { address, image };
        let image = engine.docker(&["image", "inspect", &engine.image]);
        assert!(image.status.success(), "{} has no image {}: {}", engine.address, engine.image, said(&image));
        Some(engine)
    }

    /// Where it is, as `DOCKER_HOST` names it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs the engine's command line.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        // Debian's; one found earlier in PATH may be made for another engine.
        let program = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        let mut docker = Command::new(program);
        docker.args(["--host", &self.address]).args(arguments).stdin(Stdio::null());
        docker.output().expect("docker starts")
    }

    /// What `docker inspect` says of an image or a container.
    pub fn inspect(&self, name: &str) -> Value {
        let output = self.docker(&["inspect", name]);
        assert!(output.status.success(), "{}", said(&output));
        let mut values: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON of docker");
        values.remove(0)
    }

    /// A container of the agent image as `docker run` makes it if nothing else is said.
    pub fn plain(&self) -> Container {
        Container::new(self.clone())
    }

    /// A container of the agent image with the privileges of production: none.
    pub fn hardened(&self) -> Container {
        self.plain().with(&["--network=host", "--read-only", "--tmpfs=/tmp:exec", "--cap-drop=ALL"]).with(&[
            "--security-opt=no-new-privileges",
            "--pids-limit=512",
            "--memory=3g",
            "--memory-swap=3g",
        ])
    }

    /// The same for a run in a world: its workspace is a folder, its secrets are files.
    pub fn run_in(&self, world: &TestEnv, place: &Place) -> Container {
        let mut container = self.hardened();
        container = container.with(&["--volume", &format!("{}:/workspace", place.workspace().display())]);
        let secrets = format!("{}:/run/secrets/orchestrator:ro", place.secrets.path().display());
        container = container.with(&["--volume", &secrets]);
        for name in ["GITHUB_API_URL", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_MAX_RETRIES"] {
            container = container.with(&["--env", &format!("{name}={}", world.environment()[name])]);
        }
        container
    }
}

/// Where a service's workspace and secrets are, on the side of the machine.
pub struct Place {
    workspace: PathBuf,
    /// Not in the world's folder: that is searched for secrets that should not be there.
    secrets: tempfile::TempDir,
}

impl Place {
    /// A new workspace in a world, and that world's secrets.
    pub fn new(world: &TestEnv) -> Self {
        Self::owned_by(world, USER)
    }

    /// The same for another user of group 0.
    pub fn owned_by(world: &TestEnv, user: u32) -> Self {
        let workspace = world.path("workspace");
        fs::create_dir_all(&workspace).expect("a folder");
        chown(&workspace, Some(user), Some(0)).expect("root gives files away");
        fs::set_permissions(&workspace, Permissions::from_mode(0o775)).expect("a mode");
        let place = Self { workspace, secrets: tempfile::tempdir().expect("a folder") };
        fs::set_permissions(place.secrets.path(), Permissions::from_mode(0o750)).expect("a mode");
        place.secret("github-token", &world.token);
        place.secret("anthropic-api-key", &world.key);
        place
    }

    /// Gives one more secret.
    pub fn secret(&self, name: &str, value: &str) {
        let path = self.secrets.path().join(name);
        fs::write(&path, value).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o440)).expect("a mode");
    }

    /// The workspace's folder.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The paths in the workspace.
    pub fn layout(&self) -> Layout {
        Layout::new(&self.workspace)
    }
}

/// A container; it is removed when dropped.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    name: String,
    options: Vec<String>,
    started: Option<Instant>,
}

impl Container {
    fn new(engine: Engine) -> Self {
        let name = format!("test-{}", uuid::Uuid::new_v4().simple());
        Self { engine, name, options: Vec::new(), started: None }
    }

    /// Adds options of `docker run`.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Starts it with these arguments of the supervisor.
    #[must_use]
    pub fn start(mut self, arguments: &[&str]) -> Self {
        let mut command = vec!["run", "--detach", "--name", &self.name];
        command.extend(self.options.iter().map(String::as_str));
        command.push(&self.engine.image);
        command.extend(arguments);
        let before = Instant::now();
        let output = self.engine.docker(&command);
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        self.started = Some(before);
        self
    }

    /// Starts it with task 1 of the trader service.
    #[must_use]
    pub fn start_task(self, world: &TestEnv, more: &[&str]) -> Self {
        let flags = world.task_flags(Path::new("/workspace"));
        let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.start(&arguments)
    }

    /// What the container wrote so far.
    pub fn logs(&self) -> CommandOutput {
        let output = self.engine.docker(&["logs", &self.name]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CommandOutput { code: 0, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Waits until its standard output contains `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("{text:?} in its log"), |container| container.logs().stdout.contains(text));
    }

    /// Waits until `wanted` holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !wanted(self) {
            assert!(begin.elapsed() < LIMIT && self.runs(), "no {what}: {:#?}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the first line, which may also be the last.
    pub fn wait_until_said_or_ended(&self) {
        let begin = Instant::now();
        while self.logs().stdout.is_empty() && self.logs().stderr.is_empty() {
            assert!(begin.elapsed() < LIMIT, "it says nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn runs(&self) -> bool {
        self.engine.inspect(&self.name)["State"]["Running"] == true
    }

    /// Waits for its end, and gives what it said; its exit code is the code.
    #[track_caller]
    pub fn end(&self) -> CommandOutput {
        let begin = Instant::now();
        while self.runs() {
            assert!(begin.elapsed() < LIMIT, "it does not end: {:#?}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
        let code = self.state()["ExitCode"].as_i64().expect("an exit code");
        CommandOutput { code: i32::try_from(code).expect("an exit code"), ..self.logs() }
    }

    /// Waits for its end, and gives its outcome.
    #[track_caller]
    pub fn outcome(&self) -> (CommandOutput, Outcome) {
        let ran = self.end();
        let outcome = ran.outcome().unwrap_or_else(|| panic!("no outcome: {ran:#?}"));
        assert_eq!(ran.code, i32::from(outcome.exit_code), "{ran:#?}");
        (ran, outcome)
    }

    /// The engine's view of it.
    pub fn state(&self) -> Value {
        self.engine.inspect(&self.name)["State"].clone()
    }

    /// `docker stop`, with so many seconds until it is killed.
    pub fn stop(&self, seconds: u32) {
        let output = self.engine.docker(&["stop", "--time", &seconds.to_string(), &self.name]);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Sends process 1 a signal.
    pub fn signal(&self, signal: &str) {
        let output = self.engine.docker(&["kill", "--signal", signal, &self.name]);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Runs a shell command beside the supervisor.
    pub fn shell(&self, command: &str) -> String {
        let output = self.engine.docker(&["exec", &self.name, "/bin/sh", "-c", command]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Since when `docker run` was called.
    pub fn age(&self) -> Duration {
        self.started.expect("a started container").elapsed()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.started.is_some() {
            self.engine.docker(&["rm", "--force", "--volumes", &self.name]);
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
