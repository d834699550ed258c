//! The base of the harness: git host, GitHub, model, state directory, and the programs that use them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Outcome, ServiceName};

use crate::binaries::Binaries;
use crate::command::{self, CommandOutput};
use crate::git_server::{Access, GitServer};
use crate::github::GitHub;
use crate::messages_api::{MessagesApi, Scripts};
use crate::projects;
use crate::tools::Tools;

/// Timeout of one command.
const LIMIT: Duration = Duration::from_secs(180);

/// The environment of one test. Dropping it removes everything.
pub struct TestEnv {
    folder: tempfile::TempDir,
    /// The git host.
    pub git: Arc<GitServer>,
    /// The REST API of the git host.
    pub github: GitHub,
    /// The model.
    pub model: MessagesApi,
    /// The GitHub token of the agent; also the canary for leaks.
    pub token: String,
    /// The model key; also the canary for leaks.
    pub key: String,
    environment: BTreeMap<String, String>,
    refs_before: BTreeMap<String, BTreeMap<String, String>>,
}

impl TestEnv {
    /// Creates the platform `acme/platform`, the target `acme/trader`, and a model that plays `scripts`.
    pub fn start(scripts: impl Into<Scripts>) -> Self {
        Self::with(scripts, projects::platform(), "main")
    }

