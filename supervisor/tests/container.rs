//! Both ends of a container's guest, which is a plain process here.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orchestrator_contract::containers::{ContainerRole, SOCKET};
use orchestrator_contract::{Reason, RepositoryUrl};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use supervisor::container::{ContainerError, ContainerHost, ContainerProgram, EndedProgram, RunningProgram};
use supervisor::failure::Failure;
use supervisor::git::{ControlRepository, Oid, StatCache, snapshot};
use supervisor::guest::{BUILD_ID, Guest, GuestOptions};
use supervisor::process::{Environment, Exit, ProcessGroup, blocking_command};
use supervisor::site::Site;

/// Time in which everything has to happen, on a slow machine.
const BOUND: Duration = Duration::from_secs(60);

/// The empty tree, which every git repository has.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// The tree with the one file `file`, as git computes it.
const TREE_OF_FILE: &str = "d91d06157bdc633d25f970b9cc54d0eb74fb850f";

const HELLO: u8 = 1;
const STREAM: u8 = 2;
const ACCEPTED: u8 = 3;
const OTHER_BUILD: u8 = 4;
const BUSY: u8 = 5;
const EXITED: u8 = 34;

/// Host and guest of a container; the guest is killed at the end.
struct Fixture {
    host: Option<ContainerHost>,
    folder: tempfile::TempDir,
    guest: Process,
}

struct Process(std::process::Child);

impl Process {
    fn guest(socket: &Path) -> Self {
        let mut command = blocking_command(
            env!("CARGO_BIN_EXE_supervisor"),
            &[("PATH".into(), "/usr/bin:/bin".into()), ("IMAGE".into(), "a b".into())].into_iter().collect(),
            ProcessGroup::New,
        );
        command.args([OsString::from("guest"), "--connect".into(), socket.into()]);
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn wait(&mut self) -> ExitStatus {
        eventually(|| self.0.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = ContainerHost::listen(ContainerRole::Agent, folder.path()).unwrap();
        let guest = Process::guest(&folder.path().join(SOCKET));
        Self { host: Some(host), folder, guest }
    }

    fn host(&self) -> &ContainerHost {
        self.host.as_ref().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    fn program(&self, script: &str, stdin: bool) -> ContainerProgram {
        let environment: Environment =
            [("PATH".into(), "/usr/bin:/bin".into()), ("ONLY".into(), "this".into())].into_iter().collect();
        ContainerProgram {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment,
            directory: self.folder.path().to_owned(),
            stdin,
        }
    }

    /// Folder with one file.
    fn tree(&self) -> PathBuf {
        let tree = self.folder.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("file"), "content").unwrap();
        tree
    }

    /// Checks that a guest of files lists and reads the tree.
    fn assert_captured(&self, guest: &Guest) {
        let url = RepositoryUrl::new("https://example.org/a/b").unwrap();
        let control =
            ControlRepository::open(&self.folder.path().join("control"), &url).unwrap().into_repository();
        let empty = Oid::from_str(EMPTY_TREE).unwrap();
        let captured = snapshot::capture(&control, guest, empty, None, &StatCache::default()).unwrap();
        assert_eq!(captured.tree.to_string(), TREE_OF_FILE);
    }

    fn start(&self, script: &str) -> RunningProgram {
        self.host().start(&self.program(script, false)).unwrap()
    }
}

/// Asks until there is an answer.
fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < BOUND, "nothing within {BOUND:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn read(stream: &mut Option<UnixStream>) -> String {
    let mut stream = stream.take().unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn read_line(stream: &mut Option<UnixStream>) -> String {
    let stream = stream.as_mut().unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn pid(line: &str) -> Pid {
    Pid::from_raw(line.trim().parse().unwrap()).unwrap()
}

fn wait_until_gone(pid: Pid) {
    eventually(|| test_kill_process(pid).is_err().then_some(()));
}

async fn wait(program: &mut RunningProgram) -> EndedProgram {
    tokio::time::timeout(BOUND, program.wait()).await.unwrap()
}

fn exited(exit: Exit) -> EndedProgram {
    EndedProgram::Exited { exit, out_of_memory: false }
}

fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_le_bytes(), &id.to_le_bytes(), [kind].as_slice(), payload].concat()
}

/// Returns the kind of the next frame; `None` at the end of the connection.
fn answer(socket: &mut UnixStream) -> Option<u8> {
    socket.set_read_timeout(Some(BOUND)).unwrap();
    let mut header = [0; 9];
    match socket.read_exact(&mut header) {
        Ok(()) => {
            let length = u32::from_le_bytes(header[..4].try_into().unwrap());
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut payload).unwrap();
            Some(header[8])
        }
        Err(error) => {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "neither an answer nor an end");
            None
        }
    }
}

