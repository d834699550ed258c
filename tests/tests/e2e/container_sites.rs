//! The supervisor with the guests of containers: here as plain processes of this machine.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orchestrator_contract::containers::ContainerRole;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::outcome::{SandboxKind, VerificationStatus};
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::command::CommandOutput;
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects::{RIGHT, fix, fixes};
use orchestrator_tests::test_env::TestEnv;

/// Volumes of a run, and the guests that work in them.
struct Containers<'e> {
    env: &'e TestEnv,
    tree: PathBuf,
    state: PathBuf,
    sockets: PathBuf,
    guests: Vec<Child>,
}

impl<'e> Containers<'e> {
    fn start(env: &'e TestEnv) -> Self {
        let (tree, state, sockets) = (env.path("tree"), env.path("volumes"), env.path("sockets"));
        let mut guests = Vec::new();
        for role in ContainerRole::ALL {
            for folder in [&tree, &state.join("private"), &state.join("shared"), &sockets.join(role.name())] {
                std::fs::create_dir_all(folder).unwrap();
            }
            let mut guest = Command::new(&Binaries::get().supervisor);
            guest.args(["guest", "--connect"]).arg(sockets.join(role.name()).join("socket"));
            // No credential, and nothing else of the supervisor's environment.
            let path = &env.environment()["PATH"];
            guest.env_clear().env("PATH", path).env("OF_IMAGE", role.name());
            guest.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            guests.push(guest.spawn().unwrap());
        }
        Self { env, tree, state, sockets, guests }
    }

    fn layout(&self) -> Layout {
        Layout::with_state(&self.tree, &self.state)
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut arguments = self.env.task_flags(&self.tree);
        let (state, sockets) = (self.state.to_str().unwrap(), self.sockets.to_str().unwrap());
        let flags = ["--state-dir", state, "--guests-dir", sockets, "--log-format", "json"];
        arguments.extend(flags.iter().chain(more).map(|flag| (*flag).to_owned()));
        arguments
    }

    fn run(&self, more: &[&str]) -> (CommandOutput, Outcome) {
        let arguments = self.arguments(more);
        let output = self.env.supervisor(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let outcome = output.outcome().unwrap_or_else(|| panic!("no outcome: {output:#?}"));
        (output, outcome)
    }
}

impl Containers<'_> {
    /// Ends the guests, which wait for another supervisor.
    fn stop(&mut self) {
        for mut guest in self.guests.drain(..) {
            guest.kill().unwrap();
            guest.wait().unwrap();
        }
    }
}

impl Drop for Containers<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn run_in_containers_is_verified_and_pushed() {
    let env = TestEnv::start(fixes());
    let mut containers = Containers::start(&env);
    // Setup commands run for the agent and for the verification.
    let setup = "test -n \"$OF_IMAGE\" && echo from setup > /dev/stderr && touch $HOME/setup";
    let check = "test \"$OF_IMAGE\" = verify && grep -q max src/lib.rs && echo seen > /dev/stderr";
    let (output, outcome) = containers.run(&["--setup", setup, "--verify", check]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.sandbox.as_ref().map(|sandbox| sandbox.kind), Some(SandboxKind::Container));
    assert_eq!(outcome.verification.status, VerificationStatus::Passed);
    let lib = env.git.read("acme/trader", "feature/task-1-implementation", "src/lib.rs").unwrap();
    assert!(lib.contains(RIGHT), "{lib}");
    // Nothing of the run is left where the agent could write.
    let layout = containers.layout();
    for folder in [layout.agent_dir(), layout.verify_dir()] {
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{}", folder.display());
    }
    assert!(layout.run_dir(&outcome.run).outcome().is_file());
    containers.stop();
    env.assert_invariants(&outcome);
}

#[test]
fn supervisor_opens_nothing_in_workspace_of_containers() {
    if Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let env = TestEnv::start(fixes());
    let containers = Containers::start(&env);
    let trace = env.path("trace");
    let mut arguments: Vec<String> =
        ["-f", "-qq", "-e", "trace=%file", "-s", "4096", "-o", trace.to_str().unwrap()]
            .map(str::to_owned)
            .into();
    arguments.push(Binaries::get().supervisor.to_str().unwrap().to_owned());
    arguments.extend(containers.arguments(&["--verify", "grep -q max src/lib.rs"]));
    let output = env.run(Path::new("strace"), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let outcome = output.outcome().unwrap_or_else(|| panic!("no outcome: {output:#?}"));
    assert_eq!(outcome.reason, Reason::Completed, "{outcome:#?}");
    let trace = std::fs::read_to_string(&trace).unwrap();
    let tree = format!("\"{}", containers.tree.display());
    assert!(trace.contains(&format!("\"{}", containers.state.display())), "the trace has the other volumes");
    let opened: Vec<&str> =
        trace.lines().filter(|line| line.contains(&tree) && !line.contains("execve(")).collect();
    assert!(opened.is_empty(), "{opened:#?}");
}

#[test]
fn failed_verification_returns_to_agent_in_its_container() {
    let script = Script::new()
        .turn(Turn::bash("echo '// a try' >> src/lib.rs; touch $HOME/mine"))
        .turn(Turn::verdict("done", "Tried."))
        .turn(Turn::bash("test -f $HOME/mine && echo \"same home\""))
        .turn(fix().expecting("same home"))
        .turn(Turn::verdict("done", "Now it is the highest."));
    let env = TestEnv::start(script);
    let mut containers = Containers::start(&env);
    let (output, outcome) = containers.run(&["--verify", "grep -q max src/lib.rs"]);
    assert_eq!((output.code, outcome.reason), (0, Reason::Completed), "{output:#?}\n{outcome:#?}");
    assert_eq!(outcome.sessions.len(), 1, "one conversation");
    env.model.assert_played();
    containers.stop();
    env.assert_invariants(&outcome);
}

#[test]
fn cli_is_looked_up_in_container() {
    let mut env = TestEnv::start(Script::new());
    env.set("ORCHESTRATOR_CLAUDE", "no-such-cli");
    let containers = Containers::start(&env);
    let (output, outcome) = containers.run(&[]);
    assert_eq!(outcome.reason, Reason::AgentCliNotFound, "{output:#?}");
    assert!(outcome.message.contains("no-such-cli"), "{}", outcome.message);
}
