//! An OpenSSH server that serves only git, for the repositories below a directory.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Debian's path; sshd must be started by its full path.
const PROGRAM: &str = "/usr/sbin/sshd";

/// Why no server can run here; printed by skipped tests.
#[derive(Debug)]
pub struct Unavailable(pub String);

/// A running server; dropping it ends its sessions too.
pub struct Sshd {
    port: u16,
    folder: tempfile::TempDir,
    server: Child,
    log: Option<JoinHandle<()>>,
}

impl Sshd {
    /// Starts a server for the bare repositories below `root`.
    pub fn start(root: &Path) -> Result<Self, Unavailable> {
        if !Path::new(PROGRAM).exists() {
            return Err(Unavailable(format!("{PROGRAM} is missing: apt-get install openssh-server")));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Unavailable("sshd needs root to accept other users".into()));
        }
        // Required for privilege separation, and otherwise created by the service script.
        fs::create_dir_all("/run/sshd").map_err(|error| Unavailable(format!("/run/sshd: {error}")))?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["host", "other_host", "user", "unknown"] {
            generate(&folder.path().join(name))?;
        }
        fs::copy(folder.path().join("user.pub"), folder.path().join("authorized")).expect("a copy");
        let shell = folder.path().join("git-only");
        fs::write(&shell, shell_script(root)).expect("a script");
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).expect("an executable script");
        // Another process may take a free port before sshd binds it.
        let mut error = String::new();
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = free.local_addr().expect("a bound address").port();
            drop(free);
            let mut server = start(folder.path(), port);
            let mut log = BufReader::new(server.stderr.take().expect("a pipe"));
            match wait_until_listening(&mut log) {
                Ok(()) => {
                    // Drains the log, so that the pipe does not fill.
                    let log = std::thread::spawn(move || {
                        io::copy(&mut log, &mut io::sink()).ok();
                    });
                    return Ok(Self { port, folder, server, log: Some(log) });
                }
                Err(why) => error = why,
            }
            end(&mut server);
        }
        Err(Unavailable(format!("sshd does not start: {error}")))
    }

    /// Returns the URL of a repository: `owner/name`, or an absolute path below the root.
    pub fn url(&self, repository: &str) -> String {
        let path = if repository.starts_with('/') { repository.into() } else { format!("/{repository}.git") };
        format!("ssh://root@127.0.0.1:{}{path}", self.port)
    }

    /// Returns the private key of an authorized user.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    /// Returns a private key that the server does not accept.
    pub fn unknown_key(&self) -> PathBuf {
        self.folder.path().join("unknown")
    }

    /// Returns the line of this server for `known_hosts`.
    pub fn known_hosts(&self) -> String {
        self.known("host.pub")
    }

    /// Like [`Self::known_hosts`], with the key of another server.
    pub fn wrong_known_hosts(&self) -> String {
        self.known("other_host.pub")
    }

    fn known(&self, file: &str) -> String {
        let key = fs::read_to_string(self.folder.path().join(file)).expect("a public key");
        format!("[127.0.0.1]:{} {}\n", self.port, key.trim_end())
    }

    /// Returns the process ID of the listener.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        end(&mut self.server);
        if let Some(log) = self.log.take() {
            log.join().ok();
        }
    }
}

/// Returns the login shell: it allows only git commands below the root.
fn shell_script(root: &Path) -> String {
    let root = root.to_str().expect("a path in UTF-8").replace('\'', r"'\''");
    format!(
        r#"#!/bin/sh
root='{root}'
set -f
service=${{SSH_ORIGINAL_COMMAND%% *}}
path=${{SSH_ORIGINAL_COMMAND#* }}
path=${{path#\'}}; path=${{path%\'}}
case $service in git-upload-pack|git-receive-pack) ;; *) echo 'only git is served' >&2; exit 128 ;; esac
case $path in *\'*|*..*) echo 'no such path' >&2; exit 128 ;; "$root"/*) ;; *) path=$root/${{path#/}} ;; esac
export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1
exec git shell -c "$service '$path'"
"#
    )
}

fn generate(file: &Path) -> Result<(), Unavailable> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(file);
    let output = command.output().map_err(|error| Unavailable(format!("ssh-keygen: {error}")))?;
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn start(folder: &Path, port: u16) -> Child {
    let shown = folder.display();
    let path = std::env::var("PATH").unwrap_or_default();
    let settings = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nPidFile none\nUsePAM no\n\
         StrictModes no\nAuthorizedKeysFile {shown}/authorized\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nAllowTcpForwarding no\n\
         AllowAgentForwarding no\nX11Forwarding no\nPermitTTY no\nPrintMotd no\nMaxStartups 100\n\
         SetEnv PATH={path}\nForceCommand {shown}/git-only\n"
    );
    let file = folder.join("config");
    fs::write(&file, settings).expect("a configuration");
    let mut command = Command::new(PROGRAM);
    command.arg("-D").arg("-e").arg("-f").arg(file).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    command.spawn().expect("sshd starts")
}

/// Reads the log until the server listens.
fn wait_until_listening(log: &mut BufReader<ChildStderr>) -> Result<(), String> {
    let mut error = String::new();
    loop {
        let mut line = String::new();
        if log.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
            return Err(error);
        }
        if line.contains("Server listening on") {
            return Ok(());
        }
        error.push_str(&line);
    }
}

/// Kills the server and its sessions and reaps the server.
fn end(server: &mut Child) {
    let group = Pid::from_child(server);
    kill_process_group(group, Signal::STOP).ok();
    // Sessions have their own process groups; the listener stays their parent.
    let sessions = descendants(group.as_raw_nonzero().get());
    kill_process_group(group, Signal::KILL).ok();
    for pid in &sessions {
        rustix::process::kill_process(*pid, Signal::KILL).ok();
    }
    server.wait().ok();
    let limit = Instant::now() + Duration::from_secs(10);
    while sessions.iter().any(|pid| alive(*pid)) && Instant::now() < limit {
        std::thread::yield_now();
    }
}

fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Returns all descendants of a process.
fn descendants(of: i32) -> Vec<Pid> {
    let listed = fs::read_dir("/proc").expect("the list of processes").filter_map(Result::ok);
    let pairs: Vec<(i32, i32)> = listed
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((pid, rest.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}
