//! Runs real programs in each kind of sandbox that this machine can make, as root and as another user.
//!
//! This test program is its own attacker: in a sandbox it runs the test `attacker` with an attack's name.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]
#![expect(unsafe_code, reason = "attacks make system calls")]

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use supervisor::process::{Child, Environment, Exit, ProcessGroup, command, read_tail, spawn};
use supervisor::sandbox::{
    Kind, Places, Requirement, Role, RunPlaces, SandboxSpec, build, confined_command, guest, select,
};
use tempfile::TempDir;

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_supervisor");

/// A user without rights; its numbers exist on every system.
const OTHER: u32 = 65534;

/// Limit of each wait.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Variable that makes the test `attacker` attack.
const ATTACK: &str = "SANDBOX_TEST_ATTACK";

#[expect(clippy::disallowed_methods, reason = "settings of the tests")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn search_path() -> OsString {
    variable("PATH").unwrap_or_default()
}

/// A user to run as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum User {
    Same,
    Other,
}

/// A workspace and the sandbox of an agent in it.
struct Case {
    kind: Kind,
    user: User,
    /// Holds `workspace`, and beside it what the sandbox must not see.
    folder: TempDir,
}

struct Output {
    exit: Exit,
    stdout: String,
    stderr: String,
}

fn kinds() -> Vec<Kind> {
    let works = |kind: &Kind| select(Requirement::Required, Some(*kind), Path::new(SUPERVISOR)).kind == *kind;
    let kinds: Vec<Kind> = Kind::CONFINING.into_iter().filter(works).collect();
    assert!(!kinds.is_empty(), "this machine can make no sandbox");
    kinds
}

/// Returns a case for each kind and user that is possible here.
fn cases() -> Vec<Case> {
    let root = rustix::process::geteuid().is_root();
    let users: &[User] = if root { &[User::Same, User::Other] } else { &[User::Same] };
    let pairs = kinds().into_iter().flat_map(|kind| users.iter().map(move |user| (kind, *user)));
    pairs.map(|(kind, user)| Case::new(kind, user)).collect()
}