    /// Like [`Self::start`], with other platform files and another default branch of the target.
    pub fn with(scripts: impl Into<Scripts>, platform: Vec<(String, String)>, branch: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("env-").tempdir().expect("a folder");
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
        // Real repositories have history that a shallow clone omits.
        git.commit("acme/trader", branch, "Say more", &[("README.md", "# order-book\n\nBest prices.\n")]);
        let github = GitHub::start(Arc::clone(&git));
        let model = MessagesApi::start(scripts, &key);
        let mut env = Self {
            environment: BTreeMap::new(),
            refs_before: BTreeMap::new(),
            folder,
            git,
            github,
            model,
            token,
            key,
        };
        env.environment = env.ambient();
        env.record_refs();
        env
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
            // Reports a failing API within seconds instead of minutes.
            ("CLAUDE_CODE_MAX_RETRIES".to_owned(), "1".to_owned()),
        ]);
        environment.extend(rustup.map(|folder| ("RUSTUP_HOME".to_owned(), folder.display().to_string())));
        environment
    }

    /// Sets a variable of all following commands; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.environment.remove(name);
        } else {
            self.environment.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Returns the variables of every command.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Returns a path in the environment's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the dispatcher's state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Returns the workspace layout of a service.
    pub fn layout(&self, service: &str) -> Layout {
        let service = ServiceName::new(service).expect("a service name");
        Layout::new(self.state().join("workspaces").join(Layout::name(&service)))
    }

    pub fn dispatcher(&self, arguments: &[&str]) -> CommandOutput {
        self.run(&Binaries::get().dispatcher, arguments)
    }

    pub fn supervisor(&self, arguments: &[&str]) -> CommandOutput {
        self.run(&Binaries::get().supervisor, arguments)
    }

    /// Submits task 1 of the trader service and waits for its outcome.
    pub fn submit(&self, more: &[&str]) -> (CommandOutput, Outcome) {
        self.submit_for("trader", "1", more)
    }

    /// Submits a task of a service and waits for its outcome.
    pub fn submit_for(&self, service: &str, task: &str, more: &[&str]) -> (CommandOutput, Outcome) {
        let output = self.try_submit(service, task, more);
        let outcome = self.last_outcome(service, task);
        (output, outcome)
    }

    /// Like [`Self::submit_for`], for submissions that may be rejected without an outcome.
    pub fn try_submit(&self, service: &str, task: &str, more: &[&str]) -> CommandOutput {
        let flags = self.flags_for(service, task);
        // Flags in `more` replace the defaults.
        let flags = flags.chunks(2).filter(|flag| !more.contains(&flag[0].as_str())).flatten();
        let mut arguments = vec!["submit", "--wait"];
        arguments.extend(flags.map(String::as_str));
        arguments.extend(more);
        self.dispatcher(&arguments)
    }

    /// Returns the flags of a task of a service, with the repositories of this environment.
    pub(crate) fn flags_for(&self, service: &str, task: &str) -> Vec<String> {
        let (target, platform) = (self.git.url("acme/trader"), self.git.url("acme/platform"));
        let flags = [
            ("--service", service),
            ("--task", task),
            ("--repository-url", &target),
            ("--platform-repository-url", &platform),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
    }

    /// Returns the supervisor flags of task 1 of the trader service in `workspace`.
    pub fn task_flags(&self, workspace: &Path) -> Vec<String> {
        let mut flags = self.flags_for("trader", "1");
        flags.extend(["--workspace".to_owned(), workspace.to_str().expect("a UTF-8 path").to_owned()]);
        flags
    }

    /// Returns the outcome of the newest run of a task.
    pub fn last_outcome(&self, service: &str, task: &str) -> Outcome {
        let status = self.dispatcher(&["status", "--service", service, "--task", task, "-o", "json"]);
        let value: serde_json::Value =
            serde_json::from_str(&status.stdout).unwrap_or_else(|_| panic!("no status: {status:?}"));
        self.outcome_of(value["run"].as_str().unwrap_or_else(|| panic!("no run in {value}")))
    }

    /// Returns the outcome of a run: the last event of its supervisor.
    pub fn outcome_of(&self, run: &str) -> Outcome {
        let folder = self.state().join("runs").join(run);
        let events = std::fs::read_to_string(folder.join("events.jsonl")).expect("events");
        let output = CommandOutput { code: 0, stdout: events, stderr: String::new() };
        let complaints = || std::fs::read_to_string(folder.join("stderr.log")).unwrap_or_default();
        output.outcome().unwrap_or_else(|| panic!("no outcome: {}{}", output.stdout, complaints()))
    }

    /// Submits a task of the trader service in the background and returns the run's name.
    pub fn start_run(&self, task: &str, more: &[&str]) -> String {
        let flags = self.flags_for("trader", task);
        let mut arguments = vec!["submit", "-o", "json"];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend(more);
        let output = self.dispatcher(&arguments);
        let value: serde_json::Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|_| panic!("nothing was started: {output:?}"));
        value["run"].as_str().expect("a run").to_owned()
    }

    /// Waits for a run to end and returns its outcome.
    pub fn wait(&self, run: &str) -> (CommandOutput, Outcome) {
        let output = self.dispatcher(&["wait", run]);
        let outcome = self.outcome_of(run);
        (output, outcome)
    }

    /// Retries a run and waits for its outcome.
    pub fn retry(&self, run: &str, more: &[&str]) -> (CommandOutput, Outcome) {
        let mut arguments = vec!["retry", run, "--wait"];
        arguments.extend(more);
        let output = self.dispatcher(&arguments);
        let (identity, attempt) = run.rsplit_once("-attempt").expect("an attempt");
        let next = attempt.parse::<u32>().expect("a number") + 1;
        let events = self.state().join(format!("runs/{identity}-attempt{next}"));
        assert!(events.is_dir(), "no attempt {next}: {output:?}");
        let outcome = self.outcome_of(&format!("{identity}-attempt{next}"));
        (output, outcome)
    }

    /// Returns the output of `dispatcher status`.
    pub fn status(&self, run: &str) -> serde_json::Value {
        let output = self.dispatcher(&["status", run, "-o", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("no status: {output:?}"))
    }

    /// Polls a run's status until `wanted` holds.
    #[track_caller]
    pub fn wait_until(&self, run: &str, condition: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let explain = || format!("status of {run}: {:#}", self.status(run));
        command::poll(LIMIT, explain, || Some(self.status(run)).filter(&condition))
    }

    /// Returns the supervisor of a run, found by its command line.
    pub fn supervisor_of(&self, run: &str) -> rustix::process::Pid {
        let task = self.state().join("runs").join(run).join("task.json").display().to_string();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&task)
        });
        rustix::process::Pid::from_raw(pid.expect("a supervisor")).expect("a process number")
    }

    /// Sends a signal to the supervisor of a run.
    pub fn signal(&self, run: &str, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.supervisor_of(run), signal).expect("a signal that is sent");
    }

    /// Runs a program with the environment's variables; kills it after the timeout.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> CommandOutput {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.environment).current_dir(self.folder.path());
        command::run(&mut command, LIMIT)
    }

    /// Records the refs of all repositories, for the comparison after a run.
    pub fn record_refs(&mut self) {
        self.refs_before = self
            .repositories()
            .into_iter()
            .map(|repository| (repository.clone(), self.git.refs(&repository)))
            .collect();
    }

    /// Like [`Self::remember_refs`], without one branch of the target.
    pub fn record_refs_without(&mut self, branch: &str) {
        self.record_refs();
        for refs in self.refs_before.values_mut() {
            refs.remove(&format!("refs/heads/{branch}"));
        }
    }

    /// Returns the repositories of the git host.
    pub(crate) fn repositories(&self) -> Vec<String> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).expect("a folder").flatten();
            // Renamed repositories are symlinks.
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

    /// Records that another user moved or deleted a branch of the target.
    pub fn record_external_push(&mut self, branch: &str, oid: Option<&str>) {
        let refs = self.refs_before.entry("acme/trader".to_owned()).or_default();
        let name = format!("refs/heads/{branch}");
        match oid {
            Some(oid) => refs.insert(name, oid.to_owned()),
            None => refs.remove(&name),
        };
    }

    /// Asserts the invariants of a finished run.
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
