//! Git over the system's `ssh` program, without user or system configuration.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::JoinHandle;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use orchestrator_contract::Reason;
use orchestrator_contract::names::ScpAddress;
use percent_encoding::percent_decode_str;
use tempfile::TempDir;
use url::{Host, Url};

use super::advertisement::Advertisement;
use super::operation::{Context, add_bytes, record_failure};
use super::{known_hosts, passwd};
use crate::process::{ProcessGroup, blocking_command};

/// Maximum bytes of the standard error of `ssh` to keep.
const MAX_STDERR_BYTES: u64 = 16 * 1024;

pub(super) struct Ssh {
    context: &'static Context,
}

impl Ssh {
    pub(super) fn new(context: &'static Context) -> Self {
        Self { context }
    }
}

/// Parts of an SSH URL.
#[derive(Debug, Eq, PartialEq)]
struct SshUrl {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

/// Parses `ssh://user@host:port/path` and `user@host:path`.
fn parse_ssh_url(text: &str) -> Option<SshUrl> {
    let url = match text.strip_prefix("ssh://") {
        Some(rest) => {
            let parsed = Url::parse(text).ok()?;
            // A path as written: the remote shell reads it, and it resolves `..` and `%` on its own.
            let path = rest.get(rest.find('/')?..).filter(|_| parsed.path().starts_with('/'))?;
            let has_user = !parsed.username().is_empty() || rest.starts_with('@');
            let user = percent_decode_str(parsed.username()).decode_utf8().ok()?;
            SshUrl {
                user: has_user.then(|| user.into_owned()),
                host: match parsed.host()? {
                    Host::Ipv6(address) => address.to_string(),
                    Host::Ipv4(_) | Host::Domain(_) => parsed.host_str()?.to_owned(),
                },
                port: parsed.port(),
                // As in git, `/~user` is the home directory of that user.
                path: path.strip_prefix('/').filter(|path| path.starts_with('~')).unwrap_or(path).to_owned(),
            }
        }
        None => {
            let ScpAddress { user, host, path } = ScpAddress::parse(text)?;
            SshUrl {
                user: user.map(str::to_owned),
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: None,
                path: path.to_owned(),
            }
        }
    };
    // ssh(1) would read a leading hyphen as an option.
    let is_argument = |text: &str| !text.is_empty() && !text.starts_with('-');
    (is_argument(&url.host) && url.user.as_deref().is_none_or(is_argument)).then_some(url)
}

/// Quotes a path for the remote shell.
fn shell_quote(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"))
}

/// Returns the arguments of `ssh`.
fn arguments(
    url: &SshUrl,
    known_hosts_file: &Path,
    key: Option<&Path>,
    user: Option<&str>,
    service: &str,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |text: OsString| arguments.extend(["-o".into(), text]);
    let with = |name: &str, path: &Path| {
        let mut text = OsString::from(name);
        text.push(path);
        text
    };
    for text in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "ControlMaster=no",
        "ControlPath=none",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
        "ConnectTimeout=20",
        "ServerAliveInterval=15",
    ] {
        option(text.into());
    }
    option(with("UserKnownHostsFile=", known_hosts_file));
    // Without a configured key, `ssh` must not try keys of the home directory.
    option(with("IdentityFile=", key.unwrap_or(Path::new("/dev/null"))));
    arguments.splice(0..0, ["-F".into(), "/dev/null".into()]);
    if let Some(port) = url.port {
        arguments.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = url.user.as_deref().or(user) {
        arguments.extend(["-l".into(), user.into()]);
    }
    arguments.extend([
        "--".into(),
        (&url.host).into(),
        format!("{service} {}", shell_quote(&url.path)).into(),
    ]);
    arguments
}

/// Writes the known hosts file and, if `ssh` would reject the mode of the key, a copy of the key.
fn prepare(context: &Context) -> io::Result<(TempDir, PathBuf, Option<PathBuf>)> {
    let folder = tempfile::Builder::new().prefix("git-ssh-").tempdir()?;
    let known_hosts_file = folder.path().join("known_hosts");
    let mut lines = known_hosts::PUBLISHED.as_bytes().to_vec();
    if let Some(file) = &context.known_hosts {
        let configured = fs::read(file).map_err(|error| {
            let text = format!("cannot read known hosts file `{}`: {error}", file.display());
            record_failure(Reason::InvalidConfiguration, text)
        })?;
        lines.extend_from_slice(&configured);
        lines.push(b'\n');
    }
    fs::write(&known_hosts_file, lines)?;
    let Some(key) = &context.ssh_key else { return Ok((folder, known_hosts_file, None)) };
    let unreadable = |error: io::Error| {
        record_failure(Reason::CredentialMissing, format!("cannot read SSH key `{}`: {error}", key.display()))
    };
    let mode = fs::metadata(key).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok((folder, known_hosts_file, Some(key.clone())));
    }
    let copy = folder.path().join("key");
    let text = fs::read(key).map_err(unreadable)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy)?;
    file.write_all(&text)?;
    if text.last() != Some(&b'\n') {
        file.write_all(b"\n")?;
    }
    Ok((folder, known_hosts_file, Some(copy)))
}