impl Case {
    fn new(kind: Kind, user: User) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let case = Self { kind, user, folder };
        for name in ["target-repo", "agent", "platform-repo", ".orchestrator", "secrets"] {
            std::fs::create_dir_all(case.path(name)).unwrap();
            case.own(&case.path(name));
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn own(&self, path: &Path) {
        if self.user == User::Other {
            std::os::unix::fs::chown(path, Some(OTHER), Some(OTHER)).unwrap();
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        self.own(&path);
        path
    }

    fn spec(&self) -> SandboxSpec {
        let places = Places {
            path: search_path(),
            rustup_home: None,
            supervisor: SUPERVISOR.into(),
            allow_read: vec![std::env::current_exe().unwrap()],
        };
        let run = RunPlaces {
            worktree: self.path("target-repo"),
            worktree_writable: true,
            documents: Some(self.path("platform-repo")),
            objects: self.path(".orchestrator/objects"),
            caches: self.path(".orchestrator/caches"),
            home: self.path("agent"),
        };
        build(Role::Agent, self.kind, &places, &run)
    }

    fn environment(&self) -> Environment {
        let path = search_path();
        let home = self.path("agent").into_os_string();
        [("PATH", path), ("HOME", home.clone()), ("TMPDIR", home)].map(|(k, v)| (k.into(), v)).into()
    }

    fn start(
        &self,
        spec: &SandboxSpec,
        program: &Path,
        arguments: &[OsString],
        environment: &Environment,
    ) -> Child {
        let confined = confined_command(Path::new(SUPERVISOR), spec, program, arguments, environment);
        let mut started = match self.user {
            User::Same => confined,
            User::Other => {
                let user = OTHER.to_string();
                let mut other = command("setpriv", environment, ProcessGroup::New);
                other.args(["--reuid", &user, "--regid", &user, "--clear-groups", SUPERVISOR]);
                other.args(confined.as_std().get_args());
                other
            }
        };
        started.current_dir(self.path("target-repo"));
        started.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn(started).unwrap()
    }

    async fn finish(&self, mut child: Child) -> Output {
        drop(child.take_stdin());
        let stdout = tokio::spawn(read_tail(child.take_stdout(), 65536));
        let stderr = tokio::spawn(read_tail(child.take_stderr(), 65536));
        let exit = tokio::time::timeout(TIMEOUT, child.wait()).await.expect("it ends").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { exit, stdout: text(stdout.await.unwrap()), stderr: text(stderr.await.unwrap()) }
    }

    async fn run_with(&self, spec: &SandboxSpec, script: &str) -> Output {
        let arguments = ["-c".into(), script.into()];
        let child = self.start(spec, Path::new("/bin/sh"), &arguments, &self.environment());
        self.finish(child).await
    }

    async fn run(&self, script: &str) -> Output {
        self.run_with(&self.spec(), script).await
    }

    /// Runs an attack of [`attacker`]; returns what it prints.
    async fn attack(&self, name: &str, argument: &str) -> String {
        self.attack_in(&self.spec(), name, argument).await
    }

    async fn attack_in(&self, spec: &SandboxSpec, name: &str, argument: &str) -> String {
        let mut environment = self.environment();
        environment.insert(ATTACK.into(), format!("{name} {argument}").into());
        let arguments = ["attacker", "--exact", "--nocapture", "--test-threads", "1"].map(OsString::from);
        let child = self.start(spec, &std::env::current_exe().unwrap(), &arguments, &environment);
        let output = self.finish(child).await;
        let result = output.stdout.lines().find_map(|line| Some(line.split_once("result: ")?.1.to_owned()));
        result.unwrap_or_else(|| panic!("{self:?}: {} {}", output.stdout, output.stderr))
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.user)
    }
}

/// Attacks if the variable says so; else it passes as an ordinary test.
#[test]
fn attacker() {
    let Some(attack) = variable(ATTACK) else { return };
    let attack = attack.into_string().unwrap();
    let (name, argument) = attack.split_once(' ').unwrap();
    let error = |result: i64| {
        if result < 0 { std::io::Error::last_os_error().to_string() } else { "done".to_owned() }
    };
    // SAFETY: each call gets valid pointers or is expected to fail before it reads memory.
    let result = unsafe {
        match name {
            "connect" => std::os::unix::net::UnixStream::connect(argument)
                .map_or_else(|error| error.to_string(), |_| "done".to_owned()),
            "tcp" => std::net::TcpStream::connect(argument)
                .map_or_else(|error| error.to_string(), |_| "done".to_owned()),
            "abstract" => {
                use std::os::linux::net::SocketAddrExt as _;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(argument).unwrap();
                std::os::unix::net::UnixStream::connect_addr(&address)
                    .map_or_else(|error| error.to_string(), |_| "done".to_owned())
            }
            "pair" => std::os::unix::net::UnixStream::pair()
                .map_or_else(|error| error.to_string(), |_| "done".to_owned()),
            "ptrace" => error(libc::ptrace(libc::PTRACE_SEIZE, argument.parse::<i32>().unwrap(), 0, 0)),
            "signal" => error(i64::from(libc::kill(argument.parse().unwrap(), 0))),
            "unshare" => error(i64::from(libc::unshare(libc::CLONE_NEWUSER))),
            "clone3" => {
                let mut arguments = [0_u64; 11];
                arguments[0] = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
                arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
                match libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) {
                    0 => libc::_exit(0),
                    result => error(result),
                }
            }
            "mount" => {
                let (kind, at) = (c"tmpfs".as_ptr(), c"/usr".as_ptr());
                error(i64::from(libc::mount(kind, at, kind, 0, std::ptr::null())))
            }
            "io_uring" => {
                let mut parameters = [0_u8; 120];
                error(libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()))
            }
            "keyring" => error(libc::syscall(libc::SYS_keyctl, 0, -3, 0)),
            "vsock" => error(i64::from(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0))),
            "inet" => error(i64::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))),
            "capabilities" => std::fs::read_to_string("/proc/self/status")
                .unwrap()
                .lines()
                .filter(|line| line.starts_with("Cap") || line.starts_with("NoNewPrivs"))
                .collect::<Vec<_>>()
                .join(" "),
            _ => panic!("unknown attack {name}"),
        }
    };
    println!("\nresult: {result}");
}