fn hello(build: &str) -> Vec<u8> {
    let facts = serde_json::json!({"environment": {}, "uid": 1, "pid": 1, "program": "/p"});
    frame(0, HELLO, &serde_json::to_vec(&serde_json::json!({"build": build, "facts": facts})).unwrap())
}

#[tokio::test]
async fn program_has_streams_environment_and_exit_code() {
    let fixture = Fixture::new();
    let spec = fixture.program("cat; pwd; env; echo problem >/dev/stderr; exit 7", true);
    let mut program = fixture.host().start(&spec).unwrap();
    let mut stdin = program.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    drop(stdin);
    let output = read(&mut program.stdout);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["hello", fixture.folder.path().to_str().unwrap()]);
    assert!(lines.contains(&"ONLY=this"), "{output}");
    assert!(!output.contains("IMAGE="), "{output}");
    assert_eq!(read(&mut program.stderr), "problem\n");
    assert_eq!(wait(&mut program).await, exited(Exit::Code(7)));
    assert_eq!(wait(&mut program).await, exited(Exit::Code(7)));
}

#[tokio::test]
async fn facts_and_programs_are_those_of_guest() {
    let fixture = Fixture::new();
    let facts = fixture.host().facts().unwrap();
    let variable = |name: &str| facts.environment[std::ffi::OsStr::new(name)].to_str().unwrap().to_owned();
    assert_eq!(variable("IMAGE"), "a b");
    let own = Path::new(env!("CARGO_BIN_EXE_supervisor"));
    assert_eq!(variable("PATH"), format!("/usr/bin:/bin:{}", own.parent().unwrap().display()));
    assert_eq!(facts.program, own);
    assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
    assert!(fixture.host().find_program("sh").unwrap().unwrap().is_absolute());
    assert_eq!(fixture.host().find_program("supervisor").unwrap().as_deref(), Some(own));
    assert_eq!(fixture.host().find_program("no-such-program").unwrap(), None);
}

#[tokio::test]
async fn program_that_cannot_start_is_error_with_reason() {
    let fixture = Fixture::new();
    let mut spec = fixture.program("true", false);
    spec.program = "/no/such/program".into();
    let error = fixture.host().start(&spec).unwrap_err().to_string();
    assert!(error.contains("`/no/such/program`") && error.contains("`agent`"), "{error}");
    assert!(error.contains("No such file"), "{error}");
    let mut spec = fixture.program("true", false);
    spec.directory = "/no/such/directory".into();
    let error = fixture.host().start(&spec).unwrap_err().to_string();
    assert!(error.contains("the directory `/no/such/directory` does not exist"), "{error}");
    // The guest serves on.
    assert_eq!(wait(&mut fixture.start("exit 3")).await, exited(Exit::Code(3)));
}

#[tokio::test]
async fn signal_does_not_wait_for_output_that_is_not_read() {
    let fixture = Fixture::new();
    // It also shows that programs do not inherit the guest's handling of SIGTERM.
    let mut program = fixture.start("yes");
    let stdout = program.stdout.as_ref().unwrap();
    // Once data is there, the rest fills every buffer.
    eventually(|| (rustix::io::ioctl_fionread(stdout).unwrap() > 100_000).then_some(()));
    program.signal_group(Signal::TERM);
    assert_eq!(wait(&mut program).await, exited(Exit::Signal(15)));
}

#[tokio::test]
async fn exit_is_reported_while_daemon_holds_pipes() {
    let fixture = Fixture::new();
    let mut program = fixture.start("(setsid sleep 1000; true) & echo started");
    assert_eq!(read_line(&mut program.stdout), "started");
    assert_eq!(wait(&mut program).await, exited(Exit::Code(0)));
    assert_eq!(fixture.host().kill_all().unwrap(), [0; 0]);
    assert_eq!(read(&mut program.stdout), "");
}

#[tokio::test]
async fn kill_all_spares_guests_of_files() {
    let fixture = Fixture::new();
    let guest = fixture.host().open_guest(&fixture.tree(), GuestOptions::default()).unwrap();
    let mut program = fixture.start("sleep 1000 & sleep 1000");
    assert_eq!(fixture.host().kill_all().unwrap(), [0; 0]);
    assert_eq!(wait(&mut program).await, exited(Exit::Signal(9)));
    fixture.assert_captured(&guest);
}