impl SmartSubtransport for Ssh {
    fn action(&self, _url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let service = match action {
            Service::UploadPackLs | Service::UploadPack => "git-upload-pack",
            Service::ReceivePackLs | Service::ReceivePack => "git-receive-pack",
        };
        let session = Session::start(self.context, service)
            .map_err(|error| git2::Error::from_str(&error.to_string()))?;
        Ok(Box::new(Advertisement::new(session)))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// Running `ssh` process.
struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    stderr_tail: Option<JoinHandle<String>>,
    host: String,
    _files: TempDir,
}

impl Session {
    fn start(context: &Context, service: &str) -> io::Result<Self> {
        let url = parse_ssh_url(&context.url).ok_or_else(|| {
            record_failure(Reason::InvalidConfiguration, format!("invalid SSH URL `{}`", context.url))
        })?;
        let (files, known_hosts_file, key) = prepare(context)?;
        let arguments =
            arguments(&url, &known_hosts_file, key.as_deref(), context.username.as_deref(), service);
        let environment = passwd::environment(files.path())?;
        let mut child = blocking_command(&context.ssh_program, &environment, ProcessGroup::Inherit)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let program = context.ssh_program.display();
                record_failure(Reason::InvalidConfiguration, format!("cannot start `{program}`: {error}"))
            })?;
        let missing = || io::Error::other("a pipe of ssh is missing");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let stderr_tail = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut stderr = stderr;
            drop(stderr.by_ref().take(MAX_STDERR_BYTES).read_to_end(&mut text));
            drop(io::copy(&mut stderr, &mut io::sink()));
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self {
            child,
            input: Some(input),
            output,
            stderr_tail: Some(stderr_tail),
            host: url.host,
            _files: files,
        })
    }

    /// Waits for `ssh` to exit; returns its error if it failed.
    fn exit_error(&mut self) -> Option<io::Error> {
        let stderr = self.stderr_tail.take()?;
        self.input = None;
        let status = self.child.wait().ok()?;
        let stderr = stderr.join().unwrap_or_default();
        if status.success() {
            return None;
        }
        let (reason, text) = reason_of_ssh(&stderr);
        Some(record_failure(reason, format!("{}: {text}", self.host)))
    }
}

