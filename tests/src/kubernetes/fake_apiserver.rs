//! An API server in this process, with the controllers that tests need, for machines without envtest.
//!
//! It is frozen: nothing is added that the envtest path does not need, and tests of new behavior need envtest.
//! It keeps state and rejects what the real server rejects; the suite `control_plane` runs the same tests on
//! both. Not supported: admission webhooks, quotas, paged lists, conversion between versions of a definition,
//! `podFailurePolicy`, indexed Jobs, and controllers other than those for Jobs, garbage, namespaces and claims.
//!
//! | module | content |
//! |---|---|
//! | `store` | objects and their history |
//! | `api_state`, `patch`, `deletion` | changes and their rules |
//! | `admission`, `names`, `definition` | defaults and validation |
//! | `fields`, `managers` | field managers |
//! | `watch`, `selector`, `present`, `resource_path`, `discovery`, `access`, `status_error` | requests and responses |
//! | `garbage`, `jobs` | the controllers |

mod access;
mod admission;
mod api_state;
mod definition;
mod deletion;
mod discovery;
mod fields;
mod garbage;
mod jobs;
mod logs;
mod managers;
mod names;
mod patch;
mod present;
mod resource;
mod resource_path;
mod selector;
pub mod status_error;
mod store;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::users::User;
use access::ResourceAttributes;
use api_state::{ApiState, ManagedFieldsMode, WriteOptions};
use deletion::{DeleteOptions, DeleteOutcome};
use patch::PatchKind;
use present::Form;
pub use resource_path::Query;
use resource_path::ResourcePath;
use selector::Selector;
use status_error::StatusError;
use store::Change;

/// Maximum bytes of a request body.
const LARGEST_BODY: usize = 3 << 20;

pub struct FakeApiServer {
    state: Mutex<ApiState>,
    announcements: Receiver<u64>,
}

/// A parsed request.
struct ApiRequest<'a> {
    user: &'a User,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    query: Query,
    body: Value,
}

impl FakeApiServer {
    /// Starts the server and its controllers. Must be called in a runtime, which ends them.
    pub fn start() -> Arc<Self> {
        let state = ApiState::new();
        let announcements = state.store.announcements();
        let server = Arc::new(Self { state: Mutex::new(state), announcements });
        tokio::spawn(control(Arc::clone(&server)));
        server
    }

    fn state(&self) -> MutexGuard<'_, ApiState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announcements(&self) -> Receiver<u64> {
        self.announcements.clone()
    }

    fn changes_since(&self, version: u64) -> Vec<Arc<Change>> {
        self.state().store.since(version).to_vec()
    }

    /// Handles a request of a user.
    pub async fn answer(
        self: &Arc<Self>,
        user: &User,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response<Body> {
        if body.len() > LARGEST_BODY {
            let message = format!("Request entity too large: limit is {LARGEST_BODY}");
            return StatusError::too_large(&message).into();
        }
        let request = match parse_body(headers, body) {
            Ok(body) => ApiRequest { user, method, uri, headers, query: Query::parse(uri), body },
            Err(refusal) => return refusal.into(),
        };
        self.dispatch(request).await.unwrap_or_else(Response::from)
    }

    async fn dispatch(self: &Arc<Self>, request: ApiRequest<'_>) -> Result<Response<Body>, StatusError> {
        let path = request.uri.path();
        if ["/readyz", "/livez", "/healthz"].contains(&path) {
            return Ok(Response::new(Body::from("ok")));
        }
        if request.method == Method::POST && path.ends_with("/selfsubjectaccessreviews") {
            return Ok(json(201, &access::review(&self.state(), request.user, &request.body)));
        }
        let found = ResourcePath::parse(path, &self.state().resources);
        let Some(path) = found else {
            let document =
                discovery::answer(path, &self.state().resources).filter(|_| request.method == Method::GET);
            return document.map(|value| json(200, &value)).ok_or_else(StatusError::no_such_path);
        };
        let watches = request.query.is("watch");
        self.authorize(&request, &path, watches)?;
        if path.subresource == "log" {
            return logs::answer(self, &path, request.uri).await;
        }
        if watches && request.method == Method::GET {
            return watch::start(self, path, &request.query, request.form());
        }
        let (code, value) = self.perform(&request, &path)?;
        Ok(json(code, &value))
    }

    fn authorize(
        &self,
        request: &ApiRequest<'_>,
        path: &ResourcePath,
        watches: bool,
    ) -> Result<(), StatusError> {
        let collection = path.name.is_empty();
        let verb = match (request.method.as_str(), collection) {
            ("GET", _) if watches => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => return Err(StatusError::method_not_allowed()),
        };
        let resource = match path.subresource.as_str() {
            "" => path.resource.plural.clone(),
            subresource => format!("{}/{subresource}", path.resource.plural),
        };
        let ResourcePath { namespace, name, .. } = path;
        let attributes =
            ResourceAttributes { verb, group: &path.resource.group, resource: &resource, namespace, name };
        let allowed = access::is_allowed(&self.state(), request.user, &attributes);
        if allowed {
            Ok(())
        } else {
            Err(StatusError::forbidden(&path.resource, name, &attributes.refusal(request.user)))
        }
    }

    fn perform(&self, request: &ApiRequest<'_>, path: &ResourcePath) -> Result<(u16, Value), StatusError> {
        let mut state = self.state();
        let (resource, form, options) = (&path.resource, request.form(), request.options());
        let show = |object: &Value| form.of(resource, object);
        let collection = path.name.is_empty();
        match request.method.as_str() {
            "GET" if collection => Ok((200, list(&state, request, path)?)),
            "GET" => Ok((200, show(state.get(path)?.as_ref()))),
            "POST" if collection => {
                Ok((201, show(state.create(path, request.body.clone(), &options)?.as_ref())))
            }
            "POST" if path.subresource == "binding" => {
                bind(&mut state, path, &request.body)?;
                Ok((
                    201,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
                ))
            }
            "PUT" if !collection => {
                let changed =
                    state.change(path, request.body.clone(), &options, ManagedFieldsMode::Needed)?;
                Ok((200, show(&changed)))
            }
            "PATCH" if !collection => {
                let kind = PatchKind::of(request.header("content-type"))?;
                let (made, object) = state.patch(path, kind, &request.body, &options)?;
                Ok((if made { 201 } else { 200 }, show(&object)))
            }
            "DELETE" if collection => {
                let delete_options = DeleteOptions::parse(&request.body, &request.query);
                let shown = list(&state, request, path)?;
                for item in shown["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
                    state.delete(&ResourcePath { name, namespace, ..path.clone() }, &delete_options)?;
                }
                Ok((200, shown))
            }
            "DELETE" => Ok((
                200,
                match state.delete(path, &DeleteOptions::parse(&request.body, &request.query))? {
                    DeleteOutcome::Going(object) => show(&object),
                    // These respond with the deleted object.
                    DeleteOutcome::Gone(object)
                        if ["pods", "persistentvolumeclaims"].contains(&resource.plural.as_str()) =>
                    {
                        show(&object)
                    }
                    DeleteOutcome::Gone(object) => {
                        let mut details = json!({
                            "name": path.name, "kind": resource.plural, "uid": object["metadata"]["uid"],
                        });
                        if !resource.group.is_empty() {
                            details["group"] = json!(resource.group);
                        }
                        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
                    }
                },
            )),
            _ => Err(StatusError::method_not_allowed()),
        }
    }
}

