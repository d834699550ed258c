//! Connects to the API server of a cluster and converts its errors.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use orchestrator_contract::Reason;

use crate::config::Environment;
use crate::config::kubernetes::KubernetesSettings;
use crate::error::{Error, error_chain};

/// Hint for errors of the connection.
pub(crate) const CONNECTION_HINT: &str = "Check the cluster with kubectl version, then try again.";

/// Hint for a missing or unusable kubeconfig.
pub(crate) const CONFIGURATION_HINT: &str =
    "Check with kubectl version; set `context` in [kubernetes], or KUBECONFIG.";

/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Oldest minor version of Kubernetes 1 whose pods can have sidecars:
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>.
const MINIMUM_MINOR: u32 = 29;

/// Hint for a cluster that is too old.
pub(crate) const VERSION_HINT: &str = "Upgrade the cluster, or use another backend.";

/// Returns why runs are impossible with this version of the API server, if they are.
#[must_use]
pub(crate) fn version_problem(version: &Info) -> Option<String> {
    // Some providers append a plus sign to the minor version.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    let (major, minor) = number(&version.major).zip(number(&version.minor))?;
    (major, minor).lt(&(1, MINIMUM_MINOR)).then(|| {
        format!(
            "Kubernetes {} is too old: runs need 1.{MINIMUM_MINOR} or newer, whose pods can have sidecars",
            version.git_version
        )
    })
}

/// Fails if the API server is too old for runs; one that does not respond is not checked.
///
/// # Errors
/// Returns an error that names both versions.
pub(crate) async fn require_version(client: &Client) -> Result<(), Error> {
    match tokio::time::timeout(CONNECT_TIMEOUT, client.apiserver_version()).await {
        Ok(Ok(version)) => match version_problem(&version) {
            Some(problem) => Err(Error::configuration(problem).with_hint(VERSION_HINT)),
            None => Ok(()),
        },
        Ok(Err(error)) => {
            tracing::warn!(%error, "version of the API server not checked");
            Ok(())
        }
        Err(_) => {
            tracing::warn!("version of the API server not checked: it does not respond");
            Ok(())
        }
    }
}

/// Creates a client from the kubeconfig, or in a pod from the service account, without a request.
///
/// # Errors
/// Returns an error if no usable configuration exists.
pub(crate) async fn connect(
    settings: &KubernetesSettings,
    environment: &Environment,
) -> Result<Client, Error> {
    let unusable = |error: String| {
        Error::configuration(format!("cannot load the cluster configuration: {error}"))
            .with_hint(CONFIGURATION_HINT)
    };
    // Fails if the provider is already installed, which is fine.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let in_pod = environment.os("KUBERNETES_SERVICE_HOST").is_some();
    let has_kubeconfig = environment.os("KUBECONFIG").is_some();
    let mut config = if in_pod && !has_kubeconfig && settings.context.is_none() {
        Config::incluster().map_err(|error| unusable(error.to_string()))?
    } else {
        let kubeconfig = Kubeconfig::read().map_err(|error| unusable(error.to_string()))?;
        let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(error.to_string()))?
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(|error| unusable(error.to_string()))
}

/// Converts an error of the API server; `action` is a verb phrase such as `list runs`.
#[must_use]
pub(crate) fn to_error(action: &str, error: &kube::Error, settings: &KubernetesSettings) -> Error {
    let namespace = &settings.namespace;
    let kube::Error::Api(status) = error else {
        return Error::new(Reason::RemoteUnavailable, format!("cannot {action}: {}", error_chain(error)))
            .with_hint(CONNECTION_HINT);
    };
    let message = &status.message;
    let names_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    match status.code {
        401 => {
            let message = format!("cannot {action}: authentication failed");
            Error::new(Reason::AuthenticationFailed, message)
                .with_hint("Log in to the cluster again, and check with kubectl auth whoami.")
        }
        403 => Error::new(Reason::PermissionDenied, format!("cannot {action}: {message}")).with_hint(format!(
            "Ask an administrator for the role orchestrator-user in namespace {namespace} (see dispatcher/deploy/rbac.yaml)."
        )),
        404 if names_object => Error::configuration(format!("cannot {action}: {message}"))
            .with_hint(format!("Check the namespace {namespace}, which `namespace` in [kubernetes] sets.")),
        404 => Error::configuration(format!("cannot {action}: the TaskRun CRD is not installed"))
            .with_hint("Install the orchestrator with kubectl apply --server-side -k dispatcher/deploy."),
        400 | 422 => Error::invalid_request(format!("cannot {action}: {message}")),
        _ => Error::new(Reason::RemoteUnavailable, format!("cannot {action}: {message}"))
            .with_hint(CONNECTION_HINT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: &str, minor: &str) -> Info {
        let git_version = format!("v{major}.{minor}.3");
        Info { major: major.to_owned(), minor: minor.to_owned(), git_version, ..Info::default() }
    }

    #[test]
    fn cluster_without_sidecars_is_too_old() {
        for (major, minor) in [("1", "28"), ("1", "28+"), ("1", "9"), ("0", "99")] {
            let problem = version_problem(&version(major, minor)).unwrap();
            assert!(
                problem.contains(&format!("v{major}.{minor}.3")) && problem.contains("1.29"),
                "{problem}"
            );
        }
        // A server that does not say its version is not refused.
        for (major, minor) in [("1", "29"), ("1", "29+"), ("1", "33"), ("2", "0"), ("", "")] {
            assert_eq!(version_problem(&version(major, minor)), None, "{major}.{minor}");
        }
    }
}
