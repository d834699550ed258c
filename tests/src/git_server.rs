//! A fake git host: real repositories over smart HTTP, with tokens and injected faults.
//! / `git http-backend` does the work.

mod cgi;
mod repositories;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;

use crate::server_thread::ServerThread;

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Ref advertisement before a fetch.
    AdvertiseFetch,
    /// Transfer of objects to the client.
    Fetch,
    /// Ref advertisement before a push.
    AdvertisePush,
    /// Transfer of objects from the client.
    Push,
}

/// The permission of a token in every repository without an exception.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Access {
    /// Repositories look as if they did not exist.
    None,
    Read,
    Write,
}

/// An injected fault of one response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Answers with this status, and `Retry-After` in seconds if given.
    Status(u16, Option<u32>),
    /// Answers 302 to the same path at another origin, such as `http://127.0.0.1:4000`.
    Redirect(String),
    /// Performs the operation and resets the connection after this many bytes of the body.
    CutAt(usize),
    /// Performs the operation and resets the connection after this percentage of the body.
    CutAtPercent(usize),
    /// Ends the body after this many bytes without a transport error.
    Truncate(usize),
    /// Sends one byte every half second.
    SlowLoris,
    /// Performs the operation and resets the connection before the first byte of the body.
    ResetAfter,
    /// Sends no response until the client or the server closes the connection.
    Silence,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `None` for paths that git never uses.
    pub operation: Option<Operation>,
    /// `owner/name`.
    pub repository: String,
    pub host: String,
    pub authorization: Option<String>,
    /// Status of the response.
    pub status: u16,
}

/// A running server; dropping it stops all of its processes.
pub struct GitServer {
    // Stops before its directory is removed.
    server: ServerThread,
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    tokens: BTreeMap<String, Access>,
    exceptions: BTreeMap<(String, String), Access>,
    faults: Vec<(Operation, usize, Fault)>,
    seen: BTreeMap<u8, usize>,
    requests: Vec<Request>,
}

impl GitServer {
    /// Starts a server without repositories and tokens.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State { root: folder.path().to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let router =
            Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&state));
        Self { server: ServerThread::start(router), folder, state }
    }

    /// Returns the URL of a repository, without credentials.
    pub fn url(&self, repository: &str) -> String {
        format!("{}/{repository}.git", self.origin())
    }

    /// Returns scheme, host and port.
    pub fn origin(&self) -> String {
        self.server.url()
    }

    /// Returns the directory of the bare repositories, as `owner/name.git`.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Grants a token access to every repository.
    pub fn allow(&self, token: impl Into<String>, access: Access) {
        lock(&self.state).tokens.insert(token.into(), access);
    }

    /// Sets the access of a token in one repository, overriding [`Self::allow`].
    pub fn allow_in(&self, repository: &str, token: impl Into<String>, access: Access) {
        lock(&self.state).exceptions.insert((token.into(), repository.to_owned()), access);
    }

    /// Revokes a token.
    pub fn forget(&self, token: &str) {
        let mut state = lock(&self.state);
        state.tokens.remove(token);
        state.exceptions.retain(|(known, _), _| known != token);
    }

    /// Injects a fault into the `nth` authorized request (from 1) of this operation since the start.
    pub fn fail(&self, operation: Operation, nth: usize, fault: Fault) {
        lock(&self.state).faults.push((operation, nth, fault));
    }

    /// Returns the access of a token to a repository; `None` for an unknown token.
    pub fn access(&self, token: &str, repository: &str) -> Option<Access> {
        lock(&self.state).access(token, repository)
    }

    /// Returns the number of requests of an operation, including unanswered ones.
    pub fn arrived(&self, operation: Operation) -> usize {
        lock(&self.state).seen.get(&(operation as u8)).copied().unwrap_or_default()
    }

    /// Returns all answered requests.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Returns the access of a token; `None` for an unknown token.
    fn access(&self, token: &str, repository: &str) -> Option<Access> {
        let exception = self.exceptions.get(&(token.to_owned(), repository.to_owned()));
        exception.or_else(|| self.tokens.get(token)).copied()
    }

    /// Authorizes a request and returns its injected fault, or the status of the error.
    fn admit(
        &mut self,
        operation: Operation,
        repository: &str,
        token: Option<&str>,
    ) -> Result<Option<Fault>, u16> {
        let access = token.and_then(|token| self.access(token, repository)).ok_or(401_u16)?;
        if access == Access::None || !self.root.join(format!("{repository}.git")).is_dir() {
            return Err(404);
        }
        let pushes = matches!(operation, Operation::AdvertisePush | Operation::Push);
        if pushes && access < Access::Write {
            return Err(403);
        }
        let count = self.seen.entry(operation as u8).or_default();
        *count += 1;
        let fault = self.faults.iter().find(|(of, nth, _)| *of == operation && nth == count);
        Ok(fault.map(|(_, _, fault)| fault.clone()))
    }
}

async fn answer(Shared(state): Shared<Arc<Mutex<State>>>, request: HttpRequest) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (repository, operation) = recognize(&path, &query);
    let token = credential(request.headers());
    let (root, verdict) = {
        let mut state = lock(&state);
        let verdict = match operation {
            Some(operation) => state.admit(operation, &repository, token.as_deref()),
            None => Err(404),
        };
        (state.root.clone(), verdict)
    };
    let host = header(request.headers(), "host").unwrap_or_default();
    let authorization = header(request.headers(), "authorization");
    let response = match verdict {
        Err(status) => refusal(status),
        Ok(Some(Fault::Status(status, after))) => {
            let mut response = refusal(status);
            if let Some(seconds) = after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
        Ok(Some(Fault::Redirect(origin))) => {
            (StatusCode::FOUND, [("location", format!("{origin}{}", request.uri()))]).into_response()
        }
        Ok(Some(Fault::Silence)) => std::future::pending().await,
        Ok(fault) => cgi::run(&root, &repository, request, fault.as_ref()).await,
    };
    let status = response.status().as_u16();
    lock(&state).requests.push(Request { operation, repository, host, authorization, status });
    response
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn refusal(status: u16) -> Response {
    let mut response = Response::new(Body::from(match status {
        401 => "Authentication required",
        403 => "Write access to repository not granted.",
        404 => "Repository not found.",
        _ => "fault",
    }));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if status == 401 {
        let challenge = "Basic realm=\"GitHub\"".parse().expect("a header");
        response.headers_mut().insert("www-authenticate", challenge);
    }
    response
}

/// Returns `owner/name` and the operation of a request.
fn recognize(path: &str, query: &str) -> (String, Option<Operation>) {
    let mut parts = path.splitn(3, '/');
    let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let operation = match (parts.next().unwrap_or_default(), query) {
        ("info/refs", "service=git-upload-pack") => Some(Operation::AdvertiseFetch),
        ("info/refs", "service=git-receive-pack") => Some(Operation::AdvertisePush),
        ("git-upload-pack", _) => Some(Operation::Fetch),
        ("git-receive-pack", _) => Some(Operation::Push),
        _ => None,
    };
    let safe = |part: &str| !part.is_empty() && !part.starts_with('.');
    let operation = operation.filter(|_| safe(owner) && safe(name));
    (format!("{owner}/{}", name.trim_end_matches(".git")), operation)
}

/// Returns the token of a request: the password of `Basic`, `Bearer` or `token`.
pub(crate) fn credential(headers: &HeaderMap) -> Option<String> {
    let header = headers.get("authorization")?.to_str().ok()?;
    let (scheme, value) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Some(value.to_owned());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}