#[tokio::test]
async fn kill_orphans_spares_running_programs() {
    let fixture = Fixture::new();
    let mut running = fixture.start("sleep 1000 & echo $!; wait");
    let child = pid(&read_line(&mut running.stdout));
    let mut ended = fixture.start("(setsid sleep 1000 & echo $!)");
    let orphan = pid(&read_line(&mut ended.stdout));
    assert_eq!(wait(&mut ended).await, exited(Exit::Code(0)));
    assert_eq!(fixture.host().kill_orphans().unwrap(), [0; 0]);
    wait_until_gone(orphan);
    test_kill_process(child).unwrap();
}

#[tokio::test]
async fn dropped_program_is_killed_with_its_group() {
    let fixture = Fixture::new();
    let mut program = fixture.start("sleep 1000 & echo $!; wait");
    let child = pid(&read_line(&mut program.stdout));
    drop(program);
    wait_until_gone(child);
}

#[tokio::test]
async fn dropped_host_leaves_no_process_behind() {
    let mut fixture = Fixture::new();
    let mut program = fixture.start("setsid sleep 1000 & echo $!; wait");
    let child = pid(&read_line(&mut program.stdout));
    let guest = fixture.host().open_guest(fixture.folder.path(), GuestOptions::default()).unwrap();
    drop(fixture.host.take());
    assert_eq!(wait(&mut program).await, EndedProgram::Lost);
    wait_until_gone(child);
    drop(guest);
    // The supervisor is back, without knowledge of the former one.
    let host = ContainerHost::listen(ContainerRole::Agent, fixture.folder.path()).unwrap();
    assert_eq!(
        wait(&mut host.start(&fixture.program("exit 4", false)).unwrap()).await,
        exited(Exit::Code(4))
    );
}

#[tokio::test]
async fn sigterm_ends_guest_only_after_its_supervisor() {
    let mut fixture = Fixture::new();
    fixture.host().facts().unwrap();
    kill_process(fixture.guest.pid(), Signal::TERM).unwrap();
    assert_eq!(wait(&mut fixture.start("exit 5")).await, exited(Exit::Code(5)));
    assert_eq!(fixture.host().restarts(), 0);
    drop(fixture.host.take());
    assert_eq!(fixture.guest.wait().code(), Some(0));
    // One that waits for a supervisor exits immediately.
    let mut waiting = Process::guest(&fixture.socket());
    eventually(|| catches_sigterm(waiting.pid()).then_some(()));
    kill_process(waiting.pid(), Signal::TERM).unwrap();
    assert_eq!(waiting.wait().code(), Some(0));
}

/// Returns whether a process has a handler for SIGTERM.
fn catches_sigterm(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

#[tokio::test]
async fn killed_guest_loses_programs_and_next_one_serves() {
    let mut fixture = Fixture::new();
    let mut program = fixture.start("echo $$; exec sleep 1000");
    let child = pid(&read_line(&mut program.stdout));
    kill_process(fixture.guest.pid(), Signal::KILL).unwrap();
    assert_eq!(fixture.guest.wait().signal(), Some(9));
    assert_eq!(wait(&mut program).await, EndedProgram::Lost);
    // In a container the kernel does this.
    kill_process(child, Signal::KILL).unwrap();
    fixture.guest = Process::guest(&fixture.socket());
    let guest = fixture.host().open_guest(&fixture.tree(), GuestOptions::default()).unwrap();
    fixture.assert_captured(&guest);
    assert_eq!(fixture.host().restarts(), 1);
}

#[tokio::test]
async fn run_whose_guest_dies_gets_reason_of_lost_container() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::container(ContainerRole::Agent, folder.path()).unwrap();
    let mut process = Process::guest(&folder.path().join(SOCKET));
    site.connect().await.unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let guest = site.open(&tree).unwrap();
    // In a container the kernel kills the guests of files with their process 1.
    for process in children(process.pid()).into_iter().chain([process.pid()]) {
        kill_process(process, Signal::KILL).unwrap();
    }
    assert_eq!(process.wait().signal(), Some(9));
    let url = RepositoryUrl::new("https://example.org/a/b").unwrap();
    let control = ControlRepository::open(&folder.path().join("control"), &url).unwrap().into_repository();
    let empty = Oid::from_str(EMPTY_TREE).unwrap();
    let error = snapshot::capture(&control, &guest, empty, None, &StatCache::default()).unwrap_err();
    assert_lost(&Failure::from_error(error.reason(), &error));
}

