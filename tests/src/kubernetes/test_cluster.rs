//! A cluster for tests: a control plane with the manifests of `dispatcher/deploy`, a node, and a `TestEnv`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::kubelet::OnNodeLoss;
use super::{ControlPlane, Kubelet};
use crate::binaries::Binaries;
use crate::command::{self, CommandOutput};
use crate::ide_session::IdeSession;
use crate::messages_api::Scripts;
use crate::projects;
use crate::test_env::TestEnv;

/// The namespace of all objects.
pub const NAMESPACE: &str = "orchestrator";

/// The controller's user.
pub const CONTROLLER: &str = "system:serviceaccount:orchestrator:orchestrator";

/// Name of the agent image; the node runs the supervisor of this build for it.
const IMAGE: &str = "registry.example/agent:1";

/// Timeout of one command.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Stop timeout of a run, in seconds; below the tests' own timeout.
const STOP_SECONDS: u32 = 15;

/// Timeout of every wait.
const LIMIT: Duration = Duration::from_secs(90);

/// A cluster. Fields are dropped in this order.
pub struct TestCluster {
    pub kubelet: Kubelet,
    pub plane: ControlPlane,
    /// Repositories, GitHub and the model.
    pub env: TestEnv,
    runtime: tokio::runtime::Runtime,
    /// Kubeconfig of a user who may submit.
    user_kubeconfig: PathBuf,
    /// Configuration and logs, outside of the `TestEnv`, whose processes are those of runs.
    folder: tempfile::TempDir,
}

/// A `dispatcher serve --controller` process, killed when dropped.
pub struct Controller {
    child: Child,
    /// Address of the metrics endpoint.
    pub metrics: String,
}

impl TestCluster {
    /// Creates a cluster with everything installed and no controller.
    pub fn start(scripts: impl Into<Scripts>) -> Self {
        Self::with(scripts, "")
    }

    /// Like [`Self::start`], with more lines in the section `[kubernetes]` of the configuration.
    pub fn with(scripts: impl Into<Scripts>, settings: &str) -> Self {
        let mut env = TestEnv::start(scripts);
        // The other service has its own repository.
        let files = projects::order_book();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        env.git.create("acme/auth", "main", &files);
        env.record_refs();
        let plane = ControlPlane::start();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let kubelet = Kubelet::start(&plane);
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir().expect("a folder");
        kubelet.program(IMAGE, program_of_image(folder.path()));
        kubelet.image_variables(IMAGE, variables_of_image(&env));
        let user_kubeconfig = plane.kubeconfig_for("user", &["users"]);
        let cluster = Self { kubelet, plane, env, runtime, user_kubeconfig, folder };
        std::fs::write(cluster.config(), cluster.configuration(settings)).expect("a configuration");
        cluster.runtime.block_on(cluster.install());
        cluster
    }

