//! How runs run in a cluster.

use std::collections::BTreeMap;

use orchestrator_contract::ServiceName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::task::image::ImageReference;

/// How runs run in a cluster. The command line and the MCP server need `namespace` and `context`
/// only; the rest is the controller's.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// The context of the kubeconfig: its current one if not given. In a pod its service account is used.
    pub context: Option<String>,
    /// The namespace of TaskRuns and of everything made for them.
    pub namespace: String,
    /// The agent image of services that name no other.
    pub image: Option<ImageReference>,
    /// When images are pulled.
    pub image_pull_policy: Option<PullPolicy>,
    /// The Secrets that hold the credentials of image registries.
    pub image_pull_secrets: Vec<String>,
    /// The volume of a service that has none yet.
    pub storage: StorageSettings,
    /// What a run's container asks for and may use.
    pub resources: ResourceSettings,
    /// How many runs are at work at once; the others wait.
    pub max_concurrent_runs: u32,
    /// Minutes until a run that no node has room for is given up.
    pub scheduling_timeout_minutes: f64,
    /// Minutes for which a Job and its pod are kept once outcome and log have been copied.
    pub ttl_minutes_after_finished: f64,
    /// The user that the container runs as; `fsGroup` of its volumes too.
    pub user: i64,
    /// The service account of the pods: it is given no token.
    pub service_account: Option<String>,
    /// The priority of the pods.
    pub priority_class: Option<String>,
    /// The container runtime of the pods, such as gVisor's.
    pub runtime_class: Option<String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate, as in a pod's specification.
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    pub tolerations: Vec<toml::Table>,
    /// Variables of the container, such as `HTTPS_PROXY`, or `CLAUDE_CODE_USE_BEDROCK`. No secrets: these
    /// are readable for everybody who may read a Job.
    pub environment: BTreeMap<String, String>,
    /// The names of Secrets; `{agent}` stands for who works.
    pub secret_names: SecretNames,
    /// Services whose agents may look at the cluster, and the service account that they do it as:
    /// what RBAC allows it, they can read through the MCP server `kubernetes`. Their pods run as that
    /// account, instead of `service_account`. None if not given.
    pub cluster_access: BTreeMap<ServiceName, String>,
    /// The address of the API server for those agents.
    pub api_server: String,
}

/// When images are pulled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// Where the node has none.
    IfNotPresent,
    /// Never.
    Never,
}

/// The volume of a service that has none yet.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// Its size, as Kubernetes writes quantities.
    pub size: String,
    /// Its storage class: the cluster's default if not given.
    pub class: Option<String>,
    /// Its access mode. `ReadWriteOncePod` is the safest, where the driver can.
    pub access_mode: AccessMode,
}

/// Who may use a volume at once.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum AccessMode {
    /// One pod.
    ReadWriteOncePod,
    /// One node.
    ReadWriteOnce,
    /// Everybody.
    ReadWriteMany,
}

/// What a run's container asks for and may use, as Kubernetes writes quantities.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceSettings {
    /// The cpu that is asked for.
    pub cpu: String,
    /// The cpu that may be used: no limit if not given, since a limit slows builds even on idle nodes.
    pub cpu_limit: Option<String>,
    /// The memory that is asked for and may be used.
    pub memory: String,
    /// The space of the node's disk, for `/tmp` and the like.
    pub ephemeral_storage: String,
}

/// The names of Secrets; `{agent}` stands for who works.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SecretNames {
    /// Key `token`: the token for the target repository.
    pub github: String,
    /// Key `token`: the token for the platform repository, where it needs another.
    pub platform: String,
    /// Key `ssh-privatekey`, and `known_hosts` if there are any: for repositories over SSH.
    pub ssh: String,
    /// Key `api-key`: the key of the model's service.
    pub anthropic: String,
    /// Key `api-key`: the key of the Brave search API.
    pub brave: String,
    /// All keys: what other MCP servers ask for.
    pub extra: String,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            context: None,
            namespace: "orchestrator".to_owned(),
            image: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            storage: StorageSettings::default(),
            resources: ResourceSettings::default(),
            max_concurrent_runs: 10,
            // Long enough for a cluster to add a node.
            scheduling_timeout_minutes: 15.0,
            ttl_minutes_after_finished: 60.0,
            user: 10001,
            service_account: None,
            priority_class: None,
            runtime_class: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            environment: BTreeMap::new(),
            secret_names: SecretNames::default(),
            cluster_access: BTreeMap::new(),
            // Its name in every cluster: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>.
            api_server: "https://kubernetes.default.svc".to_owned(),
        }
    }
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self { size: "20Gi".to_owned(), class: None, access_mode: AccessMode::ReadWriteOnce }
    }
}

impl Default for ResourceSettings {
    fn default() -> Self {
        Self {
            cpu: "1".to_owned(),
            cpu_limit: None,
            memory: "6Gi".to_owned(),
            ephemeral_storage: "10Gi".to_owned(),
        }
    }
}

impl Default for SecretNames {
    fn default() -> Self {
        let own = |name: &str| name.to_owned();
        Self {
            github: own("github-pat-{agent}"),
            platform: own("github-pat-{agent}-platform"),
            ssh: own("github-ssh-{agent}"),
            anthropic: own("anthropic-api-key"),
            brave: own("brave-api-key"),
            extra: own("orchestrator-secrets"),
        }
    }
}
