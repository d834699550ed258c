//! The sources of the volume with the supervisor's Secrets, which no other container mounts.

use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::names::Transport;
use orchestrator_contract::secrets::{
    ANTHROPIC_API_KEY, API_KEY_KEY, BRAVE_API_KEY, GITHUB_TOKEN, KNOWN_HOSTS, KUBECONFIG, KUBERNETES_CA,
    KUBERNETES_TOKEN, PLATFORM_TOKEN, SSH_KEY, TOKEN_KEY,
};
use serde_json::{Value, json};

use crate::config::kubernetes::KubernetesSettings;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::task_configmap_name;

/// Directory where the secrets are mounted.
pub(super) const SECRETS_DIR: &str = "/run/secrets/orchestrator";

/// ConfigMap with the CA certificate of the API server, which exists in every namespace:
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#root-ca-certificate-publisher>.
const ROOT_CA_CONFIGMAP: &str = "kube-root-ca.crt";

/// Maximum requested lifetime of a token; the kubelet rotates it after 80 % of that or 24 hours:
/// <https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken>.
const TOKEN_LIFETIME_SECONDS: i64 = 24 * 3600;

/// Returns the sources for a run: its Secrets and, with cluster access, a kubeconfig and its token.
pub(super) fn sources(run: &TaskRun, settings: &KubernetesSettings, deadline_seconds: i64) -> Vec<Value> {
    let mut all = secrets(run, settings);
    if settings.cluster_access.contains_key(&run.spec.service) {
        all.extend(cluster_access(run, deadline_seconds));
    }
    all
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
