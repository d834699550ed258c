//! A node: runs the containers of every pod as processes of this machine and reports their status.
//!
//! It acts as scheduler and kubelet through the API, on both control planes: init containers in order, sidecars
//! (restarted, with a short back-off) until the main container has ended, and the first main container. There is
//! no wall between them: the program is the container's `command`, or the one that [`Kubelet::program`] sets for
//! its image, it sees this machine's files, and all containers share this machine's network, user and processes.
//! Volumes are directories. Paths at or below a `mountPath` (or `terminationMessagePath`) of the container are
//! replaced by host paths in arguments, variables and ConfigMap files, and nowhere else. So is the parent of mount
//! paths that this machine does not have. A path that the main container does not mount is that of the first
//! container which mounts it, since its program may name it to that of the other container.
//!
//! Not supported: other main containers, restarts of pods (every pod runs once), probes, resource limits.
//!
//! | module | content |
//! |---|---|
//! | `pod_worker` | one pod, from binding to deletion |
//! | `sidecar` | one sidecar of a pod |
//! | `schedule` | binding of pods |
//! | `launch` | what a container's program is started with, and how it ends |
//! | `process` | the program and its descendants |
//! | `environment`, `mounts`, `volumes` | input of the program |
//! | `logs` | output of the program |
//! | `report`, `status` | status of the pod |
//! | `node` | the Node object and its loss |

mod environment;
mod launch;
mod logs;
mod mounts;
mod node;
mod pod_worker;
mod process;
mod report;
mod schedule;
mod sidecar;
mod status;
mod volumes;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::ControlPlane;
use logs::Logs;
use process::Group;

/// Delay between two attempts of any request.
const PAUSE: Duration = Duration::from_millis(100);

/// Interval at which descendants are recorded, see [`Group::look`].
const LOOK: Duration = Duration::from_millis(200);

/// The pod on the API server; `None` after its deletion.
type News = watch::Receiver<Option<Arc<Value>>>;

/// An injected fault before a pod's program starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// No image can be pulled: `ErrImagePull`, then `ImagePullBackOff`.
    ImagePull,
    /// The image of the container of this name cannot be pulled.
    ImagePullOf(&'static str),
    /// The container of this name cannot execute its command, like a dynamic program without its loader.
    StartErrorOf(&'static str),
    /// No node fits, for this reason.
    Unschedulable(String),
}

/// What happens to the programs of a lost node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnNodeLoss {
    /// The programs are killed.
    Kill,
    /// The programs continue; only the network is lost.
    Keep,
}

/// A disruption of a running pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Disruption {
    Evict,
    OomKill,
}

type AccountToken = Box<dyn Fn(&str, &str) -> String + Send + Sync>;

type Rule = (Box<dyn Fn(&Pod) -> bool + Send>, Fault);

/// Namespace and name.
type PodName = (String, String);

/// Pod and container.
type ContainerName = (PodName, String);

/// A running node; its processes are killed when it is dropped.
pub struct Kubelet {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
    /// Kept here, because unfinished tasks hold `inner` a little longer.
    _folder: tempfile::TempDir,
}

struct Inner {
    client: Client,
    /// Creates a token for a service account, by namespace and name.
    account_token: AccountToken,
    node: String,
    port: u16,
    folder: PathBuf,
    programs: Mutex<BTreeMap<String, PathBuf>>,
    /// Variables that images set.
    image_variables: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    rules: Mutex<Vec<Rule>>,
    running: Mutex<BTreeMap<ContainerName, Running>>,
    /// Set when the node stops: no program may start.
    over: AtomicBool,
    logs: Logs,
    /// Whether the node is disconnected from the API server.
    lost: watch::Sender<bool>,
}

/// The program of a container.
struct Running {
    group: Group,
    /// Whether it is that of the pod's main container.
    is_main: bool,
    blow: watch::Sender<Option<Disruption>>,
}

