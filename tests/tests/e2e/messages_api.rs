//! The fake Messages API with the real CLI: a complete session, and each injected fault.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use orchestrator_tests::messages_api::{Fault, MessagesApi, Script, Turn};
use orchestrator_tests::tools::Tools;
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "sk-ant-test";

#[test]
fn script_drives_cli_through_tools_to_verdict() {
    let folder = folder();
    let file = folder.path().join("work/hello.txt");
    let entity = json!({ "name": "hello", "entityType": "file", "observations": ["was written"] });
    let script = Script::new()
        .turn(Turn::tool("Write", json!({ "file_path": file, "content": "hello\n" })).saying("I write it."))
        .turn(Turn::bash("wc -c < hello.txt"))
        .turn(Turn::tool("mcp__memory__create_entities", json!({ "entities": [entity] })))
        .turn(Turn::tool_from("Bash", |request| {
            let messages = request["messages"].as_array().map_or(0, Vec::len);
            json!({ "command": format!("echo {messages} messages > count.txt") })
        }))
        .turn(Turn::verdict("done", "wrote hello.txt"))
        .expect_in_request(0, "write a greeting")
        .expect_in_request(2, "6")
        .expect_in_request(3, "was written")
        .never_in_requests(KEY);
    let api = MessagesApi::start(script, KEY);

    let mut cli = Cli::start(folder.path(), &api, &[]);
    cli.say("write a greeting");
    let result = cli.result();

    assert_eq!(
        result["structured_output"],
        json!({ "status": "done", "summary": "wrote hello.txt" }),
        "{result}"
    );
    assert!(result["total_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{result}");
    assert_eq!(cli.close(), Some(0));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "hello\n");
    let memory = std::fs::read_to_string(folder.path().join("memory.jsonl")).unwrap();
    assert!(memory.contains("was written"), "{memory}");
    api.assert_played();
}

#[test]
fn second_message_continues_script_with_own_verdict() {
    let folder = folder();
    let question = json!({ "status": "blocked", "summary": "unclear", "question": "Which?" });
    let script = Script::new()
        .turn(Turn::verdict_with(question.clone()))
        .turn(Turn::verdict("done", "this one").expecting("take the second"));
    let api = MessagesApi::start(script, KEY);

    let mut cli = Cli::start(folder.path(), &api, &[]);
    cli.say("choose");
    assert_eq!(cli.result()["structured_output"], question);
    cli.say("take the second");
    assert_eq!(cli.result()["structured_output"]["status"], "done");

    assert_eq!(cli.close(), Some(0));
    api.assert_played();
}

#[test]
fn markers_and_sessions_separate_concurrent_runs() {
    let scripts = [
        Script::when("task-red").turn(Turn::bash("true")).turn(Turn::verdict("done", "red")),
        Script::new().for_each_session().turn(Turn::bash("true")).turn(Turn::verdict("done", "any")),
    ];
    let api = MessagesApi::start(scripts, KEY);
    let tasks = ["do task-red", "do task-blue", "do task-green"];
    let folders: Vec<TempDir> = tasks.iter().map(|_| folder()).collect();

    let mut runs: Vec<Cli> = folders.iter().map(|folder| Cli::start(folder.path(), &api, &[])).collect();
    for (cli, task) in runs.iter_mut().zip(tasks) {
        cli.say(task);
    }
    let texts: Vec<Value> =
        runs.iter_mut().map(|cli| cli.result()["structured_output"]["summary"].take()).collect();

    assert_eq!(texts, ["red", "any", "any"]);
    api.assert_played();
}

#[test]
fn wrong_key_is_rejected_before_turn_is_consumed() {
    let folder = folder();
    let api = MessagesApi::start(Script::new().turn(Turn::text("never said")), "sk-ant-another");

    let mut cli = Cli::start(folder.path(), &api, &[("CLAUDE_CODE_MAX_RETRIES", "0")]);
    cli.say("hello");
    let result = cli.result();

    assert_eq!((&result["is_error"], &result["api_error_status"]), (&json!(true), &json!(401)), "{result}");
    assert_eq!(cli.close(), Some(1));
    assert_eq!(api.unplayed(), 1);
}

#[test]
fn unknown_model_is_not_found() {
    let folder = folder();
    let api = MessagesApi::start(Script::new(), KEY);

    let mut cli = Cli::start_with(folder.path(), &api, "claude-unknown-1", &[]);
    cli.say("hello");
    let result = cli.result();

    assert_eq!((&result["is_error"], &result["api_error_status"]), (&json!(true), &json!(404)), "{result}");
    assert_eq!(cli.close(), Some(1));
}