#[tokio::test]
async fn sandbox_hides_files_of_others() {
    for case in cases() {
        let secret = case.write("secrets/token", "canary-1");
        case.write("target-repo/own", "own");
        let script = format!(
            "cat {}; cat own; ls {}; cat ../.orchestrator/x; echo work > new; echo x > ../platform-repo/x",
            secret.display(),
            case.folder.path().display()
        );
        let output = case.run(&script).await;
        assert!(!output.stdout.contains("canary-1"), "{case:?}");
        assert!(output.stdout.contains("own"), "{case:?} {}", output.stderr);
        let names: Vec<&str> = output.stdout.lines().collect();
        assert!(!names.contains(&"secrets"), "{case:?} {names:?}");
        assert_eq!(std::fs::read_to_string(case.path("target-repo/new")).unwrap(), "work\n");
        assert!(!case.path("platform-repo/x").exists(), "{case:?}");
        let owner = std::os::unix::fs::MetadataExt::uid(&case.path("target-repo/new").metadata().unwrap());
        let expected = if case.user == User::Other { OTHER } else { rustix::process::geteuid().as_raw() };
        assert_eq!(owner, expected, "{case:?}");
    }
}

#[tokio::test]
async fn sandbox_reaches_no_unix_socket_of_others() {
    for case in cases() {
        let path = case.path("secrets/agent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let result = case.attack("connect", path.to_str().unwrap()).await;
        assert_ne!(result, "done", "{case:?}");
        let name = format!("sandbox-test-{}-{}", std::process::id(), case.path("x").display());
        let address =
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
        let result = case.attack("abstract", &name).await;
        if supervisor::sandbox::landlock_abi() >= 6 || case.kind == Kind::Landlock {
            assert_ne!(result, "done", "{case:?}");
        }
        assert_eq!(case.attack("pair", "").await, "done", "{case:?}");
    }
}

#[tokio::test]
async fn sandbox_denies_system_calls_that_reach_out() {
    for case in cases() {
        for attack in ["unshare", "clone3", "mount", "io_uring", "keyring", "vsock"] {
            let result = case.attack(attack, "").await;
            assert_ne!(result, "done", "{case:?} {attack}");
        }
        assert_eq!(case.attack("inet", "").await, "done", "{case:?}");
        let rights = case.attack("capabilities", "").await;
        let none = "0000000000000000";
        for set in ["CapPrm", "CapEff", "CapAmb"] {
            assert!(rights.contains(&format!("{set}:\t{none}")), "{case:?} {rights}");
        }
        assert!(rights.contains("NoNewPrivs:\t1"), "{case:?} {rights}");
    }
}

#[tokio::test]
async fn sandbox_cannot_touch_processes_of_others() {
    for case in cases() {
        let environment = Environment::from([("CANARY".into(), "canary-2".into())]);
        let mut other = command("sleep", &environment, ProcessGroup::New);
        other.arg("1000");
        if case.user == User::Other {
            other.uid(OTHER).gid(OTHER);
        }
        let mut other = spawn(other).unwrap();
        let pid = other.pid().unwrap();
        let output = case.run(&format!("cat /proc/{pid}/environ /proc/*/environ | tr '\\0' '\\n'")).await;
        assert!(!output.stdout.contains("canary-2"), "{case:?}");
        assert_ne!(case.attack("ptrace", &pid.to_string()).await, "done", "{case:?}");
        let parent = std::process::id().to_string();
        assert_ne!(case.attack("ptrace", &parent).await, "done", "{case:?}");
        if case.kind == Kind::Namespaces || supervisor::sandbox::landlock_abi() >= 6 {
            assert_ne!(case.attack("signal", &pid.to_string()).await, "done", "{case:?}");
        }
        assert_eq!(other.try_wait().unwrap(), None, "{case:?}");
        other.kill().await;
    }
}

#[tokio::test]
async fn exit_codes_and_signals_pass_through() {
    for case in cases() {
        for (script, exit) in [
            ("exit 0", Exit::Code(0)),
            ("exit 77", Exit::Code(77)),
            ("kill -TERM $$", Exit::Signal(15)),
            ("kill -SEGV $$", Exit::Signal(11)),
            ("kill -KILL $$", Exit::Signal(9)),
            ("exec /missing", Exit::Code(127)),
        ] {
            assert_eq!(case.run(script).await.exit, exit, "{case:?} {script}");
        }
        let environment = case.environment();
        let child = case.start(&case.spec(), Path::new("/missing"), &[], &environment);
        assert_eq!(case.finish(child).await.exit, Exit::Code(127), "{case:?}");
    }
}

#[tokio::test]
async fn term_to_group_reaches_program_once() {
    for case in cases() {
        let script = "trap 'echo term; count=$((count+1))' TERM; echo ready; \
                      while [ \"${count:-0}\" -lt 1 ]; do sleep 0.02; done; sleep 0.3; exit $((count + 40))";
        let arguments = ["-c".into(), script.into()];
        let mut child = case.start(&case.spec(), Path::new("/bin/sh"), &arguments, &case.environment());
        let mut lines = tokio::io::BufReader::new(child.take_stdout().unwrap());
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await.unwrap();
        assert_eq!(line, "ready\n", "{case:?}");
        child.signal_group(rustix::process::Signal::TERM);
        let exit = tokio::time::timeout(TIMEOUT, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(exit, Exit::Code(41), "{case:?}");
    }
}

/// Returns whether a process has this argument.
fn is_running(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns a number of seconds that no other test sleeps.
fn unique_seconds() -> String {
    let random = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    format!("9{}.{random}", std::process::id())
}

#[tokio::test]
async fn daemons_die_with_program_or_killed_parent() {
    for case in cases() {
        let seconds = unique_seconds();
        let daemon =
            format!("setsid sh -c 'trap \"\" TERM HUP; sleep {seconds}' </dev/null >/dev/null 2>&1 &");
        let until = format!("while ! cat /proc/[0-9]*/cmdline | grep -qa {seconds}; do sleep 0.01; done");
        let output = case.run(&format!("{daemon} {until}; echo started")).await;
        assert_eq!(output.stdout, "started\n", "{case:?} {}", output.stderr);
        wait_until(&format!("{case:?}: daemon after program"), || !is_running(&seconds)).await;

        let arguments = ["-c".into(), format!("{daemon} sleep {seconds}").into()];
        let (shell, environment) = (Path::new("/bin/sh"), case.environment());
        let confined = confined_command(Path::new(SUPERVISOR), &case.spec(), shell, &arguments, &environment);
        let own = std::process::id().to_string();
        // A parent of its own, to be killed: a shell that puts its number in place of ours.
        let script = "for word; do shift; [ \"$word\" = PARENT ] && word=$$; set -- \"$@\" \"$word\"; done; \"$@\" & wait";
        let words = confined.as_std().get_args();
        let words = words.map(|word| if word == own.as_str() { "PARENT".as_ref() } else { word });
        let mut killed = command("sh", &environment, ProcessGroup::New);
        killed.args(["-c", script, "sh", SUPERVISOR]).args(words);
        if case.user == User::Other {
            killed.uid(OTHER).gid(OTHER);
        }
        killed.current_dir(case.path("target-repo"));
        let mut killed = spawn(killed).unwrap();
        wait_until(&format!("{case:?}: start"), || is_running(&seconds)).await;
        let pid = rustix::process::Pid::from_raw(killed.pid().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        wait_until(&format!("{case:?}: daemon after parent"), || !is_running(&seconds)).await;
        killed.wait().await.unwrap();
    }
}

#[tokio::test]
async fn namespaces_have_terminals_and_shared_memory() {
    for case in cases().into_iter().filter(|case| case.kind == Kind::Namespaces) {
        let output = case
            .run("ls /dev/pts; echo x > /dev/shm/x && cat /dev/shm/x; script -qec 'test -t 0 && tty' /dev/null; \
                  echo $(ls -d /proc/[0-9]* | wc -l); echo > /tmp/x; ls /tmp/x; cat /etc/resolv.conf > /dev/null && echo dns")
            .await;
        let words: Vec<&str> = output.stdout.split_whitespace().collect();
        // The terminal is the first one of a new file system.
        assert_eq!(
            words,
            ["ptmx", "x", "/dev/pts/0", words[3], "/tmp/x", "dns"],
            "{case:?} {}",
            output.stderr
        );
        assert!(words[3].parse::<u32>().unwrap() < 10, "{case:?} {words:?}");
    }
}

#[tokio::test]
async fn ordinary_tools_work() {
    for case in cases() {
        let script = "set -e; git init -q . ; echo a > a; git add a; \
                      git -c user.name=a -c user.email=a@b commit -qm a; git log --oneline | wc -l; \
                      node -e 'require(\"child_process\").execFileSync(\"true\"); console.log(1 + 1)'";
        let output = case.run(script).await;
        assert_eq!(output.exit, Exit::Code(0), "{case:?} {}", output.stderr);
        assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["1", "2"], "{case:?}");
    }
}

#[tokio::test]
async fn guest_sees_one_directory_without_network() {
    for case in cases() {
        case.write("target-repo/file", "in the tree");
        let spec = guest(case.kind, Path::new(SUPERVISOR), &case.path("target-repo"), true)
            .read(["/bin", "/usr/bin"]);
        let output = case.run_with(&spec, "cat file; echo new > other; ls /etc /home; cat /etc/passwd").await;
        assert!(output.stdout.starts_with("in the tree"), "{case:?} {}", output.stderr);
        assert!(!output.stdout.contains("root:"), "{case:?}");
        assert!(case.path("target-repo/other").exists(), "{case:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(case.attack("tcp", &address).await, "done", "{case:?}");
        let spec = SandboxSpec { network: spec.network, ..case.spec() };
        assert_ne!(case.attack_in(&spec, "tcp", &address).await, "done", "{case:?}");
    }
}

#[tokio::test]
async fn inherited_descriptors_are_closed() {
    for case in cases() {
        let output = case.run("ls /proc/self/fd | wc -l").await;
        // 0 to 2, and the listing itself.
        assert_eq!(output.stdout.trim(), "4", "{case:?} {}", output.stderr);
    }
}

/// Makes these system calls fail in this thread and its children, as a kernel or container without them.
fn forbid(calls: &[i64], error: i32) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let denied = SeccompAction::Errno(error.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn machine_without_sandbox_calls_is_refused_or_loud() {
    let without_both = std::thread::spawn(|| {
        forbid(&[libc::SYS_landlock_create_ruleset, libc::SYS_landlock_restrict_self], libc::ENOSYS);
        forbid(&[libc::SYS_unshare], libc::EPERM);
        let select = |requirement| select(requirement, None, Path::new(SUPERVISOR));
        (select(Requirement::Required), select(Requirement::BestEffort))
    });
    let (required, best_effort) = without_both.join().unwrap();
    let refused = required.refused.unwrap();
    assert!(refused.contains("namespaces: ") && refused.contains("landlock: "), "{refused}");
    assert_eq!((best_effort.kind, best_effort.refused), (Kind::Off, None));
    assert!(best_effort.remarks[0].contains("NO SANDBOX"), "{:?}", best_effort.remarks);
    // A kernel with namespaces that cannot mount is no better than one without them.
    let without_mounts = std::thread::spawn(|| {
        forbid(&[libc::SYS_move_mount, libc::SYS_pivot_root], libc::EPERM);
        select(Requirement::Required, None, Path::new(SUPERVISOR)).kind
    });
    assert_ne!(without_mounts.join().unwrap(), Kind::Namespaces);
}
