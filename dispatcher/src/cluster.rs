//! How the API server of a cluster is reached, and what its refusals mean.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use orchestrator_contract::Reason;

use crate::config::Environment;
use crate::config::kubernetes::KubernetesSettings;
use crate::problem::Problem;

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
) -> Result<Client, Problem> {
    let unusable = |error: String| {
        Problem::configuration(format!("cannot tell how to reach the cluster: {error}"))
            .next("Check with kubectl version; name a context with `context` in [kubernetes], or a file with KUBECONFIG.")
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
pub(crate) fn problem(what: &str, error: &kube::Error, settings: &KubernetesSettings) -> Problem {
    let namespace = &settings.namespace;
    let kube::Error::Api(status) = error else {
        return Problem::new(Reason::RemoteUnavailable, format!("cannot {what}: {}", causes(error)))
            .next("Is the cluster there? Check with kubectl version, then try again.");
    };
    let told = &status.message;
    let of_an_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    match status.code {
        401 => {
            let problem = format!("cannot {what}: the cluster does not know who asks");
            Problem::new(Reason::AuthenticationFailed, problem)
                .next("Log in to the cluster again; kubectl auth whoami shows whether that worked.")
        }
        403 => Problem::new(Reason::PermissionDenied, format!("cannot {what}: {told}")).next(format!(
            "Ask for the role orchestrator-user in the namespace {namespace} (dispatcher/deploy/rbac.yaml has it)."
        )),
        404 if of_an_object => Problem::configuration(format!("cannot {what}: {told}"))
            .next(format!("Is {namespace} the right namespace? Name it with `namespace` in [kubernetes].")),
        404 => Problem::configuration(format!("cannot {what}: the cluster knows no TaskRuns"))
            .next("Install the orchestrator in it: kubectl apply --server-side -k dispatcher/deploy."),
        400 | 422 => Problem::request(format!("the cluster refuses to {what}: {told}")),
        _ => Problem::new(Reason::RemoteUnavailable, format!("cannot {what}: {told}"))
            .next("Check with kubectl version, then try again."),
    }
}

/// An error with everything that led to it.
fn causes(error: &dyn std::error::Error) -> String {
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
