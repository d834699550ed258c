//! The objects of a run, made from its TaskRun alone: the same run always gets
//! the same objects.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::Resource as _;
use orchestrator_contract::secrets::{
    ANTHROPIC_API_KEY, API_KEY_KEY, BRAVE_API_KEY, GITHUB_TOKEN, KNOWN_HOSTS, KUBECONFIG, KUBERNETES_CA,
    KUBERNETES_TOKEN, PLATFORM_TOKEN, SSH_KEY, TOKEN_KEY,
};
use orchestrator_contract::{RepositoryUrl, ServiceName, TaskSpec, budget, variables};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::crd::{TaskRun, labels};
use crate::config::kubernetes::{AccessMode, KubernetesSettings, PullPolicy};

/// Who writes these objects.
pub const FIELD_MANAGER: &str = "orchestrator-controller";

/// Keeps an ended pod until its outcome was read.
pub const POD_FINALIZER: &str = "orchestrator.io/outcome";

/// The container that the supervisor is.
pub const CONTAINER: &str = "supervisor";

/// How long a pod has to save and push what its agent made.
pub const TERMINATION_GRACE_PERIOD_SECONDS: i64 = budget::POD_TERMINATION_GRACE_PERIOD_SECONDS as i64;

/// Where the task is mounted.
const TASK_FOLDER: &str = "/etc/orchestrator";

/// Where the secrets are mounted: out of the agent's reach.
const SECRETS_FOLDER: &str = "/run/secrets/orchestrator";

/// The ConfigMap with the API server's authority, which every namespace has:
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#root-ca-certificate-publisher>.
const ROOT_CA_CONFIGMAP: &str = "kube-root-ca.crt";

/// The longest life that is asked for a token. Kubelet replaces it after four fifths of that, or a day:
/// <https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken>.
const TOKEN_LIFETIME_SECONDS: i64 = 24 * 3600;

/// What else a run's container is told.
#[derive(Clone, Debug, Default)]
pub struct GitHostSettings {
    /// The address of the GitHub API, where it is not the public one.
    pub github_api_url: Option<String>,
    /// Hosts that the agent's tokens are for, besides those that the supervisor knows.
    pub git_hosts: Vec<String>,
}

/// The name of the ConfigMap that holds a run's task.
#[must_use]
pub fn task_configmap_name(run: &str) -> String {
    format!("{run}-task")
}

/// The name of the ConfigMap that keeps a run's outcome and log.
#[must_use]
pub fn result_name(run: &str) -> String {
    format!("{run}-result")
}

/// The name of a service's volume.
#[must_use]
pub fn pvc_name(service: &ServiceName) -> String {
    format!("workspace-{service}")
}

/// The labels that every object of a run carries: its identity.
#[must_use]
pub fn identity(run: &TaskRun) -> BTreeMap<String, String> {
    let spec = &run.spec;
    let mut all = BTreeMap::from([
        (labels::RUN.to_owned(), run.name().to_owned()),
        (labels::SERVICE.to_owned(), spec.service.to_string()),
        (labels::AGENT.to_owned(), spec.agent.to_string()),
        (labels::ATTEMPT.to_owned(), spec.attempt.to_string()),
        (labels::KIND.to_owned(), kind(run).to_owned()),
        ("app.kubernetes.io/name".to_owned(), "orchestrator-run".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "orchestrator".to_owned()),
    ]);
    if let Some(task) = spec.task_id {
        all.insert(labels::TASK.to_owned(), task.to_string());
    }
    all
}

fn kind(run: &TaskRun) -> &'static str {
    run.spec.kind.name()
}

fn metadata(run: &TaskRun, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": identity(run),
        "ownerReferences": [run.controller_owner_ref(&())],
    })
}

/// The volume of a run's service. It belongs to nobody: it outlives runs.
///
/// # Errors
/// A fault of this program.
pub fn build_pvc(
    run: &TaskRun,
    settings: &KubernetesSettings,
) -> Result<PersistentVolumeClaim, serde_json::Error> {
    let storage = &settings.storage;
    let mode = match storage.access_mode {
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteMany => "ReadWriteMany",
    };
    typed(json!({
        "metadata": {
            "name": pvc_name(&run.spec.service),
            "namespace": run.metadata.namespace,
            "labels": {
                labels::SERVICE: run.spec.service,
                "app.kubernetes.io/name": "orchestrator-workspace",
                "app.kubernetes.io/managed-by": "orchestrator",
            },
        },
        "spec": {
            "accessModes": [mode],
            "storageClassName": storage.class,
            "resources": {"requests": {"storage": storage.size}},
        },
    }))
}

