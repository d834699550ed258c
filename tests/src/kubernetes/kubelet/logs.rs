//! Container logs, and the HTTPS server from which the API server fetches them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{Response, StatusCode, Uri};
use futures::stream;
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::{Inner, PodName, lock};
use crate::kubernetes::fake_apiserver::Query;
use crate::kubernetes::tls::{Certificate, TlsListener};

/// The output of a container, both streams in order of arrival.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<(Timestamp, Bytes)>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    lines: usize,
    ended: bool,
}

impl Log {
    /// Reads a stream to its end.
    pub async fn read(self: Arc<Self>, stream: impl AsyncRead + Unpin) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
            let mut lines = lock(&self.lines);
            lines.push((Timestamp::now(), Bytes::from(std::mem::take(&mut line))));
            self.state.send_modify(|state| state.lines = lines.len());
        }
    }

    /// Marks the log as complete.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Returns the last lines, up to `limit` bytes.
    pub fn tail(&self, limit: usize) -> String {
        let lines = lock(&self.lines);
        let all: Vec<u8> = lines.iter().rev().take(80).rev().flat_map(|(_, line)| line.to_vec()).collect();
        String::from_utf8_lossy(&all[all.len().saturating_sub(limit)..]).into_owned()
    }
}

/// The logs of a node; each is removed with its pod.
#[derive(Default)]
pub struct Logs(Mutex<BTreeMap<(PodName, String), Arc<Log>>>);

impl Logs {
    /// Creates the log of a container.
    pub fn begin(&self, pod: PodName, container: &str) -> Arc<Log> {
        let log = Arc::new(Log::default());
        lock(&self.0).insert((pod, container.to_owned()), Arc::clone(&log));
        log
    }

    /// Removes the logs of a pod.
    pub fn forget(&self, pod: &PodName) {
        lock(&self.0).retain(|(of, _), _| of != pod);
    }

    fn find(&self, namespace: &str, pod: &str, container: &str) -> Option<Arc<Log>> {
        let key = ((namespace.to_owned(), pod.to_owned()), container.to_owned());
        lock(&self.0).get(&key).map(Arc::clone)
    }
}

/// The requested part of a log.
struct Part {
    follow: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    timestamps: bool,
    limit: Option<usize>,
}

/// Serves `/containerLogs/NAMESPACE/POD/CONTAINER`.
pub(super) async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    let router = Router::new().fallback(answer).with_state(inner);
    let listener = TlsListener::new(listener, &Certificate::generate());
    axum::serve(listener, router).await.expect("serving");
}

async fn answer(Shared(inner): Shared<Arc<Inner>>, uri: Uri) -> Response<Body> {
    if *inner.lost.borrow() {
        // A lost node does not answer.
        std::future::pending::<()>().await;
    }
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let ["containerLogs", namespace, pod, container] = parts.as_slice() else {
        return refusal(404, "no such path");
    };
    let query = Query::parse(&uri);
    let since_seconds = query.number::<i64>("sinceSeconds");
    let part = Part {
        follow: query.is("follow"),
        since: query
            .get("sinceTime")
            .and_then(|time| time.parse().ok())
            .or_else(|| Some(Timestamp::now() - jiff::SignedDuration::from_secs(since_seconds?))),
        tail: query.number("tailLines"),
        timestamps: query.is("timestamps"),
        limit: query.number("limitBytes"),
    };
    let Some(log) = inner.logs.find(namespace, pod, container) else {
        let why =
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating");
        return refusal(400, &why);
    };
    let (send, mut chunks) = mpsc::channel::<Bytes>(256);
    tokio::spawn(async move { part.send(&log, &send).await });
    let chunks =
        stream::poll_fn(move |context| chunks.poll_recv(context).map(|it| it.map(Ok::<_, Infallible>)));
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert("content-type", "text/plain".parse().expect("a header"));
    response
}

impl Part {
    /// Sends the log until its end, or until the client disconnects.
    async fn send(self, log: &Log, send: &mpsc::Sender<Bytes>) -> Option<()> {
        let mut state = log.state.subscribe();
        let mut at = {
            let lines = lock(&log.lines);
            let first = self.since.map_or(0, |since| lines.partition_point(|(time, _)| *time < since));
            first.max(self.tail.map_or(0, |tail| lines.len().saturating_sub(tail)))
        };
        let mut left = self.limit.unwrap_or(usize::MAX);
        loop {
            let seen = *state.borrow_and_update();
            let new: Vec<(Timestamp, Bytes)> = lock(&log.lines).get(at..).unwrap_or_default().to_vec();
            at += new.len();
            for (time, line) in new {
                let mut chunk = if self.timestamps { format!("{time:.9} ").into_bytes() } else { Vec::new() };
                chunk.extend_from_slice(&line);
                chunk.truncate(left);
                left -= chunk.len();
                send.send(chunk.into()).await.ok()?;
                if left == 0 {
                    return Some(());
                }
            }
            if seen.ended || !self.follow {
                return Some(());
            }
            tokio::select! {
                changed = state.changed() => changed.ok()?,
                () = send.closed() => return None,
                // A change between the two reads above would be missed otherwise.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }
}

fn refusal(code: u16, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(why.to_owned()));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}
