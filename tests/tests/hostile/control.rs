//! Attacks on the programs that accept work: `serve`, the controller, and the URLs that credentials are sent to.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use orchestrator_tests::bench::env::{BRANCH, BenchEnv, KEY, TARGET, TOKEN};
use orchestrator_tests::bench::script::{Script, shell, verdict};
use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::dispatcher_env::DispatcherEnv;
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use serde_json::json;

pub(super) const SUBMIT_FROM_SANDBOX: Attack = Attack {
    id: "control-submit-from-sandbox",
    origin: Origin::Agent,
    promise: Promise::NoSecretLeaked,
    what: "reads the lead's files for the token of the loopback `serve`, then submits a task there",
};

const SUBMIT_WITHOUT_TOKEN: Attack = Attack {
    id: "control-submit-without-token",
    origin: Origin::Client,
    promise: Promise::NoSecretLeaked,
    what: "calls a loopback `serve` without a token, with a guessed one, and with tricks in the header",
};

const PLANTED_TOKEN: Attack = Attack {
    id: "control-planted-token-file",
    origin: Origin::Client,
    promise: Promise::NoSecretLeaked,
    what: "plants a token file for `serve`: a link, or a file that others may read",
};

const CLEARTEXT: Attack = Attack {
    id: "control-cleartext-url",
    origin: Origin::Platform,
    promise: Promise::NoSecretLeaked,
    what: "names a repository, GitHub API or model by `http://`, in all spellings of a host",
};

/// Returns a request that submits task 1 of the trader service.
pub(super) fn submission(authorization: &str) -> String {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "submit_implementation_task", "arguments": DispatcherEnv::submission("trader", 1),
    }});
    let body = call.to_string();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n{authorization}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn address_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").trim_end_matches("/mcp").parse().expect("an address")
}