/// The ConfigMap with what the supervisor is asked to do, guidance and all.
///
/// # Errors
/// A fault of this program.
pub fn build_task_configmap(
    run: &TaskRun,
    task: &TaskSpec,
    settings: &KubernetesSettings,
) -> Result<ConfigMap, serde_json::Error> {
    let mut data = Map::from_iter([("task.json".to_owned(), serde_json::to_string_pretty(task)?.into())]);
    if let Some(account) = settings.cluster_access.get(&run.spec.service) {
        data.insert(KUBECONFIG.to_owned(), kubeconfig(run, account, settings).to_string().into());
    }
    typed(json!({
        "metadata": metadata(run, &task_configmap_name(run.name())),
        "immutable": true,
        "data": data,
    }))
}

/// How the MCP server `kubernetes` reaches the cluster; JSON is YAML.
fn kubeconfig(run: &TaskRun, account: &str, settings: &KubernetesSettings) -> Value {
    // It would look for others in the folder that it is started in.
    let absolute = |file: &str| format!("{SECRETS_FOLDER}/{file}");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": {
            "server": settings.api_server, "certificate-authority": absolute(KUBERNETES_CA),
        }}],
        "users": [{"name": account, "user": {"tokenFile": absolute(KUBERNETES_TOKEN)}}],
        "contexts": [{"name": "cluster", "context": {
            "cluster": "cluster", "user": account, "namespace": run.metadata.namespace,
        }}],
    })
}

/// The Job that performs a run.
///
/// # Errors
/// A fault of this program.
pub fn build_job(
    run: &TaskRun,
    task: &TaskSpec,
    settings: &KubernetesSettings,
    surroundings: &GitHostSettings,
) -> Result<Job, serde_json::Error> {
    let mut template = identity(run);
    template.insert("app.kubernetes.io/component".to_owned(), "agent".to_owned());
    if settings.cluster_access.contains_key(&run.spec.service) {
        template.insert(labels::CLUSTER_ACCESS.to_owned(), "true".to_owned());
    }
    let deadline = deadline_seconds(task, settings);
    typed(json!({
        "metadata": metadata(run, run.name()),
        "spec": {
            // Agent runs cost money: nothing is tried again without a person.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": deadline,
            "template": {
                "metadata": {
                    "labels": template,
                    "annotations": {
                        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                        "karpenter.sh/do-not-disrupt": "true",
                        "kubectl.kubernetes.io/default-container": CONTAINER,
                    },
                    "finalizers": [POD_FINALIZER],
                },
                "spec": build_pod(run, settings, surroundings, deadline),
            },
        },
    }))
}

/// Above everything that the supervisor may take, so that it is the one that ends the run.
fn deadline_seconds(task: &TaskSpec, settings: &KubernetesSettings) -> i64 {
    let limits = &task.limits;
    let minutes = limits.timeout_minutes + limits.queue_minutes + settings.scheduling_timeout_minutes;
    #[expect(clippy::cast_possible_truncation, reason = "limits are at most a week each")]
    let seconds = (minutes * 60.0).ceil() as i64;
    seconds
        + i64::from(budget::IMAGE_PULL_SECONDS + budget::PUBLISH_SECONDS)
        + TERMINATION_GRACE_PERIOD_SECONDS
}

fn build_pod(
    run: &TaskRun,
    settings: &KubernetesSettings,
    surroundings: &GitHostSettings,
    deadline_seconds: i64,
) -> Value {
    let access = settings.cluster_access.get(&run.spec.service);
    let mut sources = secrets(run, settings);
    if access.is_some() {
        sources.extend(cluster_access(run, deadline_seconds));
    }
    let image = run.spec.image.as_ref().or(settings.image.as_ref());
    let tolerations: Vec<Value> =
        settings.tolerations.iter().filter_map(|table| serde_json::to_value(table).ok()).collect();
    json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": TERMINATION_GRACE_PERIOD_SECONDS,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "serviceAccountName": access.or(settings.service_account.as_ref()),
        "priorityClassName": settings.priority_class,
        "runtimeClassName": settings.runtime_class,
        "nodeSelector": optional(settings.node_selector.clone()),
        "tolerations": if tolerations.is_empty() { Value::Null } else { tolerations.into() },
        "imagePullSecrets": settings.image_pull_secrets.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": settings.user,
            "runAsGroup": 0,
            "fsGroup": settings.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": CONTAINER,
            "image": image,
            "imagePullPolicy": settings.image_pull_policy.map(|policy| match policy {
                PullPolicy::Always => "Always",
                PullPolicy::IfNotPresent => "IfNotPresent",
                PullPolicy::Never => "Never",
            }),
            "args": arguments(),
            "env": environment(settings, surroundings),
            "resources": resources(settings),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            },
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": "workspace", "mountPath": "/workspace"},
                {"name": "task", "mountPath": TASK_FOLDER, "readOnly": true},
                {"name": "secrets", "mountPath": SECRETS_FOLDER, "readOnly": true},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": pvc_name(&run.spec.service)}},
            {"name": "task", "configMap": {"name": task_configmap_name(run.name())}},
            {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}},
            {"name": "tmp", "emptyDir": {}},
        ],
    })
}

