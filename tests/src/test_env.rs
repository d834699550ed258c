//! A whole world for a run: git host, GitHub, model, state folder, and our programs in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Event, EventBody, Outcome, ServiceName};

use crate::binaries::Binaries;
use crate::git_server::{Access, GitServer};
use crate::github::GitHub;
use crate::messages_api::{MessagesApi, Scripts};
use crate::projects;
use crate::tools::Tools;

/// Longest time that one command of a test may take.
const LIMIT: Duration = Duration::from_secs(180);

/// The world of one test. Everything in it is gone when it is dropped.
pub struct TestEnv {
    folder: tempfile::TempDir,
    /// The git host.
    pub git: Arc<GitServer>,
    /// Its REST interface.
    pub github: GitHub,
    /// The model.
    pub model: MessagesApi,
    /// The agent's token: the canary of the git credential.
    pub token: String,
    /// The model's key: the canary of the model credential.
    pub key: String,
    environment: BTreeMap<String, String>,
    refs_before: BTreeMap<String, BTreeMap<String, String>>,
}

/// A command that ended.
#[derive(Debug)]
pub struct CommandOutput {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl CommandOutput {
    /// The events that a supervisor printed.
    pub fn events(&self) -> Vec<Event> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no event: {line}")))
            .collect()
    }

    /// The outcome, if the last event is one.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.events().pop()?.body {
            EventBody::Outcome { outcome } => Some(*outcome),
            _ => None,
        }
    }
}

impl TestEnv {
    /// A world with the platform `acme/platform` and the target `acme/trader`, and a model
    /// that plays `scripts`.
    pub fn start(scripts: impl Into<Scripts>) -> Self {
        Self::with(scripts, projects::platform(), "main")
    }

    /// A world with other documents, or another default branch of the target.
    pub fn with(scripts: impl Into<Scripts>, platform: Vec<(String, String)>, branch: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("world-").tempdir().expect("a folder");
        let git = Arc::new(GitServer::start());
        let token = format!("ghp_{}", uuid::Uuid::new_v4().simple());
        let key = format!("sk-ant-api03-{}", uuid::Uuid::new_v4().simple());
        git.allow(&token, Access::Write);
        let files: Vec<(&str, &str)> =
            platform.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        git.create("acme/platform", "main", &files);
        let target = projects::order_book();
        let files: Vec<(&str, &str)> =
            target.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        git.create("acme/trader", branch, &files);
        // Every real repository has a history that a shallow clone leaves out.
        git.commit("acme/trader", branch, "Say more", &[("README.md", "# order-book\n\nBest prices.\n")]);
        let github = GitHub::start(Arc::clone(&git));
        let model = MessagesApi::start(scripts, &key);
        let mut world = Self {
            environment: BTreeMap::new(),
            refs_before: BTreeMap::new(),
            folder,
            git,
            github,
            model,
            token,
            key,
        };
        world.environment = world.ambient();
        world.remember_refs();
        world
    }