pub(super) fn send(server: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(server).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn agent_cannot_submit_through_local_server() {
    for kind in Kind::available() {
        let lead = DispatcherEnv::new("done");
        let served = lead.serve();
        let server = address_of(&served.url);
        let agent = Path::new(env!("CARGO_BIN_EXE_scripted_agent"));
        let env = BenchEnv::new(&Binaries::get().supervisor, agent, true);
        let token = lead.path("home/.config/orchestrator/serve-token");
        // The request is complete but for the token, which the agent has to find.
        let script = format!(
            r#"cat '{token}' > found.txt 2> error.txt
cat <<'END' > request.txt
{request}
END
sed -i "s/TOKEN/$(cat found.txt)/; s/$/\r/" request.txt
(exec 3<>/dev/tcp/{ip}/{port}; cat request.txt >&3; cat <&3) > answer.txt 2>&1 || true
echo tried > tried.txt"#,
            token = token.display(),
            request = submission("Authorization: Bearer TOKEN\r\n").replace('\r', ""),
            ip = server.ip(),
            port = server.port(),
        );
        let script = format!("bash -c {}", quoted(&script));
        let output = env.run(&Script::of([shell(&script), verdict("done")]), &env.task(1), &[]);
        let read = |file: &str| env.server.read(TARGET, BRANCH, file).unwrap_or_default();
        assert_eq!(read("tried.txt"), "tried\n", "{}\n{}", output.messages(), env.stderr());
        assert_eq!(read("found.txt"), "", "the token is readable in kind {}", kind.name());
        let answer = read("answer.txt");
        assert!(!answer.contains("submitted") && !answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(lead.runs().is_empty(), "{:?}", lead.runs());
        SUBMIT_FROM_SANDBOX.held(*kind, "the token file cannot be read there; 401, no run");

        // With the token, the same request does submit.
        let bearer = format!("Authorization: Bearer {}\r\n", served.token);
        assert!(send(server, &submission(&bearer)).contains("submitted"));
        assert_eq!(lead.runs().len(), 1);
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn caller_without_token_starts_nothing() {
    let lead = DispatcherEnv::new("done");
    let served = lead.serve();
    let server = address_of(&served.url);
    let token = served.token.as_str();
    let last = token.chars().last().map(|last| if last == '0' { '1' } else { '0' }).expect("a token");
    let nearly = format!("{}{last}", &token[..token.len() - 1]);
    let attempts = [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer null\r\n".to_owned(),
        "Authorization: Bearer TOKEN\r\n".to_owned(),
        format!("Authorization: Bearer {nearly}\r\n"),
        format!("Authorization: Bearer {}\r\n", &token[..32]),
        format!("Authorization: Bearer {token}{token}\r\n"),
        format!("Authorization: Bearer {}\r\n", token.to_uppercase()),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer x\r\nAuthorization: Bearer {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
        format!("X-Api-Key: {token}\r\n"),
        format!("Proxy-Authorization: Bearer {token}\r\n"),
    ];
    for authorization in &attempts {
        // A token of digits alone has no upper case.
        if *authorization == format!("Authorization: Bearer {token}\r\n") {
            continue;
        }
        let answer = send(server, &submission(authorization));
        assert!(answer.starts_with("HTTP/1.1 401"), "{authorization:?}: {answer}");
        assert!(!answer.contains(token) && !answer.contains(lead.path("home").to_str().unwrap()), "{answer}");
    }
    let in_path = submission("").replace("/mcp", &format!("/mcp?token={token}&access_token={token}"));
    assert!(send(server, &in_path).starts_with("HTTP/1.1 401"));
    assert!(lead.runs().is_empty());
    SUBMIT_WITHOUT_TOKEN.held(Kind::Any, "401 with a hint, no run");
}

#[test]
fn planted_token_file_is_not_used() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let lead = DispatcherEnv::new("done");
    let folder = lead.path("home/.config/orchestrator");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("serve-token");
    let known = lead.path("known-token");
    std::fs::write(&known, "a-token-that-the-attacker-knows\n").unwrap();
    std::fs::set_permissions(&known, std::fs::Permissions::from_mode(0o600)).unwrap();
    let refused = |expected: &str| {
        let output = lead.dispatcher(&["serve", "--address", "127.0.0.1:0"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(78) && text.contains(expected), "{output:?}");
        std::fs::remove_file(&file).unwrap();
    };
    symlink(&known, &file).unwrap();
    refused("symbolic link");
    std::fs::copy(&known, &file).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused("mode must be 600");
    PLANTED_TOKEN.held(Kind::Any, "the server does not start");
}

/// Spellings of this machine that URL parsers may read as loopback, and that a network or DNS may answer.
const SPELLINGS: [&str; 14] = [
    "localhost.",
    "127.1",
    "127.0.1",
    "0x7f000001",
    "0x7f.0.0.1",
    "2130706433",
    "0177.0.0.1",
    "0.0.0.0",
    "0",
    "[::ffff:127.0.0.1]",
    "[::]",
    "evil.localhost",
    "127.0.0.1.",
    "x@127.0.0.1",
];

/// Every spelling leads to a listener of the test, which must see no connection.
#[test]
fn credential_is_not_sent_in_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Path::new(env!("CARGO_BIN_EXE_scripted_agent"));
    let env = BenchEnv::new(&Binaries::get().supervisor, agent, true);
    for host in SPELLINGS.iter().chain(&["git.example.com"]) {
        let url = format!("http://{host}:{port}");
        for repository in ["target", "platform"] {
            let mut task = env.task(1);
            task[repository]["url"] = format!("{url}/o/r").into();
            let output = env.run(&Script::default(), &task, &[]);
            assert_eq!(output.code, 64, "{url}: {}", output.messages());
            assert!(output.messages().contains("repository URL"), "{url}: {}", output.messages());
        }
        for (name, value) in [("GITHUB_API_URL", &url), ("ANTHROPIC_BASE_URL", &url)] {
            let output = supervise(&env, &[(name, value)]);
            assert_eq!(output.status.code(), Some(78), "{name}={url}: {output:?}");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(name) && text.contains("https"), "{text}");
        }
        let lead = DispatcherEnv::new("done");
        let submit = ["submit", "--service", "trader", "--task", "1"];
        let good = "https://github.com/myorg/trader";
        let bad = format!("{url}/o/r");
        for (target, platform) in [(bad.as_str(), good), (good, bad.as_str())] {
            let urls = ["--repository-url", target, "--platform-repository-url", platform];
            let output = lead.dispatcher(&[&submit[..], &urls[..]].concat()).output().unwrap();
            assert_eq!(output.status.code(), Some(64), "{url}: {output:?}");
        }
        let setup = lead.dispatcher(&["setup", "claude", "--url", &format!("{url}/mcp")]).output().unwrap();
        assert_eq!(setup.status.code(), Some(64), "{url}: {setup:?}");
        assert!(lead.runs().is_empty());
    }
    let connection = listener.accept();
    assert!(
        connection.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "a program connected: {connection:?}"
    );
    CLEARTEXT.held(Kind::Any, "refused before any connection: https or ssh, or loopback");
}

/// Runs the supervisor with more variables.
fn supervise(env: &BenchEnv, variables: &[(&str, &String)]) -> std::process::Output {
    std::fs::write(env.root().join("task.json"), env.task(1).to_string()).unwrap();
    let mut command = Command::new(&Binaries::get().supervisor);
    command.arg("run").arg("--task-file").arg(env.root().join("task.json"));
    command.arg("--workspace").arg(env.workspace()).arg("--claude").arg(env.root().join("bin/claude"));
    command.args(["--log-format", "json"]).arg("--termination-log").arg(env.root().join("termination"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", env.root());
    command
        .env("GITHUB_TOKEN", TOKEN)
        .env("ANTHROPIC_API_KEY", KEY)
        .env("ORCHESTRATOR_GIT_HOSTS", "127.0.0.1");
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command.current_dir(env.root()).stdin(Stdio::null()).output().unwrap()
}
