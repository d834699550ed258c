//! A fake Messages API that plays scripts to the Claude Code CLI.

mod answer;
mod bill;
mod rules;
mod script;
mod state;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::server_thread::ServerThread;

pub use self::script::{Fault, Script, Turn};
pub use self::state::Request;
use self::state::{ScriptStep, State};

/// A running server; dropping it closes all connections.
pub struct MessagesApi {
    server: ServerThread,
    api: Arc<Api>,
}

struct Api {
    key: String,
    state: Mutex<State>,
    changed: Condvar,
}

impl MessagesApi {
    /// Plays one script, or several that are distinguished by their markers, to clients with `key`.
    pub fn start(scripts: impl Into<Scripts>, key: impl Into<String>) -> Self {
        let state = Mutex::new(State::new(scripts.into().0));
        let api = Arc::new(Api { key: key.into(), state, changed: Condvar::new() });
        let router = Router::new()
            .fallback(answer_request)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&api));
        Self { server: ServerThread::start(router), api }
    }

    /// Returns the value of `ANTHROPIC_BASE_URL`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Returns all requests, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.api.state().requests.clone()
    }

    /// Returns the requests of main conversations that a script answered.
    pub fn conversation(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.taken.is_some()).collect()
    }

    /// Returns what the API charged for all answers so far, in US dollars.
    ///
    /// Answers that were cut count in full, as the API generated them.
    pub fn bill_usd(&self) -> f64 {
        self.api.state().bill.usd()
    }

    /// Returns the ids of the stored files, which the owner of the key has.
    pub fn files(&self) -> Vec<String> {
        self.api.state().files.clone()
    }

    /// Returns unmet expectations and requests beyond the script; empty on success.
    pub fn failures(&self) -> Vec<String> {
        self.api.state().failures()
    }

    /// Returns the number of turns that were never requested.
    pub fn unplayed(&self) -> usize {
        self.api.state().unplayed()
    }

    /// Asserts that the whole script was played as expected.
    #[track_caller]
    pub fn assert_played(&self) {
        assert_eq!(self.failures(), Vec::<String>::new());
        assert_eq!(self.unplayed(), 0, "turns that were never requested");
    }

    /// Waits for `enough` scripted requests; returns false after `limit`.
    pub fn wait_for_requests(&self, enough: usize, limit: Duration) -> bool {
        let taken = |state: &State| state.requests.iter().filter(|request| request.taken.is_some()).count();
        let state = self.api.state();
        let waited = self.api.changed.wait_timeout_while(state, limit, |state| taken(state) < enough);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl fmt::Debug for MessagesApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessagesApi").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// The scripts of a server.
#[derive(Debug)]
pub struct Scripts(Vec<Script>);

impl From<Script> for Scripts {
    fn from(script: Script) -> Self {
        Self(vec![script])
    }
}

impl From<Vec<Script>> for Scripts {
    fn from(scripts: Vec<Script>) -> Self {
        Self(scripts)
    }
}

impl<const N: usize> From<[Script; N]> for Scripts {
    fn from(scripts: [Script; N]) -> Self {
        Self(scripts.into())
    }
}

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        header("x-api-key") == Some(&self.key) || bearer == Some(&self.key)
    }

    /// Records a request and returns its script step, or the response that needs no script.
    #[expect(clippy::result_large_err, reason = "the error is a response")]
    fn decide(&self, line: &str, headers: &HeaderMap, body: &Value) -> Result<ScriptStep, Response> {
        let mut state = self.state();
        let index = state.requests.len();
        let session = headers.get("x-claude-code-session-id").and_then(|value| value.to_str().ok());
        state.requests.push(Request {
            line: line.to_owned(),
            session: session.map(str::to_owned),
            body: body.clone(),
            taken: None,
            at: Instant::now(),
        });
        if line == "HEAD /api/hello" {
            return Err(().into_response());
        }
        if !self.knows(headers) {
            return Err(answer::error(401, "authentication_error", "invalid x-api-key"));
        }
        match line {
            "POST /v1/messages" | "POST /v1/messages/count_tokens" => {}
            _ => return Err(state.answer_other(line)),
        }
        if let Err(text) = rules::check(line, headers, body) {
            return Err(answer::error(400, "invalid_request_error", &text));
        }
        let model = body["model"].as_str().unwrap_or_default();
        if !["sonnet", "opus", "haiku"].iter().any(|family| model.contains(family)) {
            return Err(answer::error(404, "not_found_error", &format!("model: {model}")));
        }
        if line.ends_with("/count_tokens") {
            let (tokens, _) = answer::usage_of(body, &[]);
            return Err(Json(json!({ "input_tokens": tokens })).into_response());
        }
        // Titles and summaries are requested without the tools of the main conversation.
        if !state.requests[index].tools().contains(&"Bash") {
            // A request that wants to cost as much as it can.
            let is_greedy = state.requests[index].contains("use every token");
            let turn = Turn::text("A short text.");
            let turn = if is_greedy { turn.using(u64::MAX, u64::MAX) } else { turn };
            let message = answer::message(&turn, body);
            state.bill.charge(&message);
            return Err(answer::respond(message, body));
        }
        let mut step = state.step(index);
        step.message = answer::message(&step.turn, body);
        if step.fault.is_none_or(|fault| fault.is_charged()) {
            state.bill.charge(&step.message);
        }
        self.changed.notify_all();
        Ok(step)
    }
}

async fn answer_request(
    Shared(api): Shared<Arc<Api>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match api.decide(&format!("{method} {}", uri.path()), &headers, &body) {
        Ok(step) => play(&step, &body).await,
        Err(response) => response,
    }
}

async fn play(step: &ScriptStep, body: &Value) -> Response {
    tokio::time::sleep(step.turn.delay).await;
    let message = step.message.clone();
    match step.fault {
        None => answer::respond(message, body),
        Some(kind) => match answer::faulty(kind, &message) {
            Some(response) => response,
            None => std::future::pending().await,
        },
    }
}