impl Kubelet {
    /// Starts a node and waits until it is registered.
    pub fn start(plane: &ControlPlane) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime for the node");
        let node = format!("node-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let config = plane.node_config(&node);
        let account_token = Box::new(plane.account_tokens());
        let kept = tempfile::Builder::new().prefix("node-").tempdir().expect("a temporary folder");
        let folder = kept.path().to_owned();
        let (ready, started) = mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let inner = Arc::new(Inner {
                client: Client::try_from(config).expect("a client"),
                account_token,
                node,
                port: listener.local_addr().expect("a bound address").port(),
                folder,
                programs: Mutex::default(),
                image_variables: Mutex::default(),
                rules: Mutex::default(),
                running: Mutex::default(),
                over: AtomicBool::new(false),
                logs: Logs::default(),
                lost: watch::Sender::new(false),
            });
            tokio::spawn(logs::serve(listener, Arc::clone(&inner)));
            node::register(&inner).await;
            tokio::spawn(schedule::run(Arc::clone(&inner)));
            ready.send(inner)
        });
        let inner = started.recv().expect("the node starts");
        Self { inner, runtime: Some(runtime), _folder: kept }
    }

    /// Returns the node's name.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// Sets the program of containers of an image without `command`.
    pub fn program(&self, image: &str, program: impl Into<PathBuf>) {
        lock(&self.inner.programs).insert(image.to_owned(), program.into());
    }

    /// Sets the variables that an image sets.
    pub fn image_variables(&self, image: &str, variables: BTreeMap<String, String>) {
        lock(&self.inner.image_variables).insert(image.to_owned(), variables);
    }

    /// Injects a fault into pods with this name prefix, until the faults are cleared.
    pub fn fail(&self, prefix: &str, fault: Fault) {
        let prefix = prefix.to_owned();
        self.fail_where(
            move |pod| pod.metadata.name.as_ref().is_some_and(|it| it.starts_with(&prefix)),
            fault,
        );
    }

    /// Injects a fault into pods that match, until the faults are cleared.
    pub fn fail_where(&self, which: impl Fn(&Pod) -> bool + Send + 'static, fault: Fault) {
        lock(&self.inner.rules).push((Box::new(which), fault));
    }

    /// Clears all faults; waiting pods continue.
    pub fn clear_faults(&self) {
        lock(&self.inner.rules).clear();
    }

    /// Returns the PID of the program of a pod's main container while it runs.
    pub fn pid(&self, namespace: &str, pod: &str) -> Option<u32> {
        self.inner.of(namespace, pod, None, |running| running.group.pid())
    }

    /// Returns the PID of a container's program while it runs.
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Option<u32> {
        self.inner.of(namespace, pod, Some(container), |running| running.group.pid())
    }

    /// Kills the program of a pod's main container with SIGKILL, like a crash.
    ///
    /// # Panics
    ///
    /// Panics if it does not run.
    pub fn kill(&self, namespace: &str, pod: &str) {
        self.inner.of(namespace, pod, None, |running| running.group.kill()).expect("a running pod");
    }

    /// Kills a container's program with SIGKILL, like a crash.
    ///
    /// # Panics
    ///
    /// Panics if it does not run.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) {
        let killed = self.inner.of(namespace, pod, Some(container), |running| running.group.kill());
        killed.expect("a running container");
    }

    /// Kills the program of a pod's main container like the OOM killer.
    ///
    /// # Panics
    ///
    /// Panics if it does not run.
    pub fn run_out_of_memory(&self, namespace: &str, pod: &str) {
        self.inner.disrupt(namespace, pod, None, Disruption::OomKill);
    }

    /// Kills a container's program like the OOM killer.
    ///
    /// # Panics
    ///
    /// Panics if it does not run.
    pub fn container_runs_out_of_memory(&self, namespace: &str, pod: &str, container: &str) {
        self.inner.disrupt(namespace, pod, Some(container), Disruption::OomKill);
    }

    /// Evicts a pod, like a node under resource pressure.
    ///
    /// # Panics
    ///
    /// Panics if it does not run.
    pub fn evict(&self, namespace: &str, pod: &str) {
        self.inner.disrupt(namespace, pod, None, Disruption::Evict);
    }

    /// Disconnects the node: it is not ready, and the taint controller deletes its pods.
    /// / The pods stay until the node returns or is removed.
    pub async fn lose(&self, processes: OnNodeLoss) {
        let inner = Arc::clone(&self.inner);
        self.here(async move { node::lose(&inner, processes).await }).await;
    }

    /// Reconnects a lost node.
    pub async fn recover(&self) {
        let inner = Arc::clone(&self.inner);
        self.here(async move { node::recover(&inner).await }).await;
    }

    /// Removes a lost node from the cluster and force-deletes its pods.
    pub async fn remove(&self) {
        let inner = Arc::clone(&self.inner);
        self.here(async move { node::remove(&inner).await }).await;
    }

    /// Returns the directory of a claim, if a pod has used it.
    pub fn claim_folder(&self, namespace: &str, claim: &str) -> Option<PathBuf> {
        volumes::find_claim(&self.inner.folder, namespace, claim)
    }

    /// Returns a file in a volume of an existing pod.
    pub fn volume_file(&self, volume: &str, path: &str) -> Option<PathBuf> {
        let pods = std::fs::read_dir(self.inner.folder.join("pods")).ok()?.flatten();
        pods.map(|pod| pod.path().join("volumes").join(volume).join(path)).find(|file| file.is_file())
    }

    /// Runs in the node's own runtime, where its client lives.
    async fn here(&self, work: impl Future<Output = ()> + Send + 'static) {
        let runtime = self.runtime.as_ref().expect("it runs until it is dropped");
        runtime.spawn(work).await.expect("the node does it");
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Another thread may be spawning a program.
        self.inner.over.store(true, Ordering::SeqCst);
        for running in lock(&self.inner.running).values() {
            running.group.kill();
        }
    }
}

impl Inner {
    /// Calls `then` with the program of a container, or of the main container.
    fn of<T>(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        then: impl FnOnce(&Running) -> T,
    ) -> Option<T> {
        let running = lock(&self.running);
        let mut found = running.iter().filter(|(((space, of), name), running)| {
            space == namespace && of == pod && container.map_or(running.is_main, |it| it == name)
        });
        found.next().map(|(_, running)| then(running))
    }

    fn disrupt(&self, namespace: &str, pod: &str, container: Option<&str>, blow: Disruption) {
        let struck = self.of(namespace, pod, container, |running| {
            running.blow.send_replace(Some(blow));
            running.group.kill();
        });
        struck.expect("a running container");
    }

    /// Returns the first injected fault of a pod that fits.
    fn fault_of(&self, pod: &Value, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let pod: Pod = serde_json::from_value(pod.clone()).ok()?;
        let rules = lock(&self.rules);
        rules.iter().find(|(which, fault)| fits(fault) && which(&pod)).map(|(_, fault)| fault.clone())
    }

    fn program_of(&self, image: &str) -> Option<PathBuf> {
        lock(&self.programs).get(image).cloned()
    }

    fn pod_folder(&self, uid: &str) -> PathBuf {
        self.folder.join("pods").join(uid)
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until the node is connected to the API server.
    async fn connected(&self) {
        // The sender lives as long as `self`.
        self.lost.subscribe().wait_for(|lost| !lost).await.ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a string inside an object, or an empty one.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn name_of(pod: &Value) -> PodName {
    (text(pod, "/metadata/namespace").to_owned(), text(pod, "/metadata/name").to_owned())
}

fn is_going(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}