/// Classifies the standard error of `ssh`, which includes messages of the remote program.
fn reason_of_ssh(stderr: &str) -> (Reason, String) {
    let has = |text: &str| stderr.contains(text);
    let reason = if has("Host key verification failed") || has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        Reason::HostKeyUnknown
    } else if has("Permission denied (") || has("Too many authentication failures") || has("invalid format") {
        Reason::AuthenticationFailed
    } else if has("Repository not found")
        || has("does not appear to be a git repository")
        || has("could not be found")
        || has("not found or you don't have permission")
    {
        Reason::RepositoryNotFound
    } else if has("Permission to") || has("denied to") || has("read only") || has("read-only") {
        Reason::PermissionDenied
    } else if has("No user exists for uid") {
        Reason::InvalidConfiguration
    } else {
        Reason::NetworkUnavailable
    };
    let lines: Vec<&str> =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('@')).collect();
    let text = if lines.is_empty() { "ssh exited without a message".to_owned() } else { lines.join("; ") };
    (reason, text.chars().take(2000).collect())
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        add_bytes(count);
        if count == 0
            && let Some(error) = self.exit_error()
        {
            return Err(error);
        }
        Ok(count)
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(input) = &mut self.input else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match input.write(bytes) {
            Ok(count) => {
                add_bytes(count);
                Ok(count)
            }
            Err(error) => Err(self.exit_error().unwrap_or(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        // It exits when its input closes, or is killed with the process group.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Option<SshUrl> {
        Some(SshUrl { user: user.map(str::to_owned), host: host.to_owned(), port, path: path.to_owned() })
    }

    #[test]
    fn ssh_url_parses_scp_or_scheme_form() {
        for (url, expected) in [
            ("git@github.com:o/r.git", parts(Some("git"), "github.com", None, "o/r.git")),
            ("ssh://git@host:2222/srv/r.git", parts(Some("git"), "host", Some(2222), "/srv/r.git")),
            ("ssh://[::1]:22/r", parts(None, "::1", Some(22), "/r")),
            ("ssh://host/~me/r", parts(None, "host", None, "~me/r")),
            ("ssh://GitHub.com/o/../r%20x", parts(None, "GitHub.com", None, "/o/../r%20x")),
            ("ssh://me@corp.example@host/r", parts(Some("me@corp.example"), "host", None, "/r")),
            ("ssh://github.com\\@evil/r", parts(Some("github.com\\"), "evil", None, "/r")),
            ("git@github.com@evil:r", parts(Some("git@github.com"), "evil", None, "r")),
            ("git@[host]:r", parts(Some("git"), "host", None, "r")),
            ("git@host:22:r", parts(Some("git"), "host", None, "22:r")),
            ("ssh://-oProxyCommand=x/r", None),
            ("ssh://git@-oProxyCommand=x/r", None),
            ("ssh://-lroot@host/r", None),
            ("ssh://%2DoProxyCommand=x@host/r", None),
            ("-oProxyCommand=x:r", None),
            ("git@-oProxyCommand=x:r", None),
            ("-lroot@host:r", None),
            ("ssh://@host/r", None),
            ("@host:r", None),
            ("ssh://host", None),
            ("ssh://host?x/r", None),
            ("ssh:///r", None),
            ("ssh://host:99999/r", None),
            ("ssh://host:a/r", None),
            ("ssh://host\\evil/r", None),
            ("ssh:host/r", parts(None, "ssh", None, "host/r")),
            ("host:", None),
            (":r", None),
        ] {
            assert_eq!(parse_ssh_url(url), expected, "{url}");
        }
    }

    #[test]
    fn ssh_path_is_quoted_for_remote_shell() {
        assert_eq!(shell_quote("o/it's $(x)"), r"'o/it'\''s $(x)'");
    }

    #[test]
    fn ssh_stderr_maps_to_reasons() {
        for (stderr, reason) in [
            (
                "No ED25519 host key is known for x and you have requested strict checking.\nHost key verification failed.",
                Reason::HostKeyUnknown,
            ),
            ("git@github.com: Permission denied (publickey).", Reason::AuthenticationFailed),
            ("ERROR: Repository not found.", Reason::RepositoryNotFound),
            ("ERROR: Permission to o/r.git denied to me.", Reason::PermissionDenied),
            ("No user exists for uid 54321", Reason::InvalidConfiguration),
            ("ssh: Could not resolve hostname x: Name or service not known", Reason::NetworkUnavailable),
        ] {
            assert_eq!(reason_of_ssh(stderr).0, reason, "{stderr}");
        }
    }

    #[test]
    fn ssh_arguments_disable_user_configuration() {
        let url = parse_ssh_url("git@h:r").unwrap();
        let arguments = arguments(&url, Path::new("/k"), None, None, "git-upload-pack");
        let text = arguments.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        assert!(text.starts_with("-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes"), "{text}");
        assert!(
            text.ends_with(
                "-o UserKnownHostsFile=/k -o IdentityFile=/dev/null -l git -- h git-upload-pack 'r'"
            ),
            "{text}"
        );
    }
}