#[test]
fn overloaded_api_is_retried_by_cli() {
    let folder = folder();
    let turn = Turn::verdict("done", "at last").after(Fault::retry_after(529, 0).times(3));
    let api = MessagesApi::start(Script::new().turn(turn), KEY);

    let mut cli = Cli::start(folder.path(), &api, &[]);
    cli.say("hello");
    let retries = cli.until("result").iter().filter(|event| event["subtype"] == "api_retry").count();

    assert_eq!((retries, api.conversation().len()), (3, 4));
    assert_eq!(cli.close(), Some(0));
    api.assert_played();
}

#[test]
fn broken_stream_is_retried_by_cli() {
    let folder = folder();
    let turn = Turn::verdict("done", "whole").after(Fault::drops_mid_stream());
    let api = MessagesApi::start(Script::new().turn(turn), KEY);

    let mut cli = Cli::start(folder.path(), &api, &[]);
    cli.say("hello");

    assert_eq!(cli.result()["structured_output"]["summary"], "whole");
    api.assert_played();
}

#[test]
fn stalled_api_blocks_cli_until_shutdown() {
    for fault in [Fault::no_answer(), Fault::stalls_mid_stream()] {
        let folder = folder();
        let api = MessagesApi::start(Script::new().turn(Turn::never(fault)), KEY);
        let mut cli = Cli::start(folder.path(), &api, &[]);
        cli.say("hello");

        assert!(api.wait_for_requests(1, LIMIT), "the CLI asks");
        assert_eq!(cli.result_within(Duration::from_secs(1)), None, "no result while the API stalls");

        let started = Instant::now();
        drop(api);
        assert!(started.elapsed() < Duration::from_secs(1), "dropping it does not wait for its clients");
    }
}

/// Timeout of every wait.
const LIMIT: Duration = Duration::from_secs(60);

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["home", "config", "tmp", "work"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder
}

/// A running CLI with open stdin; killed when dropped.
struct Cli {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
}

impl Cli {
    fn start(folder: &Path, api: &MessagesApi, environment: &[(&str, &str)]) -> Self {
        Self::start_with(folder, api, "sonnet", environment)
    }

    fn start_with(folder: &Path, api: &MessagesApi, model: &str, environment: &[(&str, &str)]) -> Self {
        let tools = Tools::get();
        let memory = json!({
            "command": tools.bin.join("mcp-server-memory"),
            "env": { "MEMORY_FILE_PATH": folder.join("memory.jsonl") },
        });
        std::fs::write(folder.join("mcp.json"), json!({ "mcpServers": { "memory": memory } }).to_string())
            .unwrap();
        let schema = json!({
            "type": "object",
            "properties": {
                "status": { "enum": ["done", "already_done", "blocked"], "type": "string" },
                "summary": { "type": "string" },
                "question": { "type": "string" },
            },
            "required": ["status", "summary"],
            "additionalProperties": false,
        });
        let mut command = Command::new(&tools.claude);
        command.env_clear().current_dir(folder.join("work"));
        command.args(["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]);
        command.args([
            "--model",
            model,
            "--setting-sources",
            "user",
            "--permission-mode",
            "bypassPermissions",
        ]);
        command.args(["--json-schema", &schema.to_string(), "--strict-mcp-config", "--mcp-config"]);
        command.arg(folder.join("mcp.json"));
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("LANG", "C.UTF-8");
        command.env("HOME", folder.join("home")).env("CLAUDE_CONFIG_DIR", folder.join("config"));
        command.env("CLAUDE_CODE_TMPDIR", folder.join("tmp"));
        command.env("ANTHROPIC_BASE_URL", api.url()).env("ANTHROPIC_API_KEY", KEY);
        command.envs([("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"), ("DISABLE_AUTOUPDATER", "1")]);
        command.envs(environment.iter().copied());
        if rustix::process::getuid().is_root() {
            command.env("IS_SANDBOX", "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, events }
    }

    fn say(&mut self, text: &str) {
        let content = json!([{ "type": "text", "text": text }]);
        let message = json!({
            "type": "user",
            "message": { "role": "user", "content": content },
            "parent_tool_use_id": null,
            "session_id": "",
        });
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// Returns the events up to the next one of a type, inclusive.
    fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Value| event["type"] != kind) {
            let event = self.events.recv_timeout(LIMIT);
            events.push(event.unwrap_or_else(|error| panic!("no {kind}: {error}, after {events:#?}")));
        }
        events
    }

    fn result(&mut self) -> Value {
        self.until("result").pop().unwrap()
    }

    fn result_within(&mut self, limit: Duration) -> Option<Value> {
        let end = Instant::now() + limit;
        let event = || self.events.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
        std::iter::from_fn(event).find(|event| event["type"] == "result")
    }

    /// Closes stdin and returns the exit code.
    fn close(&mut self) -> Option<i32> {
        drop(self.stdin.take());
        while self.events.recv_timeout(LIMIT).is_ok() {}
        self.child.wait().unwrap().code()
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