    fn ambient(&self) -> BTreeMap<String, String> {
        let (tools, binaries) = (Tools::get(), Binaries::get());
        let home = self.path("home");
        std::fs::create_dir_all(&home).expect("a home");
        let ambient = |name: &str| std::env::var(name).ok();
        let documentation = tools
            .rustdoc_mcp
            .as_deref()
            .and_then(Path::parent)
            .map(|folder| format!("{}:", folder.display()));
        let path = format!(
            "{}:{}{}",
            tools.bin.display(),
            documentation.unwrap_or_default(),
            ambient("PATH").unwrap_or_default()
        );
        let rustup = ambient("RUSTUP_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(ambient("HOME")?).join(".rustup")))
            .filter(|folder| folder.is_dir());
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), home.display().to_string()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("ORCHESTRATOR_STATE_DIR".to_owned(), self.state().display().to_string()),
            ("ORCHESTRATOR_SUPERVISOR".to_owned(), binaries.supervisor.display().to_string()),
            ("ORCHESTRATOR_CLAUDE".to_owned(), tools.claude.display().to_string()),
            ("GITHUB_TOKEN".to_owned(), self.token.clone()),
            ("GITHUB_API_URL".to_owned(), self.github.url()),
            ("ANTHROPIC_API_KEY".to_owned(), self.key.clone()),
            ("ANTHROPIC_BASE_URL".to_owned(), self.model.url()),
            // A failing stand-in is to be seen as failing in seconds, not minutes.
            ("CLAUDE_CODE_MAX_RETRIES".to_owned(), "1".to_owned()),
        ]);
        environment.extend(rustup.map(|folder| ("RUSTUP_HOME".to_owned(), folder.display().to_string())));
        environment
    }

    /// Sets or, with an empty text, removes a variable for the commands that follow.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.environment.remove(name);
        } else {
            self.environment.insert(name.to_owned(), value.to_owned());
        }
    }

    /// The environment of every command.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// A path in this world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the dispatcher keeps its runs and workspaces.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The workspace of a service.
    pub fn layout(&self, service: &str) -> Layout {
        let service = ServiceName::new(service).expect("a service name");
        Layout::new(self.state().join("workspaces").join(Layout::name(&service)))
    }

    /// Runs the dispatcher.
    pub fn dispatcher(&self, arguments: &[&str]) -> CommandOutput {
        self.run(&Binaries::get().dispatcher, arguments)
    }

    /// Runs the supervisor.
    pub fn supervisor(&self, arguments: &[&str]) -> CommandOutput {
        self.run(&Binaries::get().supervisor, arguments)
    }

    /// Submits task 1 of the trader service, waits for its end, and gives its outcome.
    pub fn submit(&self, more: &[&str]) -> (CommandOutput, Outcome) {
        self.submit_for("trader", "1", more)
    }

    /// Submits a task of a service, waits for its end, and gives its outcome.
    pub fn submit_for(&self, service: &str, task: &str, more: &[&str]) -> (CommandOutput, Outcome) {
        let ran = self.try_submit(service, task, more);
        let outcome = self.last_outcome(service, task);
        (ran, outcome)
    }

    /// The same for a submission that may be refused, and so have no outcome.
    pub fn try_submit(&self, service: &str, task: &str, more: &[&str]) -> CommandOutput {
        let (target, platform) = (self.git.url("acme/trader"), self.git.url("acme/platform"));
        let mut arguments = vec!["submit", "--service", service, "--task", task, "--wait"];
        for (flag, url) in [("--repository-url", &target), ("--platform-repository-url", &platform)] {
            if !more.contains(&flag) {
                arguments.extend([flag, url]);
            }
        }
        arguments.extend(more);
        self.dispatcher(&arguments)
    }

    /// The flags that give a supervisor its task: task 1 of the trader service, in `workspace`.
    pub fn task_flags(&self, workspace: &Path) -> Vec<String> {
        let (target, platform) = (self.git.url("acme/trader"), self.git.url("acme/platform"));
        let flags = [
            ("--workspace", workspace.to_str().expect("a path of text")),
            ("--service", "trader"),
            ("--task", "1"),
            ("--repository-url", &target),
            ("--platform-repository-url", &platform),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
    }

    /// The outcome of the newest run of a task, as the dispatcher tells it.
    pub fn last_outcome(&self, service: &str, task: &str) -> Outcome {
        let status = self.dispatcher(&["status", "--service", service, "--task", task, "-o", "json"]);
        let value: serde_json::Value =
            serde_json::from_str(&status.stdout).unwrap_or_else(|_| panic!("no status: {status:?}"));
        self.outcome_of(value["run"].as_str().unwrap_or_else(|| panic!("no run in {value}")))
    }

    /// The outcome of a run: the last event of its supervisor.
    pub fn outcome_of(&self, run: &str) -> Outcome {
        let folder = self.state().join("runs").join(run);
        let events = std::fs::read_to_string(folder.join("events.jsonl")).expect("events");
        let ran = CommandOutput { code: 0, stdout: events, stderr: String::new() };
        let complaints = || std::fs::read_to_string(folder.join("stderr.log")).unwrap_or_default();
        ran.outcome().unwrap_or_else(|| panic!("no outcome: {}{}", ran.stdout, complaints()))
    }

    /// Submits a task of the trader service and leaves it running; answers with the run's name.
    pub fn begin(&self, task: &str, more: &[&str]) -> String {
        let (target, platform) = (self.git.url("acme/trader"), self.git.url("acme/platform"));
        let mut arguments = vec!["submit", "--service", "trader", "--task", task, "-o", "json"];
        arguments.extend(["--repository-url", &target, "--platform-repository-url", &platform]);
        arguments.extend(more);
        let ran = self.dispatcher(&arguments);
        let value: serde_json::Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("nothing was started: {ran:?}"));
        value["run"].as_str().expect("a run").to_owned()
    }

    /// Waits for the end of a run, and gives its outcome.
    pub fn wait(&self, run: &str) -> (CommandOutput, Outcome) {
        let ran = self.dispatcher(&["wait", run]);
        let outcome = self.outcome_of(run);
        (ran, outcome)
    }

    /// Tries a run again, waits for its end, and gives its outcome.
    pub fn retry(&self, run: &str, more: &[&str]) -> (CommandOutput, Outcome) {
        let mut arguments = vec!["retry", run, "--wait"];
        arguments.extend(more);
        let ran = self.dispatcher(&arguments);
        let (identity, attempt) = run.rsplit_once("-attempt").expect("an attempt");
        let next = attempt.parse::<u32>().expect("a number") + 1;
        let events = self.state().join(format!("runs/{identity}-attempt{next}"));
        assert!(events.is_dir(), "no attempt {next}: {ran:?}");
        let outcome = self.outcome_of(&format!("{identity}-attempt{next}"));
        (ran, outcome)
    }

    /// What the dispatcher says of a run.
    pub fn status(&self, run: &str) -> serde_json::Value {
        let ran = self.dispatcher(&["status", run, "-o", "json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no status: {ran:?}"))
    }

    /// Looks at a run's status until `wanted` holds of it.
    #[track_caller]
    pub fn wait_until(&self, run: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let start = std::time::Instant::now();
        loop {
            let status = self.status(run);
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "not as wanted in time: {status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The supervisor of a run, found as people find it: by its command line.
    pub fn supervisor_of(&self, run: &str) -> rustix::process::Pid {
        let task = self.state().join("runs").join(run).join("task.json").display().to_string();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&task)
        });
        rustix::process::Pid::from_raw(pid.expect("a supervisor")).expect("a process number")
    }

    /// Sends the supervisor of a run a signal.
    pub fn signal(&self, run: &str, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.supervisor_of(run), signal).expect("a signal that is sent");
    }

    /// Runs a program in this world and waits for it; one that takes too long is killed.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> CommandOutput {
        use std::os::unix::process::CommandExt as _;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a program that starts");
        let group = rustix::process::Pid::from_child(&child);
        let (done, waited) = std::sync::mpsc::channel::<()>();
        let guard = std::thread::spawn(move || {
            if waited
                .recv_timeout(LIMIT)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        });
        let output = child.wait_with_output().expect("output");
        drop(done);
        guard.join().expect("the guard");
        CommandOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Remembers the refs of all repositories, to see later what a run changed.
    pub fn remember_refs(&mut self) {
        self.refs_before = self
            .repositories()
            .into_iter()
            .map(|repository| (repository.clone(), self.git.refs(&repository)))
            .collect();
    }

    /// Remembers the refs as they were before a branch of the target was pushed.
    pub fn remember_refs_before(&mut self, branch: &str) {
        self.remember_refs();
        for refs in self.refs_before.values_mut() {
            refs.remove(&format!("refs/heads/{branch}"));
        }
    }

    /// The repositories of the git host.
    pub(crate) fn repositories(&self) -> Vec<String> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).expect("a folder").flatten();
            // A link is another name of a repository that was renamed.
            let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let root = self.git.root();
        let of = |owner: String| {
            let repositories = names(&root.join(&owner));
            repositories.into_iter().map(move |name| format!("{owner}/{}", name.trim_end_matches(".git")))
        };
        let owners = names(root).into_iter().filter(|owner| owner == "acme");
        owners.flat_map(of).collect()
    }

    /// Tells that somebody else, not the run, moved a branch of the target, or deleted it.
    pub fn somebody_moved(&mut self, branch: &str, oid: Option<&str>) {
        let refs = self.refs_before.entry("acme/trader".to_owned()).or_default();
        let name = format!("refs/heads/{branch}");
        match oid {
            Some(oid) => refs.insert(name, oid.to_owned()),
            None => refs.remove(&name),
        };
    }

    /// Asserts what must hold after every run, as far as it can be seen from outside.
    pub fn assert_invariants(&self, outcome: &Outcome) {
        crate::invariants::assert_all(self, outcome);
    }

    pub(crate) fn refs_before(&self, repository: &str) -> &BTreeMap<String, String> {
        &self.refs_before[repository]
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