impl ApiRequest<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn form(&self) -> Form {
        Form::expected(self.header("accept"))
    }

    fn options(&self) -> WriteOptions {
        let applies = self.header("content-type").starts_with("application/apply-patch");
        // The default manager is the user agent; apply must name one.
        let agent = self.header("user-agent").split('/').next().unwrap_or_default();
        let default = if applies {
            ""
        } else if agent.is_empty() {
            "unknown"
        } else {
            agent
        };
        WriteOptions {
            manager: self.query.get("fieldManager").unwrap_or(default).to_owned(),
            dry_run: self.query.get("dryRun") == Some("All"),
            force: self.query.is("force"),
            strict: self.query.get("fieldValidation") == Some("Strict"),
        }
    }
}

fn list(state: &ApiState, request: &ApiRequest<'_>, path: &ResourcePath) -> Result<Value, StatusError> {
    let query = &request.query;
    let selector = Selector::parse(query.get("labelSelector"), query.get("fieldSelector"), &path.resource)?;
    let version = state.store.version();
    if let Some(expected) = query.number::<u64>("resourceVersion").filter(|expected| *expected > version) {
        return Err(StatusError::too_new(expected, version));
    }
    let objects = state.store.list(&path.resource.stored_as(), path.within());
    let objects = objects.map(|(_, object)| object.as_ref()).filter(|object| selector.matches(object));
    Ok(request.form().list(&path.resource, version, objects))
}

/// Binds a pod to a node.
fn bind(state: &mut ApiState, path: &ResourcePath, body: &Value) -> Result<(), StatusError> {
    let pod = state.get(path)?;
    let node = body["target"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|it| !it.is_empty()) {
        let why = format!("pod {} is already assigned to node \"{bound}\"", path.name);
        return Err(StatusError::conflict(&path.resource, &path.name, &why));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", path.name);
        return Err(StatusError::conflict(&path.resource, &path.name, &why));
    }
    state.amend(&path.key(), |pod| {
        pod["spec"]["nodeName"] = json!(node);
        let conditions = &mut pod["status"]["conditions"];
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": api_state::now()});
        match conditions {
            Value::Array(list) => {
                list.retain(|it| it["type"] != "PodScheduled");
                list.push(scheduled);
            }
            _ => *conditions = json!([scheduled]),
        }
    });
    Ok(())
}

/// Runs the controllers after every change and at their next deadline.
async fn control(server: Arc<FakeApiServer>) {
    let mut announcements = server.announcements();
    loop {
        announcements.mark_unchanged();
        let next = {
            let mut state = server.state();
            garbage::collect(&mut state);
            jobs::reconcile(&mut state)
        };
        let wake = async {
            match next {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = announcements.changed() => if changed.is_err() { return },
            () = wake => {}
        }
    }
}

fn parse_body(headers: &HeaderMap, body: &Bytes) -> Result<Value, StatusError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.contains("protobuf") || kind.contains("cbor") {
        return Err(StatusError::unsupported_media_type("the fake API server reads JSON"));
    }
    serde_json::from_slice(body)
        .map_err(|error| StatusError::bad_request(format!("the body is not JSON: {error}")))
}

fn json(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response.headers_mut().insert("content-type", "application/json".parse().expect("a header"));
    response
}
