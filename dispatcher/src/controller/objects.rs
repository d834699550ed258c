//! Builds the objects of a run. Pure: the same TaskRun and settings give the same objects.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::Resource as _;
use orchestrator_contract::names::Transport;
use orchestrator_contract::secrets::{
    ANTHROPIC_API_KEY, API_KEY_KEY, BRAVE_API_KEY, GITHUB_TOKEN, KNOWN_HOSTS, KUBECONFIG, KUBERNETES_CA,
    KUBERNETES_TOKEN, PLATFORM_TOKEN, SSH_KEY, TOKEN_KEY,
};
use orchestrator_contract::{RepositoryUrl, TaskSpec, budget, variables};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::config::SandboxMode;
use crate::config::kubernetes::{AccessMode, KubernetesSettings, PullPolicy};
use crate::taskrun::container::{CONTAINER, TASK_DIR, arguments};
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::{labels, pvc_name, run_labels, task_configmap_name};

/// Finalizer of a pod; the controller removes it once it has read the outcome.
pub const POD_FINALIZER: &str = "orchestrator.io/outcome";

/// Seconds between SIGTERM and SIGKILL, in which the supervisor saves and pushes the work.
pub const TERMINATION_GRACE_PERIOD_SECONDS: i64 = budget::POD_TERMINATION_GRACE_PERIOD_SECONDS as i64;

/// Directory where the secrets are mounted; the agent cannot read it.
const SECRETS_DIR: &str = "/run/secrets/orchestrator";

/// ConfigMap with the CA certificate of the API server, which exists in every namespace:
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#root-ca-certificate-publisher>.
const ROOT_CA_CONFIGMAP: &str = "kube-root-ca.crt";

/// Maximum requested lifetime of a token; the kubelet rotates it after 80 % of that or 24 hours:
/// <https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken>.
const TOKEN_LIFETIME_SECONDS: i64 = 24 * 3600;

/// Settings of git hosts and of the sandbox that the container gets as environment variables.
#[derive(Clone, Debug, Default)]
pub struct GitHostSettings {
    /// URL of the GitHub API; defaults to the public one.
    pub github_api_url: Option<String>,
    /// Additional hosts that the tokens of the agent are valid for.
    pub git_hosts: Vec<String>,
    /// Whether runs need a sandbox.
    pub sandbox: Option<SandboxMode>,
}

fn metadata(run: &TaskRun, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": run_labels(run),
        "ownerReferences": [run.controller_owner_ref(&())],
    })
}

/// Builds the workspace PVC of a service. It has no owner reference, since it outlives runs.
///
/// # Errors
/// Returns an error if the object is not valid JSON for its type, which is a bug.
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

/// Builds the ConfigMap with the task spec and, with cluster access, a kubeconfig.
///
/// # Errors
/// Returns an error if the object is not valid JSON for its type, which is a bug.
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

/// Renders the kubeconfig of the MCP server `kubernetes`, as JSON, which is valid YAML.
fn kubeconfig(run: &TaskRun, account: &str, settings: &KubernetesSettings) -> Value {
    // Relative paths would resolve against the working directory of the server.
    let absolute = |file: &str| format!("{SECRETS_DIR}/{file}");
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

/// Builds the Job of a run.
///
/// # Errors
/// Returns an error if the object is not valid JSON for its type, which is a bug.
pub fn build_job(
    run: &TaskRun,
    task: &TaskSpec,
    settings: &KubernetesSettings,
    git: &GitHostSettings,
) -> Result<Job, serde_json::Error> {
    let mut template = run_labels(run);
    template.insert("app.kubernetes.io/component".to_owned(), "agent".to_owned());
    if settings.cluster_access.contains_key(&run.spec.service) {
        template.insert(labels::CLUSTER_ACCESS.to_owned(), "true".to_owned());
    }
    let deadline = deadline_seconds(task, settings);
    typed(json!({
        "metadata": metadata(run, run.name()),
        "spec": {
            // Agent runs cost money, so only users retry them.
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
                "spec": build_pod(run, settings, git, deadline),
            },
        },
    }))
}

