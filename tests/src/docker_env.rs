//! A `TestEnv` whose runs are containers: the real dispatcher with its docker backend.

use std::process::Output;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use orchestrator_contract::Outcome;
use serde_json::Value;

use crate::command::{self, CommandOutput};
use crate::engine::Engine;
use crate::test_env::TestEnv;

/// Timeout of every wait.
const LIMIT: Duration = Duration::from_secs(180);

/// Held exclusively while a test prunes the engine.
static ENGINE: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held, never read")]
enum EngineLock {
    Shared(RwLockReadGuard<'static, ()>),
    Exclusive(RwLockWriteGuard<'static, ()>),
}

/// A `TestEnv`, an engine, and a service that no other test uses.
/// / Dropping it removes its containers and volumes.
pub struct DockerEnv {
    pub env: TestEnv,
    pub engine: Engine,
    /// The service; its workspace is a volume of the engine.
    pub service: String,
    services: Vec<String>,
    _right: EngineLock,
}

impl DockerEnv {
    /// Runs the tasks of `env` in containers of `engine`.
    pub fn new(engine: Engine, env: TestEnv) -> Self {
        let right = EngineLock::Shared(ENGINE.read().unwrap_or_else(PoisonError::into_inner));
        Self::with(engine, env, right)
    }

    /// Like [`Self::new`], while no other test of this process uses the engine through a `DockerEnv`.
    pub fn alone(engine: Engine, env: TestEnv) -> Self {
        let right = EngineLock::Exclusive(ENGINE.write().unwrap_or_else(PoisonError::into_inner));
        Self::with(engine, env, right)
    }

    fn with(engine: Engine, mut env: TestEnv, right: EngineLock) -> Self {
        let service = new_service();
        let config = env.path("orchestrator.toml");
        env.set("ORCHESTRATOR_CONFIG", config.to_str().expect("a path of text"));
        env.set("DOCKER_HOST", engine.address());
        env.set("ORCHESTRATOR_DOCKER_IMAGE", &engine.image);
        // Containers have their own supervisor and CLI.
        env.set("ORCHESTRATOR_SUPERVISOR", "");
        env.set("ORCHESTRATOR_CLAUDE", "");
        let docker = Self { env, engine, services: vec![service.clone()], service, _right: right };
        docker.configure("memory = \"3g\"\nnetwork = \"host\"");
        docker
    }

    /// Writes the `[docker]` section of the configuration.
    pub fn configure(&self, docker: &str) {
        let config = self.env.path("orchestrator.toml");
        std::fs::write(config, format!("backend = \"docker\"\n[docker]\n{docker}\n")).expect("a file");
    }

    /// Returns the name of another new service.
    pub fn another_service(&mut self) -> String {
        let service = new_service();
        self.services.push(service.clone());
        service
    }

    /// Returns the run name of an attempt at task 1 of the service.
    pub fn run_name(&self, attempt: u32) -> String {
        format!("{}-claude-agent-1-task1-attempt{attempt}", self.service)
    }

    /// Returns the volume of the service's worktree.
    pub fn volume(&self) -> String {
        format!("workspace-{}", self.service)
    }

    /// Returns the volume of the service that only supervisors mount.
    pub fn private(&self) -> String {
        format!("{}.private", self.volume())
    }

    /// Checks that the service has no volume besides its workspace.
    #[track_caller]
    pub fn assert_no_volume_of_run(&self) {
        let volumes = self.volumes(&self.service);
        assert!(volumes.iter().all(|volume| volume.starts_with(&self.volume())), "{volumes:?}");
    }

    /// Returns the flags of task 1 of a service.
    pub fn flags_for(&self, service: &str) -> Vec<String> {
        let mut flags = self.env.flags_for(service, "1");
        // The default is derived from the service name, which no directory has here.
        flags.extend(["--working-directory".to_owned(), ".".to_owned()]);
        flags
    }

    /// Runs a dispatcher command with the flags of task 1 of the service.
    pub fn verb(&self, verb: &str, more: &[&str]) -> CommandOutput {
        let flags = self.flags_for(&self.service);
        let mut arguments = vec![verb];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend(more);
        self.env.dispatcher(&arguments)
    }

    /// Submits task 1 of the service in the background and returns the run's name.
    #[track_caller]
    pub fn start_run(&self, more: &[&str]) -> String {
        let more: Vec<&str> = more.iter().copied().chain(["-o", "json"]).collect();
        let output = self.verb("submit", &more);
        let value: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|_| panic!("nothing was started: {output:#?}"));
        value["run"].as_str().expect("a run").to_owned()
    }

    /// Submits task 1 of the service and waits for its outcome.
    #[track_caller]
    pub fn submit(&self, more: &[&str]) -> (CommandOutput, Outcome) {
        let more: Vec<&str> = more.iter().copied().chain(["--wait", "-o", "json"]).collect();
        let output = self.verb("submit", &more);
        let outcome = self.newest_outcome();
        (output, outcome)
    }

    /// Returns the outcome of the newest run of the service.
    #[track_caller]
    pub fn newest_outcome(&self) -> Outcome {
        let output = self.env.dispatcher(&["status", "--service", &self.service, "-o", "json"]);
        let status: Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("no status: {output:#?}"));
        serde_json::from_value(status["outcome"].clone()).unwrap_or_else(|_| panic!("no outcome: {status:#}"))
    }

