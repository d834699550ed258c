//! Watches: the changes after a version.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::FakeApiServer;
use super::present::Form;
use super::resource_path::{Query, ResourcePath};
use super::selector::Selector;
use super::status_error::StatusError;
use super::store::Change;

/// Duration of a watch without `timeoutSeconds`.
const DEFAULT: Duration = Duration::from_secs(1800);

/// Interval of bookmarks. A real server sends one a minute, too slow for tests.
const BOOKMARKS: Duration = Duration::from_secs(5);

struct Watch {
    path: ResourcePath,
    selector: Selector,
    form: Form,
    bookmarks: bool,
    until: Instant,
}

pub fn start(
    server: &Arc<FakeApiServer>,
    path: ResourcePath,
    query: &Query,
    form: Form,
) -> Result<Response<Body>, StatusError> {
    let mut selector =
        Selector::parse(query.get("labelSelector"), query.get("fieldSelector"), &path.resource)?;
    selector.only_named(&path.name);
    let from = match query.get("resourceVersion") {
        None => 0,
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| StatusError::bad_request(format!("invalid resource version {text:?}")))?,
    };
    let initial = query.get("sendInitialEvents");
    if initial.is_some() && query.get("resourceVersionMatch") != Some("NotOlderThan") {
        let why = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(StatusError::unprocessable(why));
    }
    let limit = query.number("timeoutSeconds").filter(|it| *it > 0).map_or(DEFAULT, Duration::from_secs);
    let watch = Watch {
        path,
        selector,
        form,
        bookmarks: query.is("allowWatchBookmarks"),
        until: Instant::now() + limit,
    };
    let state = query.is("sendInitialEvents") || initial.is_none() && from == 0;
    let end_of_state = query.is("sendInitialEvents");
    let (send, mut lines) = mpsc::channel::<Bytes>(1024);
    let server = Arc::clone(server);
    tokio::spawn(async move { watch.run(&server, from, state, end_of_state, &send).await });
    let lines =
        stream::poll_fn(move |context| lines.poll_recv(context).map(|line| line.map(Ok::<_, Infallible>)));
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert("content-type", "application/json".parse().expect("a header"));
    Ok(response)
}

impl Watch {
    /// Sends changes until the client disconnects or the watch times out.
    async fn run(
        self,
        server: &FakeApiServer,
        from: u64,
        state: bool,
        end_of_state: bool,
        send: &mpsc::Sender<Bytes>,
    ) -> Option<()> {
        let mut announcements = server.announcements();
        let (mut seen, events) = if state { self.state(server, end_of_state) } else { (from, Vec::new()) };
        for event in events {
            send.send(event).await.ok()?;
        }
        let mut next_bookmark = Instant::now() + BOOKMARKS;
        loop {
            for change in server.changes_since(seen) {
                seen = change.version;
                if let Some(event) = self.event(&change) {
                    send.send(event).await.ok()?;
                }
            }
            tokio::select! {
                changed = announcements.changed() => changed.ok()?,
                () = send.closed() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep_until(next_bookmark) => {
                    next_bookmark = Instant::now() + BOOKMARKS;
                    if self.bookmarks {
                        send.send(self.bookmark(seen, false)).await.ok()?;
                    }
                }
            }
        }
    }

    /// Returns the current objects as `ADDED` events.
    fn state(&self, server: &FakeApiServer, end: bool) -> (u64, Vec<Bytes>) {
        let state = server.state();
        let version = state.store.version();
        let objects = state.store.list(&self.path.resource.stored_as(), self.path.within());
        let mut events: Vec<Bytes> = objects
            .filter(|(_, object)| self.selector.matches(object))
            .map(|(_, object)| self.line("ADDED", object))
            .collect();
        if end {
            events.push(self.bookmark(version, true));
        }
        (version, events)
    }

    /// Returns the event of a change, if it is selected.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let here = change.key.resource == self.path.resource.stored_as()
            && self.path.within().is_none_or(|namespace| namespace == change.key.namespace);
        if !here {
            return None;
        }
        let meant =
            |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|object| self.selector.matches(object));
        match (&change.before, &change.after) {
            (_, Some(after)) if meant(&change.after) => {
                let kind = if meant(&change.before) { "MODIFIED" } else { "ADDED" };
                Some(self.line(kind, after))
            }
            // An object that is no longer selected looks deleted, with the current version.
            (Some(before), _) if meant(&change.before) => {
                let mut last = Value::clone(before);
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(self.line("DELETED", &last))
            }
            _ => None,
        }
    }

    fn line(&self, kind: &str, object: &Value) -> Bytes {
        let object = self.form.of(&self.path.resource, object);
        Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
    }

    fn bookmark(&self, version: u64, end_of_state: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if end_of_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": self.path.resource.kind, "apiVersion": self.path.resource.api_version(), "metadata": metadata,
        });
        Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))
    }
}
