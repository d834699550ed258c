//! A world whose runs are containers: the real dispatcher with its docker backend.

use std::process::Output;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use orchestrator_contract::Outcome;
use serde_json::Value;

use crate::engine::Engine;
use crate::test_env::{CommandOutput, TestEnv};

/// Longest that anything is waited for.
const LIMIT: Duration = Duration::from_secs(180);

/// Whoever clears away what others have left needs the engine for itself.
static ENGINE: RwLock<()> = RwLock::new(());

/// The right to use the engine.
#[expect(dead_code, reason = "held, not looked at")]
enum EngineLock {
    Shared(RwLockReadGuard<'static, ()>),
    Exclusive(RwLockWriteGuard<'static, ()>),
}

/// A world, an engine, and a service that no other test has. What it makes is gone when it is dropped.
pub struct DockerEnv {
    /// The world.
    pub world: TestEnv,
    /// The engine.
    pub engine: Engine,
    /// The service, whose workspace is a volume of the engine.
    pub service: String,
    services: Vec<String>,
    _right: EngineLock,
}

impl DockerEnv {
    /// Puts a world into containers of an engine.
    pub fn new(engine: Engine, world: TestEnv) -> Self {
        let right = EngineLock::Shared(ENGINE.read().unwrap_or_else(PoisonError::into_inner));
        Self::with(engine, world, right)
    }

    /// The same while no other test of this program uses the engine.
    pub fn alone(engine: Engine, world: TestEnv) -> Self {
        let right = EngineLock::Exclusive(ENGINE.write().unwrap_or_else(PoisonError::into_inner));
        Self::with(engine, world, right)
    }

    fn with(engine: Engine, mut world: TestEnv, right: EngineLock) -> Self {
        let service = new_service();
        let config = world.path("orchestrator.toml");
        world.set("ORCHESTRATOR_CONFIG", config.to_str().expect("a path of text"));
        world.set("DOCKER_HOST", engine.address());
        world.set("ORCHESTRATOR_DOCKER_IMAGE", &engine.image);
        // Runs in containers need neither.
        world.set("ORCHESTRATOR_SUPERVISOR", "");
        world.set("ORCHESTRATOR_CLAUDE", "");
        let docked = Self { world, engine, services: vec![service.clone()], service, _right: right };
        docked.configure("memory = \"3g\"\nnetwork = \"host\"");
        docked
    }

    /// Says how containers are run.
    pub fn configure(&self, docker: &str) {
        let config = self.world.path("orchestrator.toml");
        std::fs::write(config, format!("backend = \"docker\"\n[docker]\n{docker}\n")).expect("a file");
    }

    /// One more service of this world.
    pub fn another_service(&mut self) -> String {
        let service = new_service();
        self.services.push(service.clone());
        service
    }

    /// The name of an attempt at task 1 of the service.
    pub fn run_name(&self, attempt: u32) -> String {
        format!("{}-claude-agent-1-task1-attempt{attempt}", self.service)
    }

    /// The volume of the service.
    pub fn volume(&self) -> String {
        format!("workspace-{}", self.service)
    }

    /// The flags of task 1 of a service.
    pub fn flags_for(&self, service: &str) -> Vec<String> {
        let (target, platform) = (self.world.git.url("acme/trader"), self.world.git.url("acme/platform"));
        let flags = [
            ("--service", service),
            ("--task", "1"),
            ("--repository-url", &target),
            ("--platform-repository-url", &platform),
            // Found by the service's name otherwise, and this one has no name that anybody knows.
            ("--working-directory", "."),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
    }

    /// Runs a verb of the dispatcher with task 1 of the service.
    pub fn verb(&self, verb: &str, more: &[&str]) -> CommandOutput {
        let flags = self.flags_for(&self.service);
        let mut arguments = vec![verb];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend(more);
        self.world.dispatcher(&arguments)
    }

    /// Submits task 1 of the service and leaves it running; answers with the run's name.
    #[track_caller]
    pub fn begin(&self, more: &[&str]) -> String {
        let more: Vec<&str> = more.iter().copied().chain(["-o", "json"]).collect();
        let ran = self.verb("submit", &more);
        let value: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("nothing was started: {ran:#?}"));
        value["run"].as_str().expect("a run").to_owned()
    }

    /// Submits task 1 of the service, and waits for its end.
    #[track_caller]
    pub fn submit(&self, more: &[&str]) -> (CommandOutput, Outcome) {
        let more: Vec<&str> = more.iter().copied().chain(["--wait", "-o", "json"]).collect();
        let ran = self.verb("submit", &more);
        let outcome = self.newest_outcome();
        (ran, outcome)
    }

    /// The outcome of the newest run of the service.
    #[track_caller]
    pub fn newest_outcome(&self) -> Outcome {
        let ran = self.world.dispatcher(&["status", "--service", &self.service, "-o", "json"]);
        let status: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no status: {ran:#?}"));
        serde_json::from_value(status["outcome"].clone()).unwrap_or_else(|_| panic!("no outcome: {status:#}"))
    }

    /// Waits for the end of a run, and gives its outcome.
    #[track_caller]
    pub fn wait(&self, run: &str) -> (CommandOutput, Outcome) {
        let ran = self.world.dispatcher(&["wait", run]);
        let status = self.world.status(run);
        let outcome = serde_json::from_value(status["outcome"].clone())
            .unwrap_or_else(|_| panic!("no outcome: {status:#} {}", self.logs(run)));
        (ran, outcome)
    }

    /// What a container wrote, as the engine tells it.
    pub fn logs(&self, container: &str) -> String {
        let output = self.engine.docker(&["logs", container]);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Waits until `wanted` holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, wanted: impl Fn() -> bool) {
        let begin = Instant::now();
        while !wanted() {
            assert!(begin.elapsed() < LIMIT, "no {what}: {}", self.logs(&self.run_name(1)));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the model was asked for the second time: then the agent has changed something.
    #[track_caller]
    pub fn wait_until_it_works(&self) {
        self.wait_until("second question", || self.world.model.conversation().len() >= 2);
    }

    /// The containers of a service, whatever they do.
    pub fn containers(&self, service: &str) -> Vec<String> {
        self.lines(&["ps", "--all", "--format", "{{.Names}}", "--filter", &label(service)])
    }

    /// The volumes of a service.
    pub fn volumes(&self, service: &str) -> Vec<String> {
        self.lines(&["volume", "ls", "--format", "{{.Name}}", "--filter", &label(service)])
    }

    /// Runs a shell command as root in a container that has a volume.
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