#[tokio::test]
async fn run_whose_guest_dies_in_request_gets_that_reason_too() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::container(ContainerRole::Agent, folder.path()).unwrap();
    let tree = folder.path().to_owned();
    for during_open in [true, false] {
        let mut guest = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
        guest.write_all(&hello(BUILD_ID)).unwrap();
        assert_eq!(answer(&mut guest), Some(ACCEPTED));
        site.connect().await.unwrap();
        let (site, tree) = (site.clone(), tree.clone());
        let asked = std::thread::spawn(move || match site {
            site if during_open => site.open(&tree).unwrap_err(),
            Site::Container(site) => site.find_program("sh").unwrap_err(),
            Site::Machine { .. } => Failure::new(Reason::Completed, "no container"),
        });
        // The request is there.
        guest.read_exact(&mut [0; 11]).unwrap();
        drop(guest);
        assert_lost(&asked.join().unwrap());
    }
}

fn assert_lost(failure: &Failure) {
    assert_eq!(failure.reason, Reason::AgentOutOfMemory, "{failure:?}");
    assert!(failure.message.contains("`agent` container"), "{failure:?}");
}

fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap()).collect()
}

#[test]
fn first_guest_of_other_build_is_error_of_run() {
    let folder = tempfile::tempdir().unwrap();
    let host = ContainerHost::listen(ContainerRole::Verify, folder.path()).unwrap();
    let mut other = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    other.write_all(&hello("another")).unwrap();
    assert_eq!(answer(&mut other), Some(OTHER_BUILD));
    let error = host.facts().unwrap_err();
    assert!(matches!(error, ContainerError::OtherBuild { .. }), "{error}");
    assert!(error.to_string().contains("`verify` container"), "{error}");
}

#[tokio::test]
async fn later_main_connections_are_refused() {
    let fixture = Fixture::new();
    fixture.host().facts().unwrap();
    for (build, kind) in [("another", OTHER_BUILD), (BUILD_ID, BUSY)] {
        let mut other = UnixStream::connect(fixture.socket()).unwrap();
        other.write_all(&hello(build)).unwrap();
        assert_eq!(answer(&mut other), Some(kind));
        assert_eq!(answer(&mut other), None);
    }
    assert_eq!(wait(&mut fixture.start("exit 6")).await, exited(Exit::Code(6)));
    assert_eq!(fixture.host().restarts(), 0);
}

#[tokio::test]
async fn hostile_connections_do_not_stop_wanted_streams() {
    let fixture = Fixture::new();
    fixture.host().facts().unwrap();
    let huge = [&u32::MAX.to_le_bytes(), &0_u32.to_le_bytes(), [HELLO].as_slice()].concat();
    let facts = serde_json::to_vec(&serde_json::json!({"build": BUILD_ID, "facts": 3})).unwrap();
    for bytes in
        [vec![0xff; 64], huge, frame(0, STREAM, &[7; 16]), frame(0, STREAM, &[]), frame(0, HELLO, &facts)]
    {
        let mut hostile = UnixStream::connect(fixture.socket()).unwrap();
        hostile.write_all(&bytes).unwrap();
        assert_eq!(answer(&mut hostile), None, "{bytes:?}");
    }
    let silent: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(fixture.socket()).unwrap()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(UnixStream::connect(fixture.socket()).unwrap());
            }
        });
        for _ in 0..20 {
            let mut program = fixture.start("echo here");
            assert_eq!(read(&mut program.stdout), "here\n");
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    drop(silent);
}

#[test]
fn guest_that_reports_unknown_program_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let host = ContainerHost::listen(ContainerRole::Agent, folder.path()).unwrap();
    let mut liar = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    liar.write_all(&hello(BUILD_ID)).unwrap();
    assert_eq!(answer(&mut liar), Some(ACCEPTED));
    assert_eq!(host.facts().unwrap().uid, 1);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| host.find_program("sh").unwrap_err());
        // The request is there.
        let mut payload = [0; 11];
        liar.read_exact(&mut payload).unwrap();
        let exit = br#"{"code":0,"signal":null,"out_of_memory":false}"#;
        liar.write_all(&frame(77, EXITED, exit)).unwrap();
        let error = asked.join().unwrap().to_string();
        assert!(error.contains("reported an exit of an unknown program"), "{error}");
    });
    assert_eq!(answer(&mut liar), None);
}
