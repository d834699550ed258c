//! A control plane that a test starts and throws away.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::envtest::Envtest;
use super::fake_apiserver::FakeApiServer;
use super::faulty_proxy::FaultyProxy;
use super::recording_proxy::{HookPoint, RecordingProxy, Request, Server};
use super::tls::{Certificate, TlsListener};
use super::users::{ADMIN, NODES, User, write_kubeconfig};

/// A running control plane; everything it started ends when it is dropped.
///
/// A real one (etcd, API server, controller manager) where `KUBEBUILDER_ASSETS` names a folder with the
/// programs, as envtest does; else the stand-in of this crate.
pub struct ControlPlane {
    // The order of the fields is the order of their end: first nobody answers any more.
    runtime: Option<Runtime>,
    real: Option<Mutex<Envtest>>,
    front: Arc<RecordingProxy>,
    gate: FaultyProxy,
    address: SocketAddr,
    authority: String,
    token: String,
    kubeconfig: PathBuf,
    folder: tempfile::TempDir,
}

/// What is ready once a control plane answers.
struct Started {
    real: Option<Envtest>,
    front: Arc<RecordingProxy>,
    gate: FaultyProxy,
    address: SocketAddr,
    authority: String,
}

impl ControlPlane {
    /// Starts what this machine has, and says on standard error which that is.
    pub fn start() -> Self {
        Self::start_with(Envtest::programs())
    }

    /// Starts the stand-in, whatever this machine has.
    pub fn start_stand_in() -> Self {
        Self::start_with(None)
    }

    fn start_with(programs: Option<PathBuf>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime for the control plane");
        // The caller may be in a runtime of its own, where it may not wait for another.
        let (ready, started) = mpsc::channel();
        runtime.spawn(async move { ready.send(assemble(programs).await) });
        let Started { real, front, gate, address, authority } =
            started.recv().expect("the control plane starts");
        match &real {
            Some(real) => eprintln!("control plane: real, {}", real.version()),
            None => eprintln!("control plane: stand-in"),
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let token = front.users.token(User::new(ADMIN, &["system:masters"]));
        let kubeconfig = write_kubeconfig(folder.path(), &url(address), &authority, ADMIN, &token);
        let real = real.map(Mutex::new);
        Self { runtime: Some(runtime), real, front, gate, address, authority, token, kubeconfig, folder }
    }

    /// Whether a real API server answers.
    pub fn is_real(&self) -> bool {
        self.real.is_some()
    }

    /// Whether Jobs make pods and owners take along what they own: not on a real API server that has no
    /// controller manager beside it.
    pub fn has_controllers(&self) -> bool {
        self.real.as_ref().is_none_or(|real| lock(real).has_controllers())
    }

    /// The API server's address.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// A file for `KUBECONFIG`, of a user who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A file for `KUBECONFIG` of somebody who may do what RBAC objects allow them.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> PathBuf {
        self.kubeconfig_of(User::new(user, groups))
    }

    /// The same for a service account; its user is `system:serviceaccount:NAMESPACE:NAME`.
    pub fn kubeconfig_for_account(&self, namespace: &str, name: &str) -> PathBuf {
        self.kubeconfig_of(User::service_account(namespace, name))
    }

    fn kubeconfig_of(&self, user: User) -> PathBuf {
        let name = user.name.clone();
        let token = self.front.users.token(user);
        write_kubeconfig(self.folder.path(), &self.url(), &self.authority, &name, &token)
    }

    /// A client that may do everything; to be called in a runtime.
    pub fn client(&self) -> Client {
        Client::try_from(self.config(&self.token)).expect("a client")
    }

    /// A client of somebody who may do what RBAC objects allow them; to be called in a runtime.
    pub fn client_for(&self, user: &str, groups: &[&str]) -> Client {
        let token = self.front.users.token(User::new(user, groups));
        Client::try_from(self.config(&token)).expect("a client")
    }

    /// Gives tokens for service accounts, as the server does when a node asks.
    pub(super) fn account_tokens(&self) -> impl Fn(&str, &str) -> String + Send + Sync + use<> {
        let front = Arc::clone(&self.front);
        move |namespace, name| front.users.token(User::service_account(namespace, name))
    }

    /// The certificate by which the server is known, in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What the node's client is made of: what it asks is not written down.
    pub(super) fn node_config(&self, node: &str) -> Config {
        let user = User::new(&format!("system:node:{node}"), &["system:masters", NODES]);
        let mut config = self.config(&self.front.users.token(user));
        config.default_retry = false;
        config
    }

    fn config(&self, token: &str) -> Config {
        let mut config = Config::new(self.url().parse().expect("an address"));
        let authority = pem_to_der(&self.authority);
        config.root_cert = Some(vec![authority]);
        config.auth_info.token = Some(token.to_owned().into());
        config
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let namespaces: Api<Namespace> = Api::all(self.client());
        namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
    }

