//! A real control plane: etcd, API server and controller manager of envtest.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::Value;

/// The token of the administrator; only the recording proxy uses it.
const TOKEN: &str = "front";

/// Controllers that tests rely on; the others would slow down the start.
const CONTROLLERS: &str = "garbage-collector-controller,job-controller,namespace-controller,\
    ttl-after-finished-controller,persistentvolumeclaim-protection-controller";

/// Timeout for a server to become ready; normally three seconds.
const START: Duration = Duration::from_secs(90);

/// A running control plane; its programs are killed when dropped.
pub struct Envtest {
    programs: PathBuf,
    folder: tempfile::TempDir,
    url: String,
    version: String,
    servers: Vec<Child>,
    manager: Option<Child>,
}

impl Envtest {
    /// Returns the directory of the programs, from `KUBEBUILDER_ASSETS`.
    pub fn programs() -> Option<PathBuf> {
        let folder = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS").filter(|it| !it.is_empty())?);
        for program in ["etcd", "kube-apiserver"] {
            assert!(folder.join(program).is_file(), "KUBEBUILDER_ASSETS has no {program}");
        }
        Some(folder)
    }

    /// Starts the programs and waits until they are ready.
    pub async fn start(programs: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("kube-").tempdir().expect("a temporary folder");
        prepare(folder.path());
        let (mut servers, url) = start_servers(&programs, folder.path()).await;
        let version = match wait_for_version(&url, &mut servers).await {
            Ok(version) => version,
            Err(why) => {
                servers.iter_mut().for_each(end);
                let logs = ["etcd.log", "api.log"].map(|log| tail(&folder.path().join(log))).join("\n");
                panic!("the API server does not start: {why}\n{logs}");
            }
        };
        let mut real = Self { programs, folder, url, version, servers, manager: None };
        real.start_manager();
        real
    }

    /// Returns a client of the administrator, for requests without credentials.
    pub fn client(&self) -> Client {
        client(&self.url)
    }

    /// Returns the version of the API server.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns whether a controller manager runs.
    pub fn has_controllers(&self) -> bool {
        self.manager.is_some()
    }

    /// Restarts the controller manager: its garbage collector discovers new kinds at its start and then
    /// every thirty seconds.
    pub fn restart_manager(&mut self) {
        if let Some(mut manager) = self.manager.take() {
            end(&mut manager);
            self.start_manager();
        }
    }

    /// Stops the controller manager.
    pub fn end_manager(&mut self) {
        if let Some(mut manager) = self.manager.take() {
            end(&mut manager);
        }
    }

    fn start_manager(&mut self) {
        let program = self.programs.join("kube-controller-manager");
        if !program.is_file() {
            return;
        }
        let folder = self.folder.path();
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": self.url, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "x", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        });
        fs::write(folder.join("manager.kubeconfig"), config.to_string()).expect("a kubeconfig");
        let mut command = tied(&program);
        command
            .arg("--kubeconfig=manager.kubeconfig")
            // Raises the client limits for tests.
            .args(["--kube-api-qps=1000", "--kube-api-burst=1000", "--leader-elect=false"])
            .args(["--secure-port=0", "--use-service-account-credentials=false"])
            .arg(format!("--controllers={CONTROLLERS}"));
        self.manager = Some(launch(command, folder, "manager.log"));
    }
}

impl Drop for Envtest {
    fn drop(&mut self) {
        if let Some(manager) = &mut self.manager {
            end(manager);
        }
        self.servers.iter_mut().rev().for_each(end);
    }
}

/// Returns a client that accepts the self-signed certificate.
fn client(url: &str) -> Client {
    let mut config = kube::Config::new(url.parse().expect("an address"));
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.auth_info.token = Some(TOKEN.to_owned().into());
    Client::try_from(config).expect("a client")
}

fn prepare(folder: &Path) {
    fs::write(folder.join("tokens.csv"), format!("{TOKEN},front,1,\"system:masters\"\n")).expect("tokens");
    let key = rcgen::KeyPair::generate().expect("a key");
    fs::write(folder.join("accounts.key"), key.serialize_pem()).expect("a key file");
    fs::write(folder.join("accounts.pub"), key.public_key_pem()).expect("a key file");
}

/// Starts etcd and the API server, and retries if another process took a port.
async fn start_servers(programs: &Path, folder: &Path) -> (Vec<Child>, String) {
    let [clients, peers, secure] = free_ports();
    let mut etcd = tied(&programs.join("etcd"));
    etcd.args(["--data-dir=etcd", "--unsafe-no-fsync"])
        .arg(format!("--listen-client-urls=http://127.0.0.1:{clients}"))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{clients}"))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{peers}"));
    let mut api = tied(&programs.join("kube-apiserver"));
    api.args(["--bind-address=127.0.0.1", "--cert-dir=certificates", "--token-auth-file=tokens.csv"])
        .arg(format!("--etcd-servers=http://127.0.0.1:{clients}"))
        .arg(format!("--secure-port={secure}"))
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC"])
        .args(["--service-account-key-file=accounts.pub", "--service-account-signing-key-file=accounts.key"])
        // No controller creates service accounts and their tokens here.
        .args(["--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=10.0.0.0/24"])
        .args(["--endpoint-reconciler-type=none", "--profiling=false", "--allow-privileged=true"])
        .args(["--kubelet-preferred-address-types=InternalIP", "--kubelet-timeout=10s"]);
    let servers = vec![launch(etcd, folder, "etcd.log"), launch(api, folder, "api.log")];
    (servers, format!("https://127.0.0.1:{secure}"))
}

async fn wait_for_version(url: &str, servers: &mut [Child]) -> Result<String, String> {
    let client = client(url);
    let until = Instant::now() + START;
    loop {
        if let Some(ended) = servers.iter_mut().find_map(|server| server.try_wait().ok().flatten()) {
            return Err(format!("a server ended: {ended}"));
        }
        let ready = axum::http::Request::get("/readyz").body(Vec::new()).expect("a request");
        match client.request_text(ready).await {
            Ok(_) => break,
            Err(error) if Instant::now() > until => return Err(format!("not ready in time: {error}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let version = axum::http::Request::get("/version").body(Vec::new()).expect("a request");
    let version: Value = client.request(version).await.map_err(|error| error.to_string())?;
    let [major, minor] = ["major", "minor"].map(|part| version[part].as_str().unwrap_or("?").to_owned());
    Ok(format!("v{major}.{minor}"))
}

/// Returns a command that is killed when its parent dies (`setpriv` of util-linux).
fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Spawns on a permanent thread: the parent-death signal follows the thread, not the process.
fn launch(mut command: Command, folder: &Path, log: &str) -> Child {
    let log = File::create(folder.join(log)).expect("a log file");
    let errors = log.try_clone().expect("a log file");
    command.current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(errors);
    keeper::spawn(command)
}

fn end(child: &mut Child) {
    // The process may have exited already.
    child.kill().ok();
    child.wait().ok();
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Returns ports that are free at the same time.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}

mod keeper {
    //! The permanent thread of this process that spawns servers.

    use std::process::{Child, Command};
    use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

    static KEEPER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, arrived) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in arrived {
                // The caller waits for the response.
                answer.send(command.spawn()).ok();
            }
        });
        Mutex::new(orders)
    });

    pub(super) fn spawn(command: Command) -> Child {
        let (answer, started) = mpsc::channel();
        let orders = KEEPER.lock().unwrap_or_else(PoisonError::into_inner).clone();
        orders.send((command, answer)).expect("the keeper never ends");
        started.recv().expect("the keeper answers").expect("setpriv and the server's program")
    }
}
