//! An API server in this process, with the controllers that tests need, where there is no real one.
//!
//! It keeps state and refuses what the real one refuses; the suite in `tests/control_plane.rs` runs the
//! same on both. What it does not have: admission webhooks, quotas, paged lists, conversion between
//! versions of a definition, `podFailurePolicy`, Indexed Jobs, and controllers other than those for Jobs,
//! garbage, namespaces and claims in use.
//!
//! | module | what it knows |
//! |---|---|
//! | `store` | objects and their history |
//! | `world`, `patch`, `deletion` | what changes are allowed, and what they do |
//! | `admission`, `names`, `definition` | what objects must look like |
//! | `fields`, `managers` | who manages which fields |
//! | `watch`, `selector`, `present`, `place`, `discovery`, `access`, `refusal` | what a request asks for, and how it is answered |
//! | `garbage`, `jobs` | the controllers |

mod access;
mod admission;
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
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::users::User;
use access::ResourceAttributes;
use deletion::{DeleteOptions, DeleteOutcome};
use patch::PatchKind;
use present::Form;
pub use resource_path::Query;
use resource_path::ResourcePath;
use selector::Selector;
use status_error::StatusError;
use store::Change;
use world::{ApiState, ManagedFieldsMode, WriteOptions};

/// A request body that the real server reads; a larger one is refused before anything else.
const LARGEST_BODY: usize = 3 << 20;

/// The server.
pub struct FakeApiServer {
    world: Mutex<ApiState>,
    announcements: Receiver<u64>,
}

/// A request, read.
struct ApiRequest<'a> {
    user: &'a User,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    query: Query,
    body: Value,
}

impl FakeApiServer {
    /// Starts it with its controllers; to be called in a runtime, which ends them.
    pub fn start() -> Arc<Self> {
        let world = ApiState::new();
        let announcements = world.store.announcements();
        let server = Arc::new(Self { world: Mutex::new(world), announcements });
        tokio::spawn(control(Arc::clone(&server)));
        server
    }

