//! A client of the server, in both protocol eras.

use std::path::Path;
use std::sync::{Arc, Mutex};

use dispatcher::config::{Config, Environment, Flags};
use dispatcher::mcp::{Server, TransportKind, stdio};
use dispatcher::operations::Dispatcher;
use rmcp::model::{
    CallToolRequestParams, ClientConfig, ProgressNotificationParam, ProtocolVersion, ResourceContents,
};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::Value;

use crate::bench::{Bench, source};

/// How the connection is initialized.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Era {
    /// `initialize`, as of 2025-11-25.
    Handshake,
    /// `server/discover`, as of 2026-07-28.
    Stateless,
}

pub(crate) const ERAS: [Era; 2] = [Era::Handshake, Era::Stateless];

/// Progress notifications that the client received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listener(pub(crate) Arc<Mutex<Vec<ProgressNotificationParam>>>);

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::default()
    }

    async fn on_progress(&self, reported: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.lock().unwrap().push(reported);
    }
}

pub(crate) type Client = RunningService<RoleClient, Listener>;

/// The result of a tool.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) value: Value,
    pub(crate) is_error: bool,
}

/// Returns a server over the state of a bench, whose runs end with `end`.
pub(crate) fn server(bench: &Bench, end: &str) -> Server {
    let variables = [
        ("PATH", "/usr/bin:/bin".into()),
        ("HOME", bench.path("home")),
        ("ORCHESTRATOR_STATE_DIR", bench.path("state")),
        ("ORCHESTRATOR_SUPERVISOR", source("supervisor.sh")),
        ("ORCHESTRATOR_TEST_END", end.into()),
    ];
    let environment: Environment = variables.into_iter().collect();
    let open = bench.path("open");
    let load = move || {
        let config = Config::load(environment.clone(), Flags::default(), Path::new(&open))?;
        Ok(Dispatcher::new(config))
    };
    Server::loading(load, TransportKind::Stdio)
}

pub(crate) async fn connect(server: Server, era: Era) -> Client {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(ours);
    tokio::spawn(stdio::serve_over(server, input, output));
    let mode = match era {
        Era::Handshake => ClientLifecycleMode::Initialize,
        Era::Stateless => {
            ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
        }
    };
    Listener::default().serve_with_lifecycle(theirs, mode).await.unwrap()
}

pub(crate) async fn call(client: &Client, tool: &'static str, arguments: Value) -> Answer {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object: {arguments}") };
    let result = client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap();
    let text: Vec<&str> =
        result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect();
    Answer {
        text: text.join("\n---\n"),
        value: result.structured_content.unwrap_or_default(),
        is_error: result.is_error == Some(true),
    }
}

pub(crate) fn text_of(contents: &ResourceContents) -> String {
    serde_json::to_value(contents).unwrap()["text"].as_str().unwrap().to_owned()
}

/// Replaces times and directories in a text, which differ between test runs.
pub(crate) fn steady(text: &str, bench: &Bench) -> String {
    let text = text.replace(bench.path("").to_str().unwrap().trim_end_matches('/'), "[bench]");
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let steady = words.iter().enumerate().map(|(at, word)| {
            let next = words.get(at + 1).copied().unwrap_or_default();
            let is_number = word.starts_with(|c: char| c.is_ascii_digit());
            if is_number
                && (next.starts_with("ago") || next.trim_matches(|c: char| !c.is_alphabetic()) == "s")
            {
                "[time]".to_owned()
            } else {
                (*word).to_owned()
            }
        });
        steady.collect::<Vec<String>>().join(" ")
    };
    text.lines().map(line).collect::<Vec<String>>().join("\n")
}