/// The supervisor's arguments: the image knows the rest.
#[must_use]
pub fn arguments() -> Vec<String> {
    let task = format!("{TASK_FOLDER}/task.json");
    ["run", "--task-file", &task, "--workspace", "/workspace", "--log-format", "json"]
        .map(str::to_owned)
        .into()
}

fn optional(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Variables that are no secrets.
fn environment(settings: &KubernetesSettings, surroundings: &GitHostSettings) -> Vec<Value> {
    let mut all = settings.environment.clone();
    all.insert(variables::SECRETS_DIR.to_owned(), SECRETS_FOLDER.to_owned());
    // It tells how it ended before it is killed. The operator may give it less time.
    all.entry(variables::STOP_TIMEOUT_SECONDS.to_owned())
        .or_insert_with(|| budget::POD_STOP_TIMEOUT_SECONDS.to_string());
    if let Some(url) = &surroundings.github_api_url {
        all.insert(variables::GITHUB_API_URL.to_owned(), url.clone());
    }
    if !surroundings.git_hosts.is_empty() {
        all.insert(variables::GIT_HOSTS.to_owned(), surroundings.git_hosts.join(","));
    }
    all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn resources(settings: &KubernetesSettings) -> Value {
    let asked = &settings.resources;
    let mut limits = Map::from_iter(
        [("ephemeral-storage", &asked.ephemeral_storage), ("memory", &asked.memory)]
            .map(|(name, value)| (name.to_owned(), Value::from(value.as_str()))),
    );
    let mut requests = limits.clone();
    requests.insert("cpu".to_owned(), asked.cpu.as_str().into());
    if let Some(cpu) = &asked.cpu_limit {
        limits.insert("cpu".to_owned(), cpu.as_str().into());
    }
    json!({"limits": limits, "requests": requests})
}

/// The secrets as files, under the names that the supervisor knows. All are optional: the supervisor
/// says which one is missing for the repositories at hand.
fn secrets(run: &TaskRun, settings: &KubernetesSettings) -> Vec<Value> {
    let names = &settings.secret_names;
    let own = |name: &str| name.replace("{agent}", run.spec.agent.as_str());
    let source = |name: &str, items: &[(&str, &str)]| {
        let items: Vec<Value> = items.iter().map(|(key, path)| json!({"key": key, "path": path})).collect();
        let items = if items.is_empty() { Value::Null } else { items.into() };
        json!({"secret": {"name": own(name), "optional": true, "items": items}})
    };
    let over_ssh = [&run.spec.target.url, &run.spec.platform.url].into_iter().any(is_ssh);
    let mut all = vec![
        source(&names.extra, &[]),
        source(&names.github, &[(TOKEN_KEY, GITHUB_TOKEN)]),
        source(&names.platform, &[(TOKEN_KEY, PLATFORM_TOKEN)]),
        source(&names.anthropic, &[(API_KEY_KEY, ANTHROPIC_API_KEY)]),
        source(&names.brave, &[(API_KEY_KEY, BRAVE_API_KEY)]),
    ];
    if over_ssh {
        let items = [(SSH_KEY, SSH_KEY), (KNOWN_HOSTS, KNOWN_HOSTS)];
        all.push(source(&names.ssh, &items));
    }
    all
}

/// What the MCP server `kubernetes` needs. The token is for this pod only, and dies with it; the agent
/// cannot read it, and has no other.
fn cluster_access(run: &TaskRun, deadline_seconds: i64) -> [Value; 3] {
    // A pod whose ConfigMap is older than the permission begins without it, instead of never.
    let file = |map: &str, key: &str, path: &str| json!({"configMap": {"name": map, "items": [{"key": key, "path": path}], "optional": true}});
    let lifetime = deadline_seconds.min(TOKEN_LIFETIME_SECONDS);
    [
        file(&task_configmap_name(run.name()), KUBECONFIG, KUBECONFIG),
        file(ROOT_CA_CONFIGMAP, "ca.crt", KUBERNETES_CA),
        json!({"serviceAccountToken": {"path": KUBERNETES_TOKEN, "expirationSeconds": lifetime}}),
    ]
}

fn is_ssh(url: &RepositoryUrl) -> bool {
    url.transport() == orchestrator_contract::names::Transport::Ssh
}

/// Reads an object; what is null was not given.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests;
