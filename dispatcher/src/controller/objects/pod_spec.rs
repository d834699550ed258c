//! Builds the pod of a run: `prepare`, a sidecar for each kind of untrusted programs, and the supervisor.
//!
//! Only the supervisor's container has Secrets, and its image is always the operator's. The others get the
//! image of the service, another user, no Secret, no token and no variable.

use std::collections::BTreeMap;

use orchestrator_contract::containers::{
    ContainerRole, PRIVATE_DIR, SHARED_DIR, SHARED_MEMORY_DIR, SUPERVISOR, TOOLS_DIR, WORKSPACE,
};
use orchestrator_contract::{budget, variables};
use serde_json::{Map, Value, json};

use super::secrets_volume::{self, SECRETS_DIR};
use crate::config::SandboxMode;
use crate::config::kubernetes::{KubernetesSettings, PullPolicy};
use crate::taskrun::container::{
    CONTAINER, NEW_TOOLS_DIR, PREPARE, TASK_DIR, VOLUMES_DIR, arguments, prepare_arguments, roles, sub_paths,
};
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::{pvc_name, task_configmap_name};

/// Seconds between SIGTERM and SIGKILL, in which the supervisor saves and pushes the work.
pub const TERMINATION_GRACE_PERIOD_SECONDS: i64 = budget::POD_TERMINATION_GRACE_PERIOD_SECONDS as i64;

/// Requests of the container of verify commands: those of an idle guest.
///
/// It works only while the agent's container is idle, so the pod's other requests cover its work.
const VERIFY_REQUESTS: [(&str, &str); 3] =
    [("cpu", "10m"), ("ephemeral-storage", "64Mi"), ("memory", "64Mi")];

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

pub(super) fn build_pod(
    run: &TaskRun,
    settings: &KubernetesSettings,
    git: &GitHostSettings,
    deadline_seconds: i64,
) -> Value {
    let access = settings.cluster_access.get(&run.spec.service);
    let roles = roles(!run.spec.verify.is_empty());
    let mut init = vec![prepare(settings)];
    init.extend(roles.iter().map(|role| sidecar(*role, run, settings)));
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
        "initContainers": init,
        "containers": [supervisor(&roles, settings, git)],
        "volumes": volumes(&roles, run, secrets_volume::sources(run, settings, deadline_seconds)),
    })
}

