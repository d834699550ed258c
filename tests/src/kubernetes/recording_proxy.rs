//! The HTTP endpoint of the control plane: authenticates, records and forwards requests.
//!
//! It injects the faults that are equal on every server: a compacted history (`410 Gone` on watches), and hooks
//! before and after a mutation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request as HttpRequest, Response, Uri};
use kube::Client;
use serde_json::json;

use super::fake_apiserver::FakeApiServer;
use super::fake_apiserver::status_error::StatusError;
use super::users::{User, Users};

/// Larger than any request that an API server accepts.
const LARGEST: usize = 8 << 20;

/// A recorded request; those of nodes are not recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Name of the user.
    pub user: String,
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query without question mark.
    pub query: String,
    /// Status of the response; 0 before it is sent.
    pub status: u16,
}

impl Request {
    /// Returns whether it is a mutation that tests count: leases, events and access reviews are not.
    pub fn is_mutation(&self) -> bool {
        let beside = ["/leases", "/events", "/selfsubject", "/subjectaccessreviews"];
        self.method != "GET" && self.method != "HEAD" && !beside.iter().any(|part| self.path.contains(part))
    }
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HookPoint {
    /// Before the server receives the request.
    Arrived,
    /// After the server performed the request, before the client receives the response.
    CarriedOut,
}

enum HookAction {
    Call(HookPoint, Box<dyn FnOnce() + Send>),
    Refuse(u16),
}

struct Hook {
    by: String,
    left: usize,
    act: HookAction,
}

/// The server behind the proxy.
pub enum Server {
    /// A real API server, with a client of the administrator.
    Real(Client),
    /// The server in this process.
    Fake(Arc<FakeApiServer>),
}

/// The proxy of a control plane.
pub struct RecordingProxy {
    /// Users and their tokens.
    pub users: Users,
    server: Server,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    hooks: Vec<Hook>,
    /// Watches from versions before this one get 410.
    forgotten: u64,
}

impl RecordingProxy {
    pub fn new(server: Server) -> Self {
        Self { users: Users::default(), server, state: Mutex::default() }
    }

    /// Returns all recorded requests.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Calls `action` once, at the `nth` mutation (from 1, counted from now) of a user.
    pub fn on_mutation(&self, by: &str, nth: usize, moment: HookPoint, action: Box<dyn FnOnce() + Send>) {
        self.state().hooks.push(Hook { by: by.to_owned(), left: nth, act: HookAction::Call(moment, action) });
    }

    /// Rejects the `nth` mutation (from 1, counted from now) of a user with this status.
    pub fn refuse_mutation(&self, by: &str, nth: usize, status: u16) {
        self.state().hooks.push(Hook { by: by.to_owned(), left: nth, act: HookAction::Refuse(status) });
    }

    /// Compacts the history before this version.
    pub fn forget_before(&self, version: u64) {
        self.state().forgotten = version;
    }

    /// Handles a request from the network.
    pub async fn answer(&self, request: HttpRequest<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Some(user) = bearer(&parts.headers).and_then(|token| self.users.of(&token)) else {
            return StatusError::unauthorized().into();
        };
        let Ok(body) = axum::body::to_bytes(body, LARGEST).await else {
            return StatusError::too_large("the request body is larger than any server takes").into();
        };
        let record = Request {
            user: user.name.clone(),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            status: 0,
        };
        if self.has_forgotten(&record) {
            return expired();
        }
        let acts = self.acts_for(&record);
        let number = (!user.is_node()).then(|| {
            let mut state = self.state();
            state.requests.push(record);
            state.requests.len() - 1
        });
        let mut after = Vec::new();
        let mut refused = None;
        for act in acts {
            match act {
                HookAction::Call(HookPoint::Arrived, action) => tokio::task::block_in_place(action),
                HookAction::Call(HookPoint::CarriedOut, action) => after.push(action),
                HookAction::Refuse(status) => refused = Some(status),
            }
        }
        let response = match refused {
            Some(status) => StatusError::fault(status).into(),
            None => self.ask(&user, parts.method, parts.uri, parts.headers, body).await,
        };
        after.into_iter().for_each(|action| tokio::task::block_in_place(action));
        if let Some(number) = number {
            self.state().requests[number].status = response.status().as_u16();
        }
        response
    }

    /// Sends a request to the server in the name of a user.
    pub async fn ask(
        &self,
        user: &User,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response<Body> {
        match &self.server {
            Server::Fake(server) => server.answer(user, &method, &uri, &headers, &body).await,
            Server::Real(client) => forward(client, user, method, &uri, headers, body).await,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acts_for(&self, record: &Request) -> Vec<HookAction> {
        if !record.is_mutation() {
            return Vec::new();
        }
        let mut state = self.state();
        for hook in &mut state.hooks {
            hook.left -= usize::from(hook.by == record.user);
        }
        let (due, later) = std::mem::take(&mut state.hooks).into_iter().partition(|hook| hook.left == 0);
        state.hooks = later;
        due.into_iter().map(|hook: Hook| hook.act).collect()
    }

    /// Returns whether it is a watch from a compacted version.
    fn has_forgotten(&self, record: &Request) -> bool {
        let value = |name: &str| {
            let mut pairs = record.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let watches = matches!(value("watch"), Some("true" | "1"));
        let from = value("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
        watches && from > 0 && value("sendInitialEvents") != Some("true") && from < self.state().forgotten
    }
}

/// Responds as a real server: the watch starts, and its first event is an error.
fn expired() -> Response<Body> {
    let status = StatusError::expired().status();
    let event = json!({"type": "ERROR", "object": status});
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(format!("{event}\n")))
        .expect("a response")
}

/// Returns the bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

async fn forward(
    client: &Client,
    user: &User,
    method: Method,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = HttpRequest::builder().method(method).uri(path);
    let ours = ["authorization", "host", "connection", "content-length", "transfer-encoding"];
    for (name, value) in headers.iter().filter(|(name, _)| !ours.contains(&name.as_str())) {
        request = request.header(name, value);
    }
    // The administrator may impersonate users (`kubectl --as`).
    if !user.is_master() {
        request = request.header("impersonate-user", &user.name);
        for group in &user.groups {
            request = request.header("impersonate-group", group);
        }
    }
    let request = request.body(kube::client::Body::from(body.to_vec())).expect("a request");
    match client.send(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => StatusError::unavailable(&format!("the API server is unreachable: {error}")).into(),
    }
}
