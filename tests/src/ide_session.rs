//! The Claude Code CLI as an IDE runs it, with the orchestrator's MCP server and its own scripted model.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::messages_api::{MessagesApi, Scripts};
use crate::test_env::TestEnv;
use crate::tools::Tools;

/// A session of the CLI in a clone of the platform repository.
pub struct IdeSession {
    /// The model of this session, separate from the agents' model.
    pub model: MessagesApi,
    own: tempfile::TempDir,
    folder: PathBuf,
    environment: BTreeMap<String, String>,
    configuration: PathBuf,
    session: Option<String>,
}

/// The result of one prompt.
#[derive(Debug)]
pub struct Reply {
    /// Lines that the CLI printed.
    pub events: Vec<Value>,
    /// Tool results that the model received, in order.
    pub answers: Vec<Answer>,
}

/// A tool result that the model received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    pub text: String,
    /// The `is_error` flag of the result.
    pub failed: bool,
}

impl Reply {
    /// Returns the text of the only tool result, which must not be an error.
    #[track_caller]
    pub fn answer(&self) -> &str {
        let [Answer { text, failed: false }] = self.answers.as_slice() else {
            panic!("not one good answer: {self:#?}");
        };
        text
    }
}

impl TestEnv {
    /// Starts an IDE session in a clone of `acme/platform` with a local MCP server; the model plays `scripts`.
    /// / As in an IDE, the server's whole configuration is in its entry: it does not inherit the CLI's API key.
    pub fn ide_session(&self, scripts: impl Into<Scripts>) -> IdeSession {
        self.ide_session_with(&["mcp"], self.environment(), scripts)
    }

    /// Like [`Self::ide_session`], with other arguments and variables for the MCP server.
    pub fn ide_session_with(
        &self,
        arguments: &[&str],
        server_environment: &BTreeMap<String, String>,
        scripts: impl Into<Scripts>,
    ) -> IdeSession {
        let key = format!("sk-ant-api03-ide-{}", uuid::Uuid::new_v4().simple());
        let model = MessagesApi::start(scripts, &key);
        // Outside of the environment's directory, which is searched for leaked secrets.
        let own = tempfile::Builder::new().prefix("ide-").tempdir().expect("a folder");
        let home = own.path().to_owned();
        let folder = home.join("platform");
        std::fs::create_dir_all(home.join("tmp")).expect("a home for the session");
        let clone = git2::Repository::clone(&self.git.path("acme/platform").to_string_lossy(), &folder);
        let clone = clone.expect("a clone of the platform");
        clone.remote_set_url("origin", &self.git.url("acme/platform")).expect("a remote");
        let configuration = home.join("mcp.json");
        let server = json!({
            "command": Binaries::get().dispatcher,
            "args": arguments,
            "env": server_environment,
        });
        let servers = json!({"mcpServers": {"orchestrator": server}});
        std::fs::write(&configuration, servers.to_string()).expect("a configuration");
        let text = |path: PathBuf| path.display().to_string();
        let environment = [
            ("PATH", self.environment()["PATH"].clone()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", text(home.clone())),
            ("CLAUDE_CONFIG_DIR", text(home.join("claude"))),
            ("CLAUDE_CODE_TMPDIR", text(home.join("tmp"))),
            ("ANTHROPIC_BASE_URL", model.url()),
            ("ANTHROPIC_API_KEY", key),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("CLAUDE_CODE_MAX_RETRIES", "1".to_owned()),
            ("IS_SANDBOX", "1".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        IdeSession { model, own, folder, environment, configuration, session: None }
    }
}

impl IdeSession {
    /// Returns the open directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the directory of everything the session writes.
    pub fn home(&self) -> &Path {
        self.own.path()
    }

    /// Sends a prompt to the session and waits for the reply.
    #[track_caller]
    pub fn say(&mut self, prompt: &str) -> Reply {
        let before = self.model.requests().len();
        let mut claude = Command::new(&Tools::get().claude);
        claude.args(["-p", "--output-format", "stream-json", "--verbose", "--model", "sonnet"]);
        claude.args(["--permission-mode", "bypassPermissions", "--setting-sources", "user"]);
        claude.arg("--strict-mcp-config").arg("--mcp-config").arg(&self.configuration);
        match &self.session {
            Some(session) => claude.args(["--resume", session]),
            None => &mut claude,
        };
        claude.env_clear().envs(&self.environment).current_dir(&self.folder);
        let mut child = claude
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the CLI");
        let mut stdin = child.stdin.take().expect("stdin was piped");
        stdin.write_all(prompt.as_bytes()).expect("the CLI reads the prompt");
        drop(stdin);
        let output = child.wait_with_output().expect("output");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{prompt}: {}\n{text}\n{errors}", output.status);
        let events: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let session = events.iter().find_map(|event| event["session_id"].as_str());
        self.session = session.map(str::to_owned);
        Reply { events, answers: self.answers_since(before) }
    }

    /// Returns the new tool results in the requests after the first `before`.
    fn answers_since(&self, before: usize) -> Vec<Answer> {
        let requests = self.model.requests().split_off(before);
        let taken = requests.iter().filter(|request| request.taken.is_some());
        taken
            .flat_map(|request| {
                let messages = request.body["messages"].as_array().cloned().unwrap_or_default();
                let last = messages.iter().rposition(|message| message["role"] == "assistant");
                let after = messages.split_at(last.map_or(0, |last| last + 1)).1;
                let blocks = after.iter().filter_map(|message| message["content"].as_array());
                blocks.flatten().filter_map(answer).collect::<Vec<_>>()
            })
            .collect()
    }
}

fn answer(block: &Value) -> Option<Answer> {
    if block["type"] != "tool_result" {
        return None;
    }
    let text = match &block["content"] {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks
                .iter()
                .map(|block| block["text"].as_str().map_or_else(|| block.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    };
    Some(Answer { text, failed: block["is_error"] == true })
}
