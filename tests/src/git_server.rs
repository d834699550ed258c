//! A git server: real repositories over smart HTTP, with tokens and faults.
//!
//! The real `git http-backend` does the work; it runs on a thread of its own, so
//! tests with and without a runtime can use it.

mod cgi;
mod repositories;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use tokio::sync::oneshot;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// The list of refs before a fetch.
    AdvertiseFetch,
    /// The objects of a fetch.
    Fetch,
    /// The list of refs before a push.
    AdvertisePush,
    /// The push itself.
    Push,
}

/// What a token may do in every repository, unless one says otherwise.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Access {
    /// Repositories look as if they were not there.
    None,
    /// Fetch.
    Read,
    /// Fetch and push.
    Write,
}

/// What goes wrong with one answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// This status, with `Retry-After` seconds where given.
    Status(u16, Option<u32>),
    /// A 302 to the same path under another origin, such as `http://127.0.0.1:4000`.
    Redirect(String),
    /// The connection breaks after so many bytes of the body; the operation is carried out.
    CutAt(usize),
    /// The connection breaks after so many per cent of the body; the operation is carried out.
    CutAtPercent(usize),
    /// The body ends early but properly.
    Truncate(usize),
    /// One byte every half second.
    SlowLoris,
    /// The operation is carried out completely; the connection breaks before the body's first byte.
    ResetAfter,
    /// Nothing is answered until the client or the server goes.
    Silence,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it asked for; none for paths that git never uses.
    pub operation: Option<Operation>,
    /// `owner/name`.
    pub repository: String,
    /// The `Host` header.
    pub host: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The status it was answered with.
    pub status: u16,
}

/// A running server; it stops, with all it started, when dropped.
pub struct GitServer {
    address: SocketAddr,
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
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
    /// Starts a server without repositories and without anybody who may use it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State { root: folder.path().to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let address = listener.local_addr().expect("a bound address");
        let (stop, stopped) = oneshot::channel();
        let router =
            Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&state));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the git server").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a tokio listener");
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => served.expect("serving"),
                    _ = stopped => {}
                }
            });
        });
        Self { address, folder, state, stop: Some(stop), thread: Some(thread) }
    }

    /// The address of a repository, without credentials.
    pub fn url(&self, repository: &str) -> String {
        format!("{}/{repository}.git", self.origin())
    }

    /// The server's scheme, host and port.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder that holds the bare repositories, as `owner/name.git`.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Lets whoever has `token` do this much.
    pub fn allow(&self, token: impl Into<String>, access: Access) {
        lock(&self.state).tokens.insert(token.into(), access);
    }

    /// Lets whoever has `token` do this much in one repository, whatever holds elsewhere.
    pub fn allow_in(&self, repository: &str, token: impl Into<String>, access: Access) {
        lock(&self.state).exceptions.insert((token.into(), repository.to_owned()), access);
    }

    /// Makes a token unknown, as one that was rotated.
    pub fn forget(&self, token: &str) {
        let mut state = lock(&self.state);
        state.tokens.remove(token);
        state.exceptions.retain(|(known, _), _| known != token);
    }

    /// Lets the `nth` authorised request (from 1) of this kind, counted from the start, fail.
    pub fn fail(&self, operation: Operation, nth: usize, fault: Fault) {
        lock(&self.state).faults.push((operation, nth, fault));
    }

    /// What a token may do in a repository; none for an unknown token.
    pub fn access(&self, token: &str, repository: &str) -> Option<Access> {
        lock(&self.state).access(token, repository)
    }

    /// How many requests of a kind arrived, those that still wait for their answer among them.
    pub fn arrived(&self, operation: Operation) -> usize {
        lock(&self.state).seen.get(&(operation as u8)).copied().unwrap_or_default()
    }

    /// Everything that was answered so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread was printed where it happened.
            thread.join().ok();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// What a token may do here; none for an unknown token.
    fn access(&self, token: &str, repository: &str) -> Option<Access> {
        let exception = self.exceptions.get(&(token.to_owned(), repository.to_owned()));
        exception.or_else(|| self.tokens.get(token)).copied()
    }

    /// Whether the request is let through, and the fault that is set for it.
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
    let (repository, operation) = recognise(&path, &query);
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

/// `owner/name` and the operation of a request.
fn recognise(path: &str, query: &str) -> (String, Option<Operation>) {
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

/// The token of a request: the password of `Basic`, or `Bearer`, or `token`.
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