fn optional(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Returns what all containers have in common.
fn container(name: &str, image: impl Into<Value>, settings: &KubernetesSettings) -> Value {
    json!({
        "name": name,
        "image": image.into(),
        "imagePullPolicy": settings.image_pull_policy.map(|policy| match policy {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
    })
}

/// Adds fields to an object.
fn with(mut object: Value, fields: Value) -> Value {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}

fn image_of_operator(settings: &KubernetesSettings) -> Value {
    json!(settings.image)
}

/// Returns the init container that makes the directories which the others mount.
fn prepare(settings: &KubernetesSettings) -> Value {
    with(
        container(PREPARE, image_of_operator(settings), settings),
        json!({
            "args": prepare_arguments(),
            "resources": supervisor_resources(settings),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "workspace", "mountPath": VOLUMES_DIR},
                {"name": "tools", "mountPath": NEW_TOOLS_DIR},
            ],
        }),
    )
}

/// Returns the container of untrusted programs: an init container that never ends before the supervisor,
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>.
fn sidecar(role: ContainerRole, run: &TaskRun, settings: &KubernetesSettings) -> Value {
    let image = run.spec.image.as_ref().or(settings.image.as_ref());
    let (tree, resources) = match role {
        ContainerRole::Agent => (sub_paths::TREE, agent_resources(settings)),
        ContainerRole::Verify => (sub_paths::VERIFY, verify_resources(settings)),
    };
    let mut sidecar = with(
        container(role.name(), json!(image), settings),
        json!({
            "restartPolicy": "Always",
            "command": std::iter::once(SUPERVISOR.to_owned()).chain(role.guest_arguments()).collect::<Vec<_>>(),
            // The directory of the image may be closed to this user.
            "workingDir": WORKSPACE,
            "resources": resources,
            "volumeMounts": [
                {"name": "workspace", "mountPath": WORKSPACE, "subPath": tree},
                {"name": "workspace", "mountPath": SHARED_DIR, "subPath": sub_paths::SHARED, "readOnly": true},
                {"name": socket_volume(role), "mountPath": role.guest_dir(), "readOnly": true},
                {"name": "tools", "mountPath": TOOLS_DIR, "readOnly": true},
                {"name": format!("{}-tmp", role.name()), "mountPath": "/tmp"},
                {"name": format!("{}-shm", role.name()), "mountPath": SHARED_MEMORY_DIR},
            ],
        }),
    );
    sidecar["securityContext"]["runAsUser"] = settings.agent_user.into();
    sidecar["securityContext"]["runAsGroup"] = 0.into();
    sidecar
}

fn supervisor(roles: &[ContainerRole], settings: &KubernetesSettings, git: &GitHostSettings) -> Value {
    let mut mounts = vec![
        json!({"name": "workspace", "mountPath": PRIVATE_DIR, "subPath": sub_paths::PRIVATE}),
        json!({"name": "workspace", "mountPath": SHARED_DIR, "subPath": sub_paths::SHARED}),
        json!({"name": "task", "mountPath": TASK_DIR, "readOnly": true}),
        json!({"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": true}),
        json!({"name": "supervisor-tmp", "mountPath": "/tmp"}),
    ];
    mounts.extend(
        roles.iter().map(|role| json!({"name": socket_volume(*role), "mountPath": role.guest_dir()})),
    );
    with(
        container(CONTAINER, image_of_operator(settings), settings),
        json!({
            "args": arguments(),
            "env": environment(settings, git),
            "resources": supervisor_resources(settings),
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": mounts,
        }),
    )
}

/// Returns the name of the volume with the socket of a role's guest.
fn socket_volume(role: ContainerRole) -> String {
    format!("{}-socket", role.name())
}

fn volumes(roles: &[ContainerRole], run: &TaskRun, secrets: Vec<Value>) -> Vec<Value> {
    let in_memory = json!({"medium": "Memory"});
    let mut all = vec![
        json!({"name": "workspace", "persistentVolumeClaim": {"claimName": pvc_name(&run.spec.service)}}),
        json!({"name": "task", "configMap": {"name": task_configmap_name(run.name())}}),
        json!({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": secrets}}),
        json!({"name": "tools", "emptyDir": {}}),
        json!({"name": "supervisor-tmp", "emptyDir": {}}),
    ];
    for role in roles {
        all.push(json!({"name": socket_volume(*role), "emptyDir": in_memory}));
        all.push(json!({"name": format!("{}-tmp", role.name()), "emptyDir": {}}));
        // The default has 64 MiB, which browsers and databases exceed; it counts as the container's memory.
        all.push(json!({"name": format!("{}-shm", role.name()), "emptyDir": in_memory}));
    }
    all
}

/// Returns the environment variables of the supervisor; secrets are mounted as files instead.
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

fn supervisor_resources(settings: &KubernetesSettings) -> Value {
    let configured = &settings.supervisor_resources;
    let limits = limits(&configured.memory, &configured.ephemeral_storage, configured.cpu_limit.as_ref());
    json!({"requests": requests(&limits, &configured.cpu), "limits": limits})
}

fn agent_resources(settings: &KubernetesSettings) -> Value {
    let configured = &settings.resources;
    let limits = limits(&configured.memory, &configured.ephemeral_storage, configured.cpu_limit.as_ref());
    json!({"requests": requests(&limits, &configured.cpu), "limits": limits})
}

fn verify_resources(settings: &KubernetesSettings) -> Value {
    json!({"requests": Map::from_iter(VERIFY_REQUESTS.map(|(name, value)| (name.to_owned(), value.into()))),
        "limits": agent_resources(settings)["limits"]})
}

fn limits(memory: &str, ephemeral_storage: &str, cpu: Option<&String>) -> Map<String, Value> {
    let mut limits = Map::from_iter([
        ("ephemeral-storage".to_owned(), ephemeral_storage.into()),
        ("memory".to_owned(), memory.into()),
    ]);
    if let Some(cpu) = cpu {
        limits.insert("cpu".to_owned(), cpu.as_str().into());
    }
    limits
}

/// Returns requests as high as the limits, except for the CPU.
fn requests(limits: &Map<String, Value>, cpu: &str) -> Map<String, Value> {
    let mut requests = limits.clone();
    requests.insert("cpu".to_owned(), cpu.into());
    requests
}