    /// Waits for a run to end and returns its outcome.
    #[track_caller]
    pub fn wait(&self, run: &str) -> (CommandOutput, Outcome) {
        let output = self.env.dispatcher(&["wait", run]);
        let status = self.env.status(run);
        let outcome = serde_json::from_value(status["outcome"].clone())
            .unwrap_or_else(|_| panic!("no outcome: {status:#} {}", self.logs(run)));
        (output, outcome)
    }

    /// Returns the log of a container.
    pub fn logs(&self, container: &str) -> String {
        let output = self.engine.docker(&["logs", container]);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Waits until `wanted` holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let explain = || format!("no {what}: {}", self.logs(&self.run_name(1)));
        command::poll(LIMIT, explain, || condition().then_some(()));
    }

    /// Waits for the second model request: by then the agent has changed a file.
    #[track_caller]
    pub fn wait_for_change(&self) {
        self.wait_until("second question", || self.env.model.conversation().len() >= 2);
    }

    /// Returns all containers of a service, running or not.
    pub fn containers(&self, service: &str) -> Vec<String> {
        self.lines(&["ps", "--all", "--format", "{{.Names}}", "--filter", &label(service)])
    }

    /// Returns the volumes of a service.
    pub fn volumes(&self, service: &str) -> Vec<String> {
        self.lines(&["volume", "ls", "--format", "{{.Name}}", "--filter", &label(service)])
    }

    /// Runs a shell command as root in a container that mounts a volume.
    pub fn in_volume(&self, volume: &str, command: &str) -> String {
        let mount = format!("{volume}:/volume");
        let arguments =
            ["run", "--rm", "--network=none", "--user=0:0", "--volume", &mount, "--entrypoint=/bin/sh"];
        let output = self.engine.docker(&[&arguments[..], &[&self.engine.image, "-c", command]].concat());
        format!("{}{}", text(&output), String::from_utf8_lossy(&output.stderr))
    }

    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let mut lines: Vec<String> =
            text(&self.engine.docker(arguments)).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for DockerEnv {
    fn drop(&mut self) {
        for service in &self.services {
            let filter = label(service);
            for id in self.lines(&["ps", "--all", "--quiet", "--filter", &filter]) {
                self.engine.docker(&["rm", "--force", &id]);
            }
            for volume in self.volumes(service) {
                self.engine.docker(&["volume", "rm", "--force", &volume]);
            }
        }
    }
}

fn new_service() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("s{}", &id[..10])
}

fn label(service: &str) -> String {
    format!("label=orchestrator.io/service={service}")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
