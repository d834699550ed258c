//! Settings of the kubernetes backend.

use std::collections::BTreeMap;

use orchestrator_contract::ServiceName;
use orchestrator_contract::containers::AGENT_UID;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Error;
use crate::task::image::ImageReference;
use crate::task::image_pattern::ImagePattern;

/// Settings of the kubernetes backend. The command line and the MCP server need `namespace` and
/// `context` only; the controller uses the rest.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// Context of the kubeconfig (default: its current context). Not used in a pod.
    pub context: Option<String>,
    /// Namespace of TaskRuns and of all objects created for them.
    pub namespace: String,
    /// Image of the supervisor, which gets the Secrets; also that of agents of services without their own `image`.
    /// The controller requires it.
    pub image: Option<ImageReference>,
    /// Images that a TaskRun may name for its agent, beside those that this configuration names: `ghcr.io/acme/*`
    /// (everything below), `ghcr.io/acme/agent` (any tag or digest), or a full reference (default: none).
    pub allowed_images: Vec<ImagePattern>,
    /// Services that a TaskRun may name (default: all). A service's name opens its workspace, and its cluster
    /// access.
    pub allowed_services: Option<Vec<ServiceName>>,
    /// Pull policy of all images of a run (default: that of Kubernetes).
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of the Secrets with registry credentials.
    pub image_pull_secrets: Vec<String>,
    /// Volume to create for a service that has none.
    pub storage: StorageSettings,
    /// Resources of the agent's container, and limits of that of verify commands.
    pub resources: ResourceSettings,
    /// Resources of the supervisor's container, in which MCP servers run too.
    pub supervisor_resources: SupervisorResources,
    /// Maximum number of active runs; further runs are queued.
    pub max_concurrent_runs: u32,
    /// Minutes until a run that fits on no node fails.
    pub scheduling_timeout_minutes: f64,
    /// Minutes to keep a Job and its pod after its outcome and log were copied.
    pub ttl_minutes_after_finished: f64,
    /// Numeric user of the supervisor, and `fsGroup` of the volumes.
    pub user: i64,
    /// Numeric user of the agent, its setup commands and verify commands; another one than `user`.
    pub agent_user: i64,
    /// Service account of the pods; its token is not mounted.
    pub service_account: Option<String>,
    /// Priority class of the pods.
    pub priority_class: Option<String>,
    /// Runtime class of the pods, such as that of gVisor.
    pub runtime_class: Option<String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods, as in a pod's spec.
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    pub tolerations: Vec<toml::Table>,
    /// Environment variables of the supervisor, such as `HTTPS_PROXY` or `CLAUDE_CODE_USE_BEDROCK`.
    /// Not for secrets: everyone who may read a Job can read them.
    pub environment: BTreeMap<String, String>,
    /// Names of the Secrets with credentials; `{agent}` is replaced by the agent's name.
    pub secret_names: SecretNames,
    /// Services whose agents may read the cluster through the MCP server `kubernetes`, each with the
    /// service account that they use. RBAC decides what they can read. Their pods run as that account
    /// instead of `service_account` (default: none).
    pub cluster_access: BTreeMap<ServiceName, String>,
    /// URL of the API server for these agents.
    pub api_server: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum PullPolicy {
    /// On every start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

/// Volume to create for a service that has none.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// Size, as a Kubernetes quantity.
    pub size: String,
    /// Storage class (default: the cluster's default class).
    pub class: Option<String>,
    /// Access mode; `ReadWriteOncePod` is the safest if the driver supports it.
    pub access_mode: AccessMode,
}

/// Which pods may use a volume concurrently.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum AccessMode {
    /// One pod.
    ReadWriteOncePod,
    /// All pods of one node.
    ReadWriteOnce,
    /// All pods.
    ReadWriteMany,
}

/// Resource requests and limits of a container, as Kubernetes quantities.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceSettings {
    /// CPU request.
    pub cpu: String,
    /// CPU limit (default: none, since a limit slows builds even on idle nodes).
    pub cpu_limit: Option<String>,
    /// Memory request and limit.
    pub memory: String,
    /// Ephemeral storage request and limit, for `/tmp` and similar.
    pub ephemeral_storage: String,
}

/// Resource requests and limits of the supervisor's container, as Kubernetes quantities.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisorResources {
    /// CPU request.
    pub cpu: String,
    /// CPU limit (default: none).
    pub cpu_limit: Option<String>,
    /// Memory request and limit, for git and MCP servers.
    pub memory: String,
    /// Ephemeral storage request and limit, for `/tmp` and the log.
    pub ephemeral_storage: String,
}

/// Names of the Secrets with credentials; `{agent}` is replaced by the agent's name.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SecretNames {
    /// Token for the target repository, in key `token`.
    pub github: String,
    /// Token for the platform repository, if it needs another one, in key `token`.
    pub platform: String,
    /// SSH key in `ssh-privatekey`, and optional `known_hosts`.
    pub ssh: String,
    /// Anthropic API key, in key `api-key`.
    pub anthropic: String,
    /// Brave Search API key, in key `api-key`.
    pub brave: String,
    /// Secrets of other MCP servers, by key.
    pub extra: String,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            context: None,
            namespace: "orchestrator".to_owned(),
            image: None,
            allowed_images: Vec::new(),
            allowed_services: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            storage: StorageSettings::default(),
            resources: ResourceSettings::default(),
            supervisor_resources: SupervisorResources::default(),
            max_concurrent_runs: 10,
            // Long enough for a cluster to add a node.
            scheduling_timeout_minutes: 15.0,
            ttl_minutes_after_finished: 60.0,
            user: 10001,
            agent_user: i64::from(AGENT_UID),
            service_account: None,
            priority_class: None,
            runtime_class: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            environment: BTreeMap::new(),
            secret_names: SecretNames::default(),
            cluster_access: BTreeMap::new(),
            // The API server's name in every cluster: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>.
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

impl Default for SupervisorResources {
    fn default() -> Self {
        Self {
            cpu: "250m".to_owned(),
            cpu_limit: None,
            memory: "2Gi".to_owned(),
            ephemeral_storage: "2Gi".to_owned(),
        }
    }
}

impl KubernetesSettings {
    /// Returns the image of the supervisor, with the settings that the controller requires.
    ///
    /// # Errors
    /// Returns an error if the image is missing, or if the agent would have the supervisor's user.
    pub fn supervisor_image(&self) -> Result<&ImageReference, Error> {
        if self.agent_user == self.user || self.agent_user == 0 || self.user == 0 {
            let Self { user, agent_user, .. } = self;
            return Err(Error::configuration(format!(
                "`user` ({user}) and `agent_user` ({agent_user}) in [kubernetes] must be two users, and not root"
            ))
            .with_hint("Remove both keys to use the defaults, 10001 and 10002."));
        }
        self.image.as_ref().ok_or_else(|| {
            Error::configuration(
                "no image of the supervisor is configured; a service's own image never runs it",
            )
            .with_hint("Set `image` in [kubernetes] of the controller's configuration.")
        })
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
