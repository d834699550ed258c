//! How the API server of a cluster is reached, and what its refusals mean.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use orchestrator_contract::Reason;

use crate::config::Environment;
use crate::config::kubernetes::KubernetesSettings;
use crate::error::Error;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects by the kubeconfig that `KUBECONFIG` names, the one in the home, or as a pod's service account.
/// Nothing is asked yet.
///
/// # Errors
/// There is no usable configuration.
pub(crate) async fn connect(
    settings: &KubernetesSettings,
    environment: &Environment,
) -> Result<Client, Error> {
    let unusable = |error: String| {
        Error::configuration(format!("cannot tell how to reach the cluster: {error}"))
            .with_hint("Check with kubectl version; name a context with `context` in [kubernetes], or a file with KUBECONFIG.")
    };
    // The only provider there is: a second one would make the choice ambiguous.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let in_pod = environment.os("KUBERNETES_SERVICE_HOST").is_some();
    let named = environment.os("KUBECONFIG").is_some();
    let mut config = if in_pod && !named && settings.context.is_none() {
        Config::incluster().map_err(|error| unusable(error.to_string()))?
    } else {
        let kubeconfig = Kubeconfig::read().map_err(|error| unusable(error.to_string()))?;
        let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(error.to_string()))?
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| unusable(error.to_string()))
}

/// What a refusal of the API server means for whoever asked for `what`.
#[must_use]
pub(crate) fn to_error(what: &str, error: &kube::Error, settings: &KubernetesSettings) -> Error {
    let namespace = &settings.namespace;
    let kube::Error::Api(status) = error else {
        return Error::new(Reason::RemoteUnavailable, format!("cannot {what}: {}", error_chain(error)))
            .with_hint("Is the cluster there? Check with kubectl version, then try again.");
    };
    let told = &status.message;
    let of_an_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    match status.code {
        401 => {
            let problem = format!("cannot {what}: the cluster does not know who asks");
            Error::new(Reason::AuthenticationFailed, problem)
                .with_hint("Log in to the cluster again; kubectl auth whoami shows whether that worked.")
        }
        403 => Error::new(Reason::PermissionDenied, format!("cannot {what}: {told}")).with_hint(format!(
            "Ask for the role orchestrator-user in the namespace {namespace} (dispatcher/deploy/rbac.yaml has it)."
        )),
        404 if of_an_object => Error::configuration(format!("cannot {what}: {told}"))
            .with_hint(format!("Is {namespace} the right namespace? Name it with `namespace` in [kubernetes].")),
        404 => Error::configuration(format!("cannot {what}: the cluster knows no TaskRuns"))
            .with_hint("Install the orchestrator in it: kubectl apply --server-side -k dispatcher/deploy."),
        400 | 422 => Error::invalid_request(format!("the cluster refuses to {what}: {told}")),
        _ => Error::new(Reason::RemoteUnavailable, format!("cannot {what}: {told}"))
            .with_hint("Check with kubectl version, then try again."),
    }
}

/// An error with everything that led to it.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
