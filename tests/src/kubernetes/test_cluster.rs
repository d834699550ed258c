//! A team's cluster: a control plane with everything of `dispatcher/deploy` in it, a node, and a world of
//! repositories and a model around it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{ControlPlane, Kubelet};
use crate::binaries::Binaries;
use crate::ide_session::IdeSession;
use crate::messages_api::Scripts;
use crate::projects;
use crate::test_env::{CommandOutput, TestEnv};

/// The namespace of everything.
pub const NAMESPACE: &str = "orchestrator";

/// The controller's user.
pub const CONTROLLER: &str = "system:serviceaccount:orchestrator:orchestrator";

/// The agent image's name; the node runs the supervisor of this build for it.
const IMAGE: &str = "registry.example/agent:1";

/// Longest that a command may take, seconds.
const LONGEST: &str = "180";

/// How long a run has to save and push when it is stopped: less than whoever waits for it has patience.
const STOP_SECONDS: u32 = 15;

/// Longest that anything of a test may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A team's cluster. The order of the fields is the order of their end.
pub struct TestCluster {
    /// The node.
    pub kubelet: Kubelet,
    /// The control plane.
    pub plane: ControlPlane,
    /// Repositories, GitHub and the model.
    pub world: TestEnv,
    runtime: tokio::runtime::Runtime,
    /// The kubeconfig of somebody who may submit.
    lead: PathBuf,
    /// Configuration and logs: not in the world's folder, whose processes are those of runs.
    folder: tempfile::TempDir,
}

/// A `dispatcher serve --controller`; killed when dropped.
pub struct Controller {
    child: Child,
    /// Where it tells its metrics.
    pub metrics: String,
}

impl TestCluster {
    /// A cluster where everything is installed, and nobody looks after runs yet.
    pub fn start(scripts: impl Into<Scripts>) -> Self {
        Self::with(scripts, "")
    }

    /// The same with more lines in the section `[kubernetes]` of the configuration.
    pub fn with(scripts: impl Into<Scripts>, settings: &str) -> Self {
        let mut world = TestEnv::start(scripts);
        // The other service has a repository of its own.
        let files = projects::order_book();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        world.git.create("acme/auth", "main", &files);
        world.remember_refs();
        let plane = ControlPlane::start();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let kubelet = Kubelet::start(&plane);
        kubelet.program(IMAGE, &Binaries::get().supervisor);
        let folder = tempfile::Builder::new().prefix("team-").tempdir().expect("a folder");
        let lead = plane.kubeconfig_for("lead", &["leads"]);
        let team = Self { kubelet, plane, world, runtime, lead, folder };
        std::fs::write(team.config(), team.configuration(settings)).expect("a configuration");
        team.runtime.block_on(team.install());
        team
    }

