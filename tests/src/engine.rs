//! A container engine and containers of the agent image.
//! / Containers use the host network, because the fakes listen on its loopback interface.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use orchestrator_contract::Outcome;
use orchestrator_contract::layout::Layout;
use serde_json::Value;

use crate::command::{self, CommandOutput};
use crate::test_env::TestEnv;

/// Timeout of a test container.
const LIMIT: Duration = Duration::from_secs(180);

/// User ID of the image.
const USER: u32 = 10001;

#[derive(Clone, Debug)]
pub struct Engine {
    address: String,
    /// Name of the agent image, which includes a Rust toolchain.
    pub image: String,
}

impl Engine {
    /// Returns the engine at `ORCHESTRATOR_ENGINE` (`unix://...`) with the image `ORCHESTRATOR_AGENT_IMAGE`.
    /// / Returns `None` and prints that the test is skipped if there is none.
    pub fn get() -> Option<Self> {
        let image =
            std::env::var("ORCHESTRATOR_AGENT_IMAGE").unwrap_or_else(|_| "orchestrator/agent:ci".into());
        let Ok(address) = std::env::var("ORCHESTRATOR_ENGINE") else {
            println!("skipped: no container engine; see images/README.md");
            return None;
        };
        let engine = Self { address, image };
        let image = engine.docker(&["image", "inspect", &engine.image]);
        assert!(
            image.status.success(),
            "{} has no image {}: {}",
            engine.address,
            engine.image,
            stderr(&image)
        );
        Some(engine)
    }

    /// Returns the address in the format of `DOCKER_HOST`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs the docker CLI.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        // Debian's client; another one earlier in `PATH` may belong to another engine.
        let program = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        let mut docker = Command::new(program);
        docker.args(["--host", &self.address]).args(arguments).stdin(Stdio::null());
        docker.output().expect("docker starts")
    }

    /// Returns the output of `docker inspect`.
    pub fn inspect(&self, name: &str) -> Value {
        let output = self.docker(&["inspect", name]);
        assert!(output.status.success(), "{}", stderr(&output));
        let mut values: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON of docker");
        values.remove(0)
    }

    /// Returns a container of the agent image with the defaults of `docker run`.
    pub fn plain(&self) -> Container {
        Container::new(self.clone())
    }

    /// Returns a container of the agent image with the restrictions of production.
    pub fn hardened(&self) -> Container {
        self.plain().with(&["--network=host", "--read-only", "--tmpfs=/tmp:exec", "--cap-drop=ALL"]).with(&[
            "--security-opt=no-new-privileges",
            "--pids-limit=512",
            "--memory=3g",
            "--memory-swap=3g",
        ])
    }

    /// Like [`Self::hardened`], with a workspace directory and secrets as files.
    pub fn run_in(&self, env: &TestEnv, dirs: &RunDirs) -> Container {
        let mut container = self.hardened();
        container = container.with(&["--volume", &format!("{}:/workspace", dirs.workspace().display())]);
        let secrets = format!("{}:/run/secrets/orchestrator:ro", dirs.secrets.path().display());
        container = container.with(&["--volume", &secrets]);
        for name in ["GITHUB_API_URL", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_MAX_RETRIES"] {
            container = container.with(&["--env", &format!("{name}={}", env.environment()[name])]);
        }
        container
    }
}

/// The workspace and secrets of a service on the host.
pub struct RunDirs {
    workspace: PathBuf,
    /// Outside of the environment's directory, which is searched for leaked secrets.
    secrets: tempfile::TempDir,
}

impl RunDirs {
    /// Creates a workspace and the secrets of `env`.
    pub fn new(env: &TestEnv) -> Self {
        Self::owned_by(env, USER)
    }