    fn world(&self) -> MutexGuard<'_, ApiState> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announcements(&self) -> Receiver<u64> {
        self.announcements.clone()
    }

    fn changes_since(&self, version: u64) -> Vec<Arc<Change>> {
        self.world().store.since(version).to_vec()
    }

    /// Answers a request of somebody.
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
        let asked = match parse_body(headers, body) {
            Ok(body) => ApiRequest { user, method, uri, headers, query: Query::parse(uri), body },
            Err(refusal) => return refusal.into(),
        };
        self.dispatch(asked).await.unwrap_or_else(Response::from)
    }

    async fn dispatch(self: &Arc<Self>, asked: ApiRequest<'_>) -> Result<Response<Body>, StatusError> {
        let path = asked.uri.path();
        if ["/readyz", "/livez", "/healthz"].contains(&path) {
            return Ok(Response::new(Body::from("ok")));
        }
        if asked.method == Method::POST && path.ends_with("/selfsubjectaccessreviews") {
            return Ok(json(201, &access::review(&self.world(), asked.user, &asked.body)));
        }
        let found = ResourcePath::parse(path, &self.world().resources);
        let Some(place) = found else {
            let said =
                discovery::answer(path, &self.world().resources).filter(|_| asked.method == Method::GET);
            return said.map(|value| json(200, &value)).ok_or_else(StatusError::no_such_path);
        };
        let watches = asked.query.is("watch");
        self.authorise(&asked, &place, watches)?;
        if place.subresource == "log" {
            return logs::answer(self, &place, asked.uri).await;
        }
        if watches && asked.method == Method::GET {
            return watch::start(self, place, &asked.query, asked.form());
        }
        let (code, value) = self.perform(&asked, &place)?;
        Ok(json(code, &value))
    }

    fn authorise(
        &self,
        asked: &ApiRequest<'_>,
        place: &ResourcePath,
        watches: bool,
    ) -> Result<(), StatusError> {
        let collection = place.name.is_empty();
        let verb = match (asked.method.as_str(), collection) {
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
        let resource = match place.subresource.as_str() {
            "" => place.resource.plural.clone(),
            subresource => format!("{}/{subresource}", place.resource.plural),
        };
        let ResourcePath { namespace, name, .. } = place;
        let deed =
            ResourceAttributes { verb, group: &place.resource.group, resource: &resource, namespace, name };
        let allowed = access::is_allowed(&self.world(), asked.user, &deed);
        if allowed {
            Ok(())
        } else {
            Err(StatusError::forbidden(&place.resource, name, &deed.refusal(asked.user)))
        }
    }

    fn perform(&self, asked: &ApiRequest<'_>, place: &ResourcePath) -> Result<(u16, Value), StatusError> {
        let mut world = self.world();
        let (resource, form, manner) = (&place.resource, asked.form(), asked.manner());
        let show = |object: &Value| form.of(resource, object);
        let collection = place.name.is_empty();
        match asked.method.as_str() {
            "GET" if collection => Ok((200, list(&world, asked, place)?)),
            "GET" => Ok((200, show(world.get(place)?.as_ref()))),
            "POST" if collection => {
                Ok((201, show(world.create(place, asked.body.clone(), &manner)?.as_ref())))
            }
            "POST" if place.subresource == "binding" => {
                bind(&mut world, place, &asked.body)?;
                Ok((
                    201,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
                ))
            }
            "PUT" if !collection => {
                let changed = world.change(place, asked.body.clone(), &manner, ManagedFieldsMode::Needed)?;
                Ok((200, show(&changed)))
            }
            "PATCH" if !collection => {
                let kind = PatchKind::of(asked.header("content-type"))?;
                let (made, object) = world.patch(place, kind, &asked.body, &manner)?;
                Ok((if made { 201 } else { 200 }, show(&object)))
            }
            "DELETE" if collection => {
                let wish = DeleteOptions::parse(&asked.body, &asked.query);
                let shown = list(&world, asked, place)?;
                for item in shown["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
                    world.delete(&ResourcePath { name, namespace, ..place.clone() }, &wish)?;
                }
                Ok((200, shown))
            }
            "DELETE" => Ok((
                200,
                match world.delete(place, &DeleteOptions::parse(&asked.body, &asked.query))? {
                    DeleteOutcome::Going(object) => show(&object),
                    // These answer with what they were.
                    DeleteOutcome::Gone(object)
                        if ["pods", "persistentvolumeclaims"].contains(&resource.plural.as_str()) =>
                    {
                        show(&object)
                    }
                    DeleteOutcome::Gone(object) => {
                        let mut details = json!({
                            "name": place.name, "kind": resource.plural, "uid": object["metadata"]["uid"],
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
        Form::wanted(self.header("accept"))
    }

    fn manner(&self) -> WriteOptions {
        let applies = self.header("content-type").starts_with("application/apply-patch");
        // Whoever does not say who he is is known by his program; but not when he applies.
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

fn list(world: &ApiState, asked: &ApiRequest<'_>, place: &ResourcePath) -> Result<Value, StatusError> {
    let query = &asked.query;
    let selector = Selector::parse(query.get("labelSelector"), query.get("fieldSelector"), &place.resource)?;
    let version = world.store.version();
    if let Some(wanted) = query.number::<u64>("resourceVersion").filter(|wanted| *wanted > version) {
        return Err(StatusError::too_new(wanted, version));
    }
    let objects = world.store.list(&place.resource.stored_as(), place.within());
    let objects = objects.map(|(_, object)| object.as_ref()).filter(|object| selector.matches(object));
    Ok(asked.form().list(&place.resource, version, objects))
}

/// Puts a pod on a node, as a scheduler asks for it.
fn bind(world: &mut ApiState, place: &ResourcePath, body: &Value) -> Result<(), StatusError> {
    let pod = world.get(place)?;
    let node = body["target"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|it| !it.is_empty()) {
        let why = format!("pod {} is already assigned to node \"{bound}\"", place.name);
        return Err(StatusError::conflict(&place.resource, &place.name, &why));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", place.name);
        return Err(StatusError::conflict(&place.resource, &place.name, &why));
    }
    world.amend(&place.key(), |pod| {
        pod["spec"]["nodeName"] = json!(node);
        let conditions = &mut pod["status"]["conditions"];
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": world::now()});
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

/// Runs the controllers whenever something changed, and when their next deadline comes.
async fn control(server: Arc<FakeApiServer>) {
    let mut announcements = server.announcements();
    loop {
        announcements.mark_unchanged();
        let next = {
            let mut world = server.world();
            garbage::collect(&mut world);
            jobs::reconcile(&mut world)
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
        return Err(StatusError::unsupported_media_type("the stand-in reads JSON"));
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
