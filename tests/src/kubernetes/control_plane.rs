//! A disposable control plane.

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

/// A running control plane; dropping it stops everything.
/// / It uses etcd, API server and controller manager if `KUBEBUILDER_ASSETS` names their directory (envtest),
/// otherwise the fake API server.
pub struct ControlPlane {
    // Fields are dropped in this order: the servers stop first.
    runtime: Option<Runtime>,
    real: Option<Mutex<Envtest>>,
    proxy: Arc<RecordingProxy>,
    network: FaultyProxy,
    address: SocketAddr,
    authority: String,
    token: String,
    kubeconfig: PathBuf,
    folder: tempfile::TempDir,
}

/// The parts of a started control plane.
struct Started {
    real: Option<Envtest>,
    proxy: Arc<RecordingProxy>,
    network: FaultyProxy,
    address: SocketAddr,
    authority: String,
}

impl ControlPlane {
    /// Starts the control plane that this machine has and prints its kind to standard error.
    pub fn start() -> Self {
        Self::start_with(Envtest::programs())
    }

    /// Starts the fake API server.
    pub fn start_fake() -> Self {
        Self::start_with(None)
    }

    fn start_with(programs: Option<PathBuf>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime for the control plane");
        // The caller may be in another runtime, where blocking is not allowed.
        let (ready, started) = mpsc::channel();
        runtime.spawn(async move { ready.send(assemble(programs).await) });
        let Started { real, proxy, network, address, authority } =
            started.recv().expect("the control plane starts");
        match &real {
            Some(real) => eprintln!("control plane: envtest, {}", real.version()),
            None => eprintln!("control plane: fake"),
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let token = proxy.users.token(User::new(ADMIN, &["system:masters"]));
        let kubeconfig = write_kubeconfig(folder.path(), &url(address), &authority, ADMIN, &token);
        let real = real.map(Mutex::new);
        Self { runtime: Some(runtime), real, proxy, network, address, authority, token, kubeconfig, folder }
    }

    /// Returns whether a real API server runs.
    pub fn is_real(&self) -> bool {
        self.real.is_some()
    }

    /// Returns whether the Job and garbage collection controllers run.
    /// / They are missing if the real API server has no controller manager.
    pub fn has_controllers(&self) -> bool {
        self.real.as_ref().is_none_or(|real| lock(real).has_controllers())
    }

    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Returns a kubeconfig file of the administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Creates a kubeconfig file of a user with the permissions of RBAC objects.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> PathBuf {
        self.kubeconfig_of(User::new(user, groups))
    }

    /// Creates a kubeconfig file of the service account `system:serviceaccount:NAMESPACE:NAME`.
    pub fn kubeconfig_for_account(&self, namespace: &str, name: &str) -> PathBuf {
        self.kubeconfig_of(User::service_account(namespace, name))
    }

    fn kubeconfig_of(&self, user: User) -> PathBuf {
        let name = user.name.clone();
        let token = self.proxy.users.token(user);
        write_kubeconfig(self.folder.path(), &self.url(), &self.authority, &name, &token)
    }

    /// Returns a client of the administrator. Must be called in a runtime.
    pub fn client(&self) -> Client {
        Client::try_from(self.config(&self.token)).expect("a client")
    }

    /// Returns a client of a user with the permissions of RBAC objects. Must be called in a runtime.
    pub fn client_for(&self, user: &str, groups: &[&str]) -> Client {
        let token = self.proxy.users.token(User::new(user, groups));
        Client::try_from(self.config(&token)).expect("a client")
    }

    /// Returns a function that creates service account tokens, for the node.
    pub(super) fn account_tokens(&self) -> impl Fn(&str, &str) -> String + Send + Sync + use<> {
        let proxy = Arc::clone(&self.proxy);
        move |namespace, name| proxy.users.token(User::service_account(namespace, name))
    }

    /// Returns the CA certificate in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the configuration of the node's client, whose requests are not recorded.
    pub(super) fn node_config(&self, node: &str) -> Config {
        let user = User::new(&format!("system:node:{node}"), &["system:masters", NODES]);
        let mut config = self.config(&self.proxy.users.token(user));
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

    /// Creates a namespace.
    pub async fn namespace(&self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let namespaces: Api<Namespace> = Api::all(self.client());
        namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
    }

    /// Installs a CustomResourceDefinition and waits until it is served and garbage collected.
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

    /// Stops a real controller manager, for measurements without it.
    pub fn end_controllers(&self) {
        if let Some(real) = &self.real {
            lock(real).end_manager();
        }
    }

    /// Makes the API server unreachable: existing and new connections are reset.
    pub fn disconnect(&self) {
        self.network.disconnect();
    }

    /// Makes the API server reachable again.
    pub fn reconnect(&self) {
        self.network.reconnect();
    }

    /// Returns all recorded requests; those of the node are not recorded.
    pub fn requests(&self) -> Vec<Request> {
        self.proxy.requests()
    }

    /// Calls `action` once at the `nth` mutation (from 1, counted from now) of `user`.
    ///
    /// Leases, events and access reviews do not count. With [`HookPoint::CarriedOut`] the response waits
    /// until the action returns, so a client that the action kills never receives it.
    pub fn on_mutation(
        &self,
        user: &str,
        nth: usize,
        moment: HookPoint,
        action: impl FnOnce() + Send + 'static,
    ) {
        self.proxy.on_mutation(user, nth, moment, Box::new(action));
    }

    /// Rejects the `nth` mutation (from 1, counted from now) of `user` with this status.
    pub fn refuse_mutation(&self, user: &str, nth: usize, status: u16) {
        self.proxy.refuse_mutation(user, nth, status);
    }

    /// Compacts the history: connections are reset, and watches from older versions get `410 Gone`.
    pub async fn expire(&self) {
        // Creates a version, so that new reads are newer than the compacted history.
        let path = "/api/v1/namespaces/default/configmaps";
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "expired-"}});
        let made = self.ask(Method::POST, path, object.to_string()).await;
        let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
        self.proxy.forget_before(version.parse().expect("versions are numbers"));
        let name = made["metadata"]["name"].as_str().expect("a name");
        self.ask(Method::DELETE, &format!("{path}/{name}"), String::new()).await;
        self.network.reset();
    }

    /// Sends a request that is not recorded and works while the network is disconnected.
    async fn ask(&self, method: Method, path: &str, body: String) -> Value {
        let (proxy, uri) = (Arc::clone(&self.proxy), path.parse().expect("a path"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a header"));
        let request = async move {
            let admin = User::new(ADMIN, &["system:masters"]);
            let response = proxy.ask(&admin, method, uri, headers, Bytes::from(body)).await;
            axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("an answer")
        };
        // The server's client lives in this runtime, not in the caller's.
        let runtime = self.runtime.as_ref().expect("it runs until it is dropped");
        let answer = runtime.spawn(request).await.expect("the server answers");
        serde_json::from_slice(&answer).expect("JSON")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Blocking is not allowed in the caller's runtime.
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
        None => (Server::Fake(FakeApiServer::start()), None),
    };
    let proxy = Arc::new(RecordingProxy::new(server));
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let inside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = outside.local_addr().expect("a bound address");
    let network = FaultyProxy::open(outside, inside.local_addr().expect("a bound address"));
    let router = Router::new()
        .fallback(
            |Shared(proxy): Shared<Arc<RecordingProxy>>, request| async move { proxy.answer(request).await },
        )
        .with_state(Arc::clone(&proxy));
    let listener = TlsListener::new(inside, &certificate);
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    Started { real, proxy, network, address, authority: certificate.pem }
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