    /// Like [`Self::new`], for another user of group 0.
    pub fn owned_by(env: &TestEnv, user: u32) -> Self {
        let workspace = env.path("workspace");
        fs::create_dir_all(&workspace).expect("a folder");
        chown(&workspace, Some(user), Some(0)).expect("root gives files away");
        fs::set_permissions(&workspace, Permissions::from_mode(0o775)).expect("a mode");
        let dirs = Self { workspace, secrets: tempfile::tempdir().expect("a folder") };
        fs::set_permissions(dirs.secrets.path(), Permissions::from_mode(0o750)).expect("a mode");
        dirs.secret("github-token", &env.token);
        dirs.secret("anthropic-api-key", &env.key);
        dirs
    }

    /// Adds a secret.
    pub fn secret(&self, name: &str, value: &str) {
        let path = self.secrets.path().join(name);
        fs::write(&path, value).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o440)).expect("a mode");
    }

    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Returns the layout of the workspace.
    pub fn layout(&self) -> Layout {
        Layout::new(&self.workspace)
    }
}

/// A container, removed when dropped.
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

    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Starts the container with arguments of the supervisor.
    #[must_use]
    pub fn start(mut self, arguments: &[&str]) -> Self {
        let mut command = vec!["run", "--detach", "--name", &self.name];
        command.extend(self.options.iter().map(String::as_str));
        command.push(&self.engine.image);
        command.extend(arguments);
        let before = Instant::now();
        let output = self.engine.docker(&command);
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        self.started = Some(before);
        self
    }

    /// Starts the container with task 1 of the trader service.
    #[must_use]
    pub fn start_task(self, env: &TestEnv, more: &[&str]) -> Self {
        let flags = env.task_flags(Path::new("/workspace"));
        let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.start(&arguments)
    }

    /// Returns the container's output so far.
    pub fn logs(&self) -> CommandOutput {
        self.engine.docker(&["logs", &self.name]).into()
    }

    /// Waits until standard output contains `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("{text:?} in its log"), |container| container.logs().stdout.contains(text));
    }

    /// Waits until `wanted` holds; panics if the container exits before.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let explain = || format!("no {what}: {:#?}", self.logs());
        command::poll(LIMIT, explain, || {
            let holds = condition(self);
            assert!(holds || self.runs(), "the container exited without {what}: {:#?}", self.logs());
            holds.then_some(())
        });
    }

    /// Waits for the first line of output.
    pub fn wait_for_output(&self) {
        let begin = Instant::now();
        while self.logs().stdout.is_empty() && self.logs().stderr.is_empty() {
            assert!(begin.elapsed() < LIMIT, "no output");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn runs(&self) -> bool {
        self.engine.inspect(&self.name)["State"]["Running"] == true
    }

    /// Waits for the container to exit and returns its output and exit code.
    #[track_caller]
    pub fn end(&self) -> CommandOutput {
        command::poll(
            LIMIT,
            || format!("still running: {:#?}", self.logs()),
            || (!self.runs()).then_some(()),
        );
        let code = self.state()["ExitCode"].as_i64().expect("an exit code");
        CommandOutput { code: i32::try_from(code).expect("an exit code"), ..self.logs() }
    }

    /// Waits for the container to exit and returns its outcome.
    #[track_caller]
    pub fn outcome(&self) -> (CommandOutput, Outcome) {
        let output = self.end();
        let outcome = output.outcome().unwrap_or_else(|| panic!("no outcome: {output:#?}"));
        assert_eq!(output.code, i32::from(outcome.exit_code), "{output:#?}");
        (output, outcome)
    }

    /// Returns `State` of `docker inspect`.
    pub fn state(&self) -> Value {
        self.engine.inspect(&self.name)["State"].clone()
    }

    /// Runs `docker stop` with a grace period in seconds.
    pub fn stop(&self, seconds: u32) {
        let output = self.engine.docker(&["stop", "--time", &seconds.to_string(), &self.name]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Sends a signal to process 1.
    pub fn signal(&self, signal: &str) {
        let output = self.engine.docker(&["kill", "--signal", signal, &self.name]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Runs a shell command in the container.
    pub fn shell(&self, command: &str) -> String {
        let output = self.engine.docker(&["exec", &self.name, "/bin/sh", "-c", command]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the time since `docker run` was called.
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

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