/// Returns the deadline of the Job, above all timeouts of the supervisor, which must expire first.
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
    git: &GitHostSettings,
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
        "shareProcessNamespace": false,
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
            "env": environment(settings, git),
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
                {"name": "task", "mountPath": TASK_DIR, "readOnly": true},
                {"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": true},
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

fn optional(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Returns the environment variables; secrets are mounted as files instead.
fn environment(settings: &KubernetesSettings, git: &GitHostSettings) -> Vec<Value> {
    let mut all = settings.environment.clone();
    all.insert(variables::SECRETS_DIR.to_owned(), SECRETS_DIR.to_owned());
    // The supervisor must report the outcome before SIGKILL. Operators may set a shorter time.
    all.entry(variables::STOP_TIMEOUT_SECONDS.to_owned())
        .or_insert_with(|| budget::POD_STOP_TIMEOUT_SECONDS.to_string());
    if let Some(url) = &git.github_api_url {
        all.insert(variables::GITHUB_API_URL.to_owned(), url.clone());
    }
    if let Some(sandbox) = git.sandbox {
        all.insert(variables::SANDBOX.to_owned(), sandbox.name().to_owned());
    }
    if !git.git_hosts.is_empty() {
        all.insert(variables::GIT_HOSTS.to_owned(), git.git_hosts.join(","));
    }
    all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn resources(settings: &KubernetesSettings) -> Value {
    let configured = &settings.resources;
    let mut limits = Map::from_iter(
        [("ephemeral-storage", &configured.ephemeral_storage), ("memory", &configured.memory)]
            .map(|(name, value)| (name.to_owned(), Value::from(value.as_str()))),
    );
    let mut requests = limits.clone();
    requests.insert("cpu".to_owned(), configured.cpu.as_str().into());
    if let Some(cpu) = &configured.cpu_limit {
        limits.insert("cpu".to_owned(), cpu.as_str().into());
    }
    json!({"limits": limits, "requests": requests})
}

/// Returns the projected Secrets, with the file names that the supervisor expects. All are optional:
/// the supervisor reports which one is missing for the given repositories.
fn secrets(run: &TaskRun, settings: &KubernetesSettings) -> Vec<Value> {
    let names = &settings.secret_names;
    let expand = |name: &str| name.replace("{agent}", run.spec.agent.as_str());
    let source = |name: &str, items: &[(&str, &str)]| {
        let items: Vec<Value> = items.iter().map(|(key, path)| json!({"key": key, "path": path})).collect();
        let items = if items.is_empty() { Value::Null } else { items.into() };
        json!({"secret": {"name": expand(name), "optional": true, "items": items}})
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

/// Returns the volume sources of the MCP server `kubernetes`. The token is bound to the pod, and the
/// agent cannot read it.
fn cluster_access(run: &TaskRun, deadline_seconds: i64) -> [Value; 3] {
    // Optional, so that a pod starts even if its ConfigMap predates the permission.
    let file = |map: &str, key: &str, path: &str| json!({"configMap": {"name": map, "items": [{"key": key, "path": path}], "optional": true}});
    let lifetime = deadline_seconds.min(TOKEN_LIFETIME_SECONDS);
    [
        file(&task_configmap_name(run.name()), KUBECONFIG, KUBECONFIG),
        file(ROOT_CA_CONFIGMAP, "ca.crt", KUBERNETES_CA),
        json!({"serviceAccountToken": {"path": KUBERNETES_TOKEN, "expirationSeconds": lifetime}}),
    ]
}

fn is_ssh(url: &RepositoryUrl) -> bool {
    url.transport() == Transport::Ssh
}

/// Converts JSON to a typed object; null fields are omitted.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests;