    /// Returns the path of the configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("orchestrator.toml")
    }

    fn configuration(&self, settings: &str) -> String {
        let ambient = self.env.environment();
        // Variables that the image of the supervisor would set, and the address of the model.
        let mut environment = String::from("ORCHESTRATOR_TERMINATION_LOG = \"/dev/termination-log\"\n");
        environment += &format!("ORCHESTRATOR_STOP_TIMEOUT_SECONDS = \"{STOP_SECONDS}\"\n");
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "RUSTUP_HOME",
            "ORCHESTRATOR_CLAUDE",
            "ANTHROPIC_BASE_URL",
            "CLAUDE_CODE_MAX_RETRIES",
        ] {
            if let Some(value) = ambient.get(name) {
                environment += &format!("{name} = {value:?}\n");
            }
        }
        format!(
            "backend = \"kubernetes\"\ngithub_api_url = {:?}\n\
             [defaults]\nplatform_repository_url = {:?}\n\
             [agents.claude-agent-1]\ngit_hosts = [\"127.0.0.1\"]\n\
             [services.trader]\nrepository_url = {:?}\n\
             [services.auth]\nrepository_url = {:?}\n\
             [kubernetes]\nimage = {IMAGE:?}\napi_server = {:?}\n{settings}\n\
             [kubernetes.environment]\n{environment}",
            self.env.github.url(),
            self.env.git.url("acme/platform"),
            self.env.git.url("acme/trader"),
            self.env.git.url("acme/auth"),
            self.plane.url(),
        )
    }

    async fn install(&self) {
        let definition = Command::new(&Binaries::get().dispatcher)
            .args(["crd", "-o", "json"])
            .output()
            .expect("the dispatcher prints the definition");
        let definition: Value = serde_json::from_slice(&definition.stdout).expect("a definition");
        self.plane.install(&definition).await;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dispatcher/deploy");
        for file in [
            "namespace.yaml",
            "rbac.yaml",
            "networkpolicy.yaml",
            "cluster-access/rbac.yaml",
            "cluster-access/networkpolicy.yaml",
        ] {
            let text = std::fs::read_to_string(deploy.join(file)).expect("a manifest");
            for document in text.split("\n---\n") {
                self.apply(&serde_saphyr::from_str(document).expect("YAML")).await;
            }
        }
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "users"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "orchestrator-user"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "users"}],
        }))
        .await;
        // The real cluster has a controller that creates it in every namespace.
        self.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"},
            "data": {"ca.crt": self.plane.authority()},
        }))
        .await;
        for (name, key, value) in [
            ("github-pat-claude-agent-1", "token", &self.env.token),
            ("anthropic-api-key", "api-key", &self.env.key),
        ] {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}});
            let secret: Secret = serde_json::from_value(secret).expect("a secret");
            let secrets: Api<Secret> = Api::namespaced(self.plane.client(), NAMESPACE);
            secrets.create(&PostParams::default(), &secret).await.expect("a secret");
        }
    }

    /// Applies an object, like `kubectl apply --server-side -n orchestrator`.
    pub fn apply_object(&self, object: &Value) {
        self.runtime.block_on(self.apply(object));
    }

    async fn apply(&self, object: &Value) {
        let text = |name: &str| object[name].as_str().expect("every object has a kind").to_owned();
        let (group, version) = match text("apiVersion").split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text("apiVersion")),
        };
        let kind = kube::core::GroupVersionKind::gvk(&group, &version, &text("kind"));
        let resource = ApiResource::from_gvk(&kind);
        let client = self.plane.client();
        let api: Api<DynamicObject> = match text("kind").as_str() {
            "Namespace" | "ClusterRole" => Api::all_with(client, &resource),
            _ => Api::namespaced_with(client, NAMESPACE, &resource),
        };
        let name = object["metadata"]["name"].as_str().expect("a name");
        api.patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.expect("a valid object");
    }

    /// Starts a controller with the permissions of `dispatcher/deploy`.
    pub fn controller(&self) -> Controller {
        let kubeconfig = self.plane.kubeconfig_for_account(NAMESPACE, "orchestrator");
        let arguments =
            ["serve", "--controller", "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"];
        let mut command = self.command(&kubeconfig, &arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the dispatcher");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr was piped")).lines();
        let metrics = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let event: Value = serde_json::from_str(&line).ok()?;
            (event["message"] == "serving metrics").then(|| event["address"].as_str().map(str::to_owned))?
        });
        let Some(metrics) = metrics else { panic!("the controller ended with {:?}", child.wait()) };
        let log = self.folder.path().join(format!("controller-{}.log", child.id()));
        // Drains stderr, so that the pipe does not fill, and keeps it for failing tests.
        std::thread::spawn(move || {
            let mut file = std::fs::File::create(log).expect("a log");
            for line in lines.map_while(Result::ok) {
                std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).ok();
            }
        });
        Controller { child, metrics }
    }

    /// Returns a dispatcher command with a kubeconfig.
    pub fn command(&self, kubeconfig: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&Binaries::get().dispatcher);
        command.arg("--config").arg(self.config()).args(arguments).env_clear();
        for name in ["PATH", "HOME", "LANG"] {
            command.env(name, &self.env.environment()[name]);
        }
        command.env("KUBECONFIG", kubeconfig).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the dispatcher as a user who may submit.
    pub fn dispatcher(&self, arguments: &[&str]) -> CommandOutput {
        command::run(&mut self.command(&self.user_kubeconfig, arguments), TIMEOUT)
    }

    /// Starts an IDE session in a clone of `acme/platform`; the model plays `scripts`.
    pub fn ide_session(&self, scripts: impl Into<Scripts>) -> IdeSession {
        let configuration = self.config().display().to_string();
        let mut environment: BTreeMap<String, String> = ["PATH", "HOME", "LANG"]
            .map(|name| (name.to_owned(), self.env.environment()[name].clone()))
            .into();
        environment.insert("KUBECONFIG".to_owned(), self.user_kubeconfig.display().to_string());
        self.env.ide_session_with(&["--config", &configuration, "mcp"], &environment, scripts)
    }

    /// Submits a task and returns the run's name.
    pub fn submit(&self, service: &str, task: &str, more: &[&str]) -> String {
        let arguments = [&["submit", "--service", service, "--task", task, "-o", "json"], more].concat();
        let output = self.dispatcher(&arguments);
        let value: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        value["run"].as_str().unwrap_or_else(|| panic!("{output:?}")).to_owned()
    }

    /// Returns a TaskRun.
    pub fn run(&self, name: &str) -> Option<Value> {
        let api = self.runs();
        let found = self.runtime.block_on(api.get_opt(name)).expect("the API server answers");
        found.map(|object| serde_json::to_value(object).expect("JSON"))
    }

    fn runs(&self) -> Api<DynamicObject> {
        let kind = kube::core::GroupVersionKind::gvk("orchestrator.io", "v1alpha1", "TaskRun");
        Api::namespaced_with(self.client(), NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "taskruns"))
    }

    /// Returns a client of the administrator.
    pub fn client(&self) -> Client {
        let _inside = self.runtime.enter();
        self.plane.client()
    }

    /// Sends requests as a user who may submit.
    pub fn as_user<T>(&self, requests: impl AsyncFnOnce(Client) -> T) -> T {
        let client = {
            let _inside = self.runtime.enter();
            self.plane.client_for("user", &["users"])
        };
        self.runtime.block_on(requests(client))
    }

    /// Compacts the API server's history: watches must restart.
    pub fn expire(&self) {
        self.runtime.block_on(self.plane.expire());
    }

    /// Deletes the Lease, as if the time of a dead leader had passed.
    pub fn expire_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        let deleted =
            self.runtime.block_on(leases.delete("orchestrator-controller", &DeleteParams::default()));
        deleted.expect("there was a leader");
    }

    /// Deletes a TaskRun, like `kubectl delete`.
    pub fn delete(&self, name: &str) {
        let deleted = self.runtime.block_on(self.runs().delete(name, &DeleteParams::default()));
        deleted.expect("the API server deletes it");
    }

    /// Returns the phase of a pod.
    pub fn pod_phase(&self, name: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client(), NAMESPACE);
        let pod = self.runtime.block_on(pods.get(name)).expect("the pod");
        pod.status.and_then(|status| status.phase).unwrap_or_default()
    }

    /// Moves the end of a pod's containers into the past, by a duration in seconds.
    pub fn age_pod_end(&self, name: &str, seconds: i64) {
        let pods: Api<Pod> = Api::namespaced(self.client(), NAMESPACE);
        let pod = self.runtime.block_on(pods.get(name)).expect("the pod");
        let mut containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let states = containers.iter_mut().filter_map(|container| container.state.as_mut());
        for end in states.filter_map(|state| state.terminated.as_mut()) {
            let time = |time: Time| Time(time.0 - jiff::SignedDuration::from_secs(seconds));
            end.started_at = end.started_at.take().map(time);
            end.finished_at = end.finished_at.take().map(time);
        }
        let patch = Patch::Merge(json!({"status": {"containerStatuses": containers}}));
        let patched = self.runtime.block_on(pods.patch_status(name, &PatchParams::default(), &patch));
        patched.expect("the API server takes it");
    }

    /// Deletes a pod, like `kubectl delete pod`.
    pub fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client(), NAMESPACE);
        let deleted = self.runtime.block_on(pods.delete(name, &DeleteParams::default()));
        deleted.expect("the API server deletes it");
    }

    /// Deletes a Job and its pods, like `kubectl delete job`.
    pub fn delete_job(&self, name: &str) {
        let jobs: Api<Job> = Api::namespaced(self.client(), NAMESPACE);
        let deleted = self.runtime.block_on(jobs.delete(name, &DeleteParams::background()));
        deleted.expect("the API server deletes it");
    }

    /// Disconnects the node.
    pub fn lose_node(&self, processes: OnNodeLoss) {
        self.runtime.block_on(self.kubelet.lose(processes));
    }

    /// Patches a TaskRun.
    pub fn patch(&self, name: &str, patch: &Value) -> Result<(), String> {
        let patched =
            self.runtime.block_on(self.runs().patch(name, &PatchParams::default(), &Patch::Merge(patch)));
        patched.map(drop).map_err(|error| error.to_string())
    }

    /// Polls a TaskRun until `fits` holds.
    pub fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let explain = || format!("{name} is not {what}: {:#?}\n{}", self.run(name), self.logs());
        command::poll(LIMIT, explain, || self.run(name).filter(&fits))
    }

    /// Waits for a run to end and returns its status.
    pub fn end(&self, name: &str) -> Value {
        let ended = |run: &Value| run["status"]["reason"].is_string();
        self.until(name, "finished", ended)["status"].clone()
    }

    /// Polls until `look` returns a value.
    pub fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        command::poll(LIMIT, || format!("no {what}\n{}", self.logs()), look)
    }

    /// Returns all objects of a kind in the namespace.
    pub fn all<K>(&self) -> Vec<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client(), NAMESPACE);
        self.runtime.block_on(api.list(&ListParams::default())).expect("a list").items
    }

    /// Returns the names of all Jobs.
    pub fn jobs(&self) -> Vec<String> {
        self.all::<Job>().into_iter().filter_map(|job| job.metadata.name).collect()
    }

    /// Returns the names of all pods.
    pub fn pods(&self) -> Vec<String> {
        self.all::<Pod>().into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    /// Returns all objects but Secrets, and the controllers' logs, as text.
    pub fn everything_visible(&self) -> String {
        let runs = self.runtime.block_on(self.runs().list(&ListParams::default())).expect("a list").items;
        let all = [
            self.logs(),
            text(&runs),
            text(&self.all::<Job>()),
            text(&self.all::<Pod>()),
            text(&self.all::<ConfigMap>()),
            text(&self.all::<PersistentVolumeClaim>()),
        ];
        all.join("\n")
    }

    /// Returns the logs of all controllers.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("controller-"));
        logs.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect::<Vec<_>>().join("\n")
    }
}

