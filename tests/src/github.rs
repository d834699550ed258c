//! A fake of GitHub's REST API for pull requests, over the branches of the fake git host.

mod answers;
mod faults;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::git_server::{Access, GitServer, credential};
use crate::server_thread::ServerThread;
use faults::Faults;
pub use faults::{Call, Fault, Request};

/// A running API, stopped when dropped.
pub struct GitHub {
    server: ServerThread,
    api: Arc<Api>,
}

struct Api {
    git: Arc<GitServer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pulls: Vec<Value>,
    comments: Vec<Value>,
    renamed: BTreeMap<String, String>,
    archived: Vec<String>,
    faults: Faults,
    requests: Vec<Request>,
}

/// The parameters of a call.
struct CallParams<'a> {
    repository: &'a str,
    number: &'a str,
    query: &'a str,
    body: &'a Value,
}

/// A response before it is sent.
struct Answer {
    status: u16,
    body: Value,
    location: Option<String>,
    retry_after: Option<u32>,
    wait: Duration,
}

impl GitHub {
    /// Starts the API over the repositories and tokens of a git server.
    pub fn start(git: Arc<GitServer>) -> Self {
        let api = Arc::new(Api { git, state: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&api));
        Self { server: ServerThread::start(router), api }
    }

    /// Returns the URL of the API; `/api/v3` may follow it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Returns all pull requests.
    pub fn pulls(&self) -> Vec<Value> {
        self.api.state().pulls.clone()
    }

    /// Returns all comments on issues and pull requests.
    pub fn comments(&self) -> Vec<Value> {
        self.api.state().comments.clone()
    }

    /// Returns all received requests.
    pub fn requests(&self) -> Vec<Request> {
        self.api.state().requests.clone()
    }

    /// Injects a fault into the `nth` authorized call (from 1) of this kind since the start.
    pub fn fail(&self, call: Call, nth: usize, fault: Fault) {
        self.api.state().faults.set(call, nth, fault);
    }

    /// Redirects the old name of a repository to its new one (301).
    pub fn rename(&self, old: &str, new: &str) {
        self.api.state().renamed.insert(old.to_owned(), new.to_owned());
    }

    /// Marks a repository as archived.
    pub fn archive(&self, repository: &str) {
        self.api.state().archived.push(repository.to_owned());
    }
}

async fn answer(
    Shared(api): Shared<Arc<Api>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = api.answer(&method, &uri, &headers, &body);
    tokio::time::sleep(answer.wait).await;
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let mut response = (status, Json(answer.body)).into_response();
    if let Some(location) = answer.location {
        response.headers_mut().insert("location", location.parse().expect("a location"));
    }
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn refusal(status: u16, message: &str) -> (u16, Value) {
    (
        status,
        json!({"message": message, "errors": [{"message": message}], "documentation_url": "https://docs.github.com/rest"}),
    )
}

impl From<(u16, Value)> for Answer {
    fn from((status, body): (u16, Value)) -> Self {
        Self { status, body, location: None, retry_after: None, wait: Duration::ZERO }
    }
}

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Value) -> Answer {
        let header =
            |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let path = uri.path();
        let (prefix, path) = path.strip_prefix("/api/v3").map_or(("", path), |path| ("/api/v3", path));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut state = self.state();
        let (call, answer) = if let ["repos", owner, name, rest @ ..] = parts.as_slice() {
            let (call, repository) = (Call::of(method, rest), format!("{owner}/{name}"));
            let answer = if let Some(new) = state.renamed.get(&repository) {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let tail: String = rest.iter().map(|part| format!("/{part}")).collect();
                let host = header("host").unwrap_or_default();
                let location = format!("http://{host}{prefix}/repos/{new}{tail}{query}");
                Answer { location: Some(location), ..refusal(301, "Moved Permanently").into() }
            } else {
                let query = uri.query().unwrap_or_default();
                let number = rest.get(1).copied().unwrap_or_default();
                let params = CallParams { repository: &repository, number, query, body };
                self.admitted(&mut state, headers, call, &params)
            };
            (call, answer)
        } else {
            (None, refusal(404, "Not Found").into())
        };
        let authorization = header("authorization");
        state.requests.push(Request {
            call,
            line: format!("{method} {uri}"),
            authorization,
            status: answer.status,
        });
        answer
    }

    /// Authorizes a call and applies its injected fault.
    fn admitted(
        &self,
        state: &mut State,
        headers: &HeaderMap,
        call: Option<Call>,
        params: &CallParams<'_>,
    ) -> Answer {
        let repository = params.repository;
        let access = credential(headers).and_then(|token| self.git.access(&token, repository));
        let Some(access) = access else { return refusal(401, "Bad credentials").into() };
        let Some(call) = call.filter(|_| access > Access::None && self.git.path(repository).is_dir()) else {
            return refusal(404, "Not Found").into();
        };
        if matches!(call, Call::Create | Call::Change | Call::Comment) && access < Access::Write {
            return refusal(403, "Resource not accessible by personal access token").into();
        }
        let fault = state.faults.next(call);
        match fault {
            Some(Fault::Status(status, retry_after)) => {
                return Answer { retry_after, ..refusal(status, "fault").into() };
            }
            Some(Fault::SecondaryLimit(seconds)) => {
                return Answer { retry_after: Some(seconds), ..refusal(403, SECONDARY).into() };
            }
            Some(Fault::StatusAfter(_) | Fault::Late(_)) | None => {}
        }
        let done = self.perform(state, call, access, params);
        match fault {
            Some(Fault::StatusAfter(status)) => refusal(status, "fault").into(),
            Some(Fault::Late(wait)) => Answer { wait, ..done.into() },
            _ => done.into(),
        }
    }
}

const SECONDARY: &str =
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