    /// Installs a CustomResourceDefinition and waits until its resource is served and collected as garbage.
    pub async fn install(&self, definition: &Value) {
        let kind =
            kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let resource = kube::core::ApiResource::from_gvk(&kind);
        let definitions: Api<DynamicObject> = Api::all_with(self.client(), &resource);
        let name = definition["metadata"]["name"].as_str().expect("a definition has a name");
        let force = PatchParams::apply("test").force();
        definitions.patch(name, &force, &Patch::Apply(definition)).await.expect("a valid definition");
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let found = definitions.get(name).await.expect("the definition");
            let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |it: &Value| it["type"] == "Established" && it["status"] == "True";
            if conditions.iter().any(is) {
                break;
            }
            assert!(Instant::now() < until, "{name} is not established: {conditions:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(real) = &self.real {
            lock(real).restart_manager();
        }
    }

    /// Ends a real controller manager, for what is to be measured without it.
    pub fn end_controllers(&self) {
        if let Some(real) = &self.real {
            lock(real).end_manager();
        }
    }

    /// Takes the API server away: connections are reset, new ones too.
    pub fn cut(&self) {
        self.gate.disconnect();
    }

    /// Gives it back.
    pub fn mend(&self) {
        self.gate.reconnect();
    }

    /// Everything that was asked so far, but for what the node asked.
    pub fn requests(&self) -> Vec<Request> {
        self.front.requests()
    }

    /// Calls `action` once at the `nth` change (from 1, counted from now) that `user` asks for.
    ///
    /// Leases, events and access reviews do not count. At [`Moment::CarriedOut`] the answer waits until
    /// the action returns, so a client that the action kills never hears it.
    pub fn on_mutation(
        &self,
        user: &str,
        nth: usize,
        moment: HookPoint,
        action: impl FnOnce() + Send + 'static,
    ) {
        self.front.on_mutation(user, nth, moment, Box::new(action));
    }

    /// Answers the `nth` change (from 1, counted from now) that `user` asks for with this status, and does
    /// not carry it out.
    pub fn refuse_mutation(&self, user: &str, nth: usize, status: u16) {
        self.front.refuse_mutation(user, nth, status);
    }

    /// Forgets the history: connections are reset, and watches from any version of before get `410 Gone`.
    pub async fn expire(&self) {
        // A change, so that what is read from now on is newer than what is forgotten.
        let path = "/api/v1/namespaces/default/configmaps";
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "expired-"}});
        let made = self.ask(Method::POST, path, object.to_string()).await;
        let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
        self.front.forget_before(version.parse().expect("versions are numbers"));
        let name = made["metadata"]["name"].as_str().expect("a name");
        self.ask(Method::DELETE, &format!("{path}/{name}"), String::new()).await;
        self.gate.reset();
    }

    /// Asks the server without leaving a trace in the requests, even while the network is cut.
    async fn ask(&self, method: Method, path: &str, body: String) -> Value {
        let (front, uri) = (Arc::clone(&self.front), path.parse().expect("a path"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a header"));
        let asked = async move {
            let admin = User::new(ADMIN, &["system:masters"]);
            let response = front.ask(&admin, method, uri, headers, Bytes::from(body)).await;
            axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("an answer")
        };
        // The server's client lives in our runtime, not in the caller's.
        let runtime = self.runtime.as_ref().expect("it runs until it is dropped");
        let answer = runtime.spawn(asked).await.expect("the server answers");
        serde_json::from_slice(&answer).expect("JSON")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed in the runtime that the caller may be in.
            runtime.shutdown_background();
        }
    }
}

async fn assemble(programs: Option<PathBuf>) -> Started {
    let certificate = Certificate::generate();
    let (server, real) = match programs {
        Some(programs) => {
            let real = Envtest::start(programs).await;
            (Server::Real(real.client()), Some(real))
        }
        None => (Server::StandIn(FakeApiServer::start()), None),
    };
    let front = Arc::new(RecordingProxy::new(server));
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let inside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = outside.local_addr().expect("a bound address");
    let gate = FaultyProxy::open(outside, inside.local_addr().expect("a bound address"));
    let router = Router::new()
        .fallback(
            |Shared(front): Shared<Arc<RecordingProxy>>, request| async move { front.answer(request).await },
        )
        .with_state(Arc::clone(&front));
    let listener = TlsListener::new(inside, &certificate);
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    Started { real, front, gate, address, authority: certificate.pem }
}

fn lock(real: &Mutex<Envtest>) -> std::sync::MutexGuard<'_, Envtest> {
    real.lock().unwrap_or_else(PoisonError::into_inner)
}

fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

fn pem_to_der(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(body).expect("a certificate in PEM")
}