/// Creates what an image has of ours and returns its program: it copies the directory above its own to the volume
/// from which the other containers start it.
fn program_of_image(folder: &Path) -> PathBuf {
    let directory = folder.join("image/bin");
    std::fs::create_dir_all(&directory).expect("a folder for the image");
    let program = directory.join("supervisor");
    let built = &Binaries::get().supervisor;
    if std::fs::hard_link(built, &program).is_err() {
        std::fs::copy(built, &program).expect("a copy on another file system");
    }
    program
}

/// Returns the variables that an image with a toolchain sets.
fn variables_of_image(env: &TestEnv) -> BTreeMap<String, String> {
    let ambient = env.environment();
    let set = ["PATH", "HOME", "LANG", "RUSTUP_HOME"].into_iter();
    set.filter_map(|name| Some((name.to_owned(), ambient.get(name)?.clone()))).collect()
}

fn text<T: serde::Serialize>(objects: &[T]) -> String {
    serde_json::to_string(objects).expect("JSON")
}

impl Controller {
    /// Kills the controller.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub fn process(&self) -> rustix::process::Pid {
        let number = i32::try_from(self.child.id()).expect("a process number");
        rustix::process::Pid::from_raw(number).expect("a process number")
    }

    /// Terminates the controller and waits for its exit.
    pub fn stop(&mut self) {
        rustix::process::kill_process(self.process(), rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
    }

    /// Returns whether it is the leader, from its metrics.
    pub fn leads(&self) -> bool {
        self.metric("orchestrator_leader") == Some(1.0)
    }

    /// Returns a metric without labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics_text()?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Returns the metrics in the Prometheus format.
    pub fn metrics_text(&self) -> Option<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&self.metrics).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}