    /// The configuration file of everybody.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("orchestrator.toml")
    }

    fn configuration(&self, settings: &str) -> String {
        let ambient = self.world.environment();
        // What the agent image would bring along, and where the model is.
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
            self.world.github.url(),
            self.world.git.url("acme/platform"),
            self.world.git.url("acme/trader"),
            self.world.git.url("acme/auth"),
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
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "leads"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "orchestrator-user"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "leads"}],
        }))
        .await;
        // Controllers that are not played put it into every namespace.
        self.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"},
            "data": {"ca.crt": self.plane.authority()},
        }))
        .await;
        for (name, key, value) in [
            ("github-pat-claude-agent-1", "token", &self.world.token),
            ("anthropic-api-key", "api-key", &self.world.key),
        ] {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}});
            let secret: Secret = serde_json::from_value(secret).expect("a secret");
            let secrets: Api<Secret> = Api::namespaced(self.plane.client(), NAMESPACE);
            secrets.create(&PostParams::default(), &secret).await.expect("a secret");
        }
    }

    /// Applies an object, as `kubectl apply --server-side -n orchestrator` does.
    pub fn give(&self, object: &Value) {
        self.runtime.block_on(self.apply(object));
    }

    async fn apply(&self, object: &Value) {
        let text = |name: &str| object[name].as_str().expect("every object says what it is").to_owned();
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

    /// Starts a controller with the rights of `dispatcher/deploy`.
    pub fn controller(&self) -> Controller {
        let kubeconfig = self.plane.kubeconfig_for_account(NAMESPACE, "orchestrator");
        let arguments =
            ["serve", "--controller", "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"];
        let mut command = self.command(&kubeconfig, &arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the dispatcher");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr was piped")).lines();
        let metrics = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let event: Value = serde_json::from_str(&line).ok()?;
            (event["message"] == "metrics").then(|| event["address"].as_str().map(str::to_owned))?
        });
        let Some(metrics) = metrics else { panic!("the controller ended with {:?}", child.wait()) };
        let log = self.folder.path().join(format!("controller-{}.log", child.id()));
        // What it says later must not fill the pipe, and is worth a look when a test fails.
        std::thread::spawn(move || {
            let mut file = std::fs::File::create(log).expect("a log");
            for line in lines.map_while(Result::ok) {
                std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).ok();
            }
        });
        Controller { child, metrics }
    }

    /// A dispatcher with a kubeconfig.
    pub fn command(&self, kubeconfig: &Path, arguments: &[&str]) -> Command {
        self.give_surroundings(Command::new(&Binaries::get().dispatcher), kubeconfig, arguments)
    }

    fn give_surroundings(&self, mut command: Command, kubeconfig: &Path, arguments: &[&str]) -> Command {
        command.arg("--config").arg(self.config()).args(arguments).env_clear();
        for name in ["PATH", "HOME", "LANG"] {
            command.env(name, &self.world.environment()[name]);
        }
        command.env("KUBECONFIG", kubeconfig).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the dispatcher as somebody who may submit.
    pub fn lead(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg(LONGEST).arg(&Binaries::get().dispatcher);
        let output = self.give_surroundings(command, &self.lead, arguments).output().expect("the dispatcher");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        CommandOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The tech lead's IDE in a clone of `acme/platform`; its model plays `scripts`.
    pub fn ide(&self, scripts: impl Into<Scripts>) -> IdeSession {
        let configuration = self.config().display().to_string();
        let mut environment: BTreeMap<String, String> = ["PATH", "HOME", "LANG"]
            .map(|name| (name.to_owned(), self.world.environment()[name].clone()))
            .into();
        environment.insert("KUBECONFIG".to_owned(), self.lead.display().to_string());
        self.world.lead_with(&["--config", &configuration, "mcp"], &environment, scripts)
    }

    /// Submits a task and gives the run's name.
    pub fn submit(&self, service: &str, task: &str, more: &[&str]) -> String {
        let arguments = [&["submit", "--service", service, "--task", task, "-o", "json"], more].concat();
        let ran = self.lead(&arguments);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
        value["run"].as_str().unwrap_or_else(|| panic!("{ran:?}")).to_owned()
    }

    /// The TaskRun of a name.
    pub fn run(&self, name: &str) -> Option<Value> {
        let api = self.runs();
        let found = self.runtime.block_on(api.get_opt(name)).expect("the API server answers");
        found.map(|object| serde_json::to_value(object).expect("JSON"))
    }

    fn runs(&self) -> Api<DynamicObject> {
        let kind = kube::core::GroupVersionKind::gvk("orchestrator.io", "v1alpha1", "TaskRun");
        Api::namespaced_with(self.client(), NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "taskruns"))
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        let _inside = self.runtime.enter();
        self.plane.client()
    }

    /// Lets the API server forget its history: watches have to be made anew.
    pub fn expire(&self) {
        self.runtime.block_on(self.plane.expire());
    }

    /// As if the time of a dead leader's Lease were over.
    pub fn expire_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        let deleted =
            self.runtime.block_on(leases.delete("orchestrator-controller", &DeleteParams::default()));
        deleted.expect("there was a leader");
    }

    /// Deletes a TaskRun, as `kubectl delete` does.
    pub fn delete(&self, name: &str) {
        let deleted = self.runtime.block_on(self.runs().delete(name, &DeleteParams::default()));
        deleted.expect("the API server deletes it");
    }

    /// Changes the specification of a TaskRun.
    pub fn patch(&self, name: &str, patch: &Value) -> Result<(), String> {
        let patched =
            self.runtime.block_on(self.runs().patch(name, &PatchParams::default(), &Patch::Merge(patch)));
        patched.map(drop).map_err(|error| error.to_string())
    }

    /// Waits until the TaskRun fits, and gives it.
    pub fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let run = self.run(name);
            if let Some(run) = run.as_ref().filter(|run| fits(run)) {
                return run.clone();
            }
            assert!(Instant::now() < end, "{name} is not {what}: {run:#?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until a run has ended, and gives its status.
    pub fn end(&self, name: &str) -> Value {
        let ended = |run: &Value| run["status"]["reason"].is_string();
        self.until(name, "over", ended)["status"].clone()
    }

    /// Waits until a question about the cluster has an answer.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "no {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// All objects of a kind in the namespace.
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

    /// The names of all Jobs.
    pub fn jobs(&self) -> Vec<String> {
        self.all::<Job>().into_iter().filter_map(|job| job.metadata.name).collect()
    }

    /// The names of all pods.
    pub fn pods(&self) -> Vec<String> {
        self.all::<Pod>().into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    /// Every text that anybody with rights to look can see: all objects but Secrets, and the log of the
    /// controllers.
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

    /// What the controllers have logged.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("controller-"));
        logs.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect::<Vec<_>>().join("\n")
    }
}

fn text<T: serde::Serialize>(objects: &[T]) -> String {
    serde_json::to_string(objects).expect("JSON")
}

impl Controller {
    /// Kills it, as a node that dies does.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Its process, for who kills it from elsewhere.
    pub fn process(&self) -> rustix::process::Pid {
        let number = i32::try_from(self.child.id()).expect("a process number");
        rustix::process::Pid::from_raw(number).expect("a process number")
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        rustix::process::kill_process(self.process(), rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
    }

    /// Whether it leads, by its own metrics.
    pub fn leads(&self) -> bool {
        self.metric("orchestrator_leader") == Some(1.0)
    }

    /// A figure that it tells without labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics_text()?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// All that it tells of itself, as Prometheus gets it.
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
