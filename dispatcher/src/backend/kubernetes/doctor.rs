//! Checks the requirements for runs in a cluster, with the permissions of the user.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use crate::cluster;
use crate::config::Config;
use crate::task::check::{Check, CheckStatus};
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::LEASE;

/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds since the last renewal after which the leader counts as gone.
const LEASE_STALE_SECONDS: i64 = 60;

/// Checks every requirement without changing anything.
pub(super) async fn check(config: &Config) -> Vec<Check> {
    let settings = config.kubernetes();
    let client = match cluster::connect(settings, &config.environment).await {
        Ok(client) => client,
        Err(error) => {
            return vec![Check::failed("cluster", CheckStatus::Error, error.message(), error.hint())];
        }
    };
    let mut checks = vec![reachable(&client).await];
    if checks.iter().any(|check| check.status == CheckStatus::Error) {
        return checks;
    }
    checks.push(installed(&client, config).await);
    for (verb, resource, subresource, severity, purpose) in [
        ("create", "taskruns", None, CheckStatus::Error, "submit runs"),
        ("patch", "taskruns", None, CheckStatus::Warning, "stop runs"),
        ("get", "pods", Some("log"), CheckStatus::Warning, "read logs of active runs"),
        ("get", "configmaps", None, CheckStatus::Warning, "read logs of finished runs"),
    ] {
        checks.push(
            allowed(&client, &settings.namespace, verb, resource, subresource, severity, purpose).await,
        );
    }
    checks.push(check_leader(&client, &settings.namespace).await);
    checks
}

async fn query<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Err(_) => Err(format!("timed out after {} s", CALL_TIMEOUT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(value)) => Ok(value),
    }
}

async fn reachable(client: &Client) -> Check {
    match query(client.apiserver_version()).await {
        Ok(version) => match cluster::version_problem(&version) {
            Some(problem) => Check::failed("cluster", CheckStatus::Error, problem, cluster::VERSION_HINT),
            None => Check::ok("cluster", format!("Kubernetes {}", version.git_version)),
        },
        Err(error) => Check::failed(
            "cluster",
            CheckStatus::Error,
            format!("cannot reach the API server: {error}"),
            cluster::CONFIGURATION_HINT,
        ),
    }
}

async fn installed(client: &Client, config: &Config) -> Check {
    let settings = config.kubernetes();
    let runs: Api<TaskRun> = Api::namespaced(client.clone(), &settings.namespace);
    let result = tokio::time::timeout(CALL_TIMEOUT, runs.list(&ListParams::default().limit(1))).await;
    match result {
        Ok(Ok(_)) => Check::ok("taskruns", format!("available in namespace {}", settings.namespace)),
        Ok(Err(error)) => {
            let error = cluster::to_error("list runs", &error, settings);
            Check::failed("taskruns", CheckStatus::Error, error.message(), error.hint())
        }
        Err(_) => Check::failed(
            "taskruns",
            CheckStatus::Error,
            format!("timed out after {} s", CALL_TIMEOUT.as_secs()),
            "Check with kubectl get taskruns.",
        ),
    }
}

async fn allowed(
    client: &Client,
    namespace: &str,
    verb: &str,
    resource: &'static str,
    subresource: Option<&str>,
    severity: CheckStatus,
    purpose: &str,
) -> Check {
    let group = if resource == "taskruns" { "orchestrator.io" } else { "" };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let name = "permission";
    match query(reviews.create(&PostParams::default(), &review)).await {
        Ok(reviewed) if reviewed.status.as_ref().is_some_and(|status| status.allowed) => {
            Check::ok(name, format!("to {purpose}"))
        }
        Ok(_) => Check::failed(
            name,
            severity,
            format!("missing permission to {purpose}"),
            format!("Ask an administrator for the role orchestrator-user in namespace {namespace}."),
        ),
        Err(error) => Check::failed(
            name,
            CheckStatus::Warning,
            format!("cannot check the permission to {purpose}: {error}"),
            "Check with kubectl auth can-i.",
        ),
    }
}

/// Checks by the Lease whether a controller is running; without permission to read it, passes.
async fn check_leader(client: &Client, namespace: &str) -> Check {
    let name = "controller";
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let renewed = match query(leases.get_opt(LEASE)).await {
        Ok(lease) => lease.and_then(|lease| lease.spec?.renew_time),
        Err(_) => return Check::ok(name, "not checked: no permission to read the Lease"),
    };
    let age = renewed.map(|time| Timestamp::now().duration_since(time.0).as_secs());
    match age {
        Some(seconds) if seconds <= LEASE_STALE_SECONDS => Check::ok(name, "running"),
        Some(_) | None => Check::failed(
            name,
            CheckStatus::Error,
            "not running, so submitted runs stay queued",
            format!("Check its log with kubectl logs -n {namespace} deployment/orchestrator."),
        ),
    }
}
