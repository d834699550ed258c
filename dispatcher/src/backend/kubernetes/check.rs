//! What runs in a cluster need, as far as it can be seen with the user's own rights.

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
use crate::controller::crd::TaskRun;
use crate::controller::manager::LEASE;
use crate::task::check::{Check, CheckStatus};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How old the leader's last sign of life may be.
const LEASE_STALE_SECONDS: i64 = 60;

/// Looks at everything that a run in a cluster needs. Changes nothing.
pub(super) async fn check(config: &Config) -> Vec<Check> {
    let settings = config.kubernetes();
    let client = match cluster::connect(settings, &config.environment).await {
        Ok(client) => client,
        Err(problem) => {
            return vec![Check::failed("cluster", CheckStatus::Error, problem.message(), problem.hint())];
        }
    };
    let mut checks = vec![reachable(&client).await];
    if checks.iter().any(|check| check.status == CheckStatus::Error) {
        return checks;
    }
    checks.push(installed(&client, config).await);
    for (verb, resource, subresource, finding, why) in [
        ("create", "taskruns", None, CheckStatus::Error, "submit runs"),
        ("patch", "taskruns", None, CheckStatus::Warning, "stop runs"),
        ("get", "pods", Some("log"), CheckStatus::Warning, "read logs of runs at work"),
        ("get", "configmaps", None, CheckStatus::Warning, "read logs of runs that have ended"),
    ] {
        checks.push(allowed(&client, &settings.namespace, verb, resource, subresource, finding, why).await);
    }
    checks.push(check_leader(&client, &settings.namespace).await);
    checks
}

async fn query<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, question).await {
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(value)) => Ok(value),
    }
}

async fn reachable(client: &Client) -> Check {
    match query(client.apiserver_version()).await {
        Ok(version) => Check::ok("cluster", format!("Kubernetes {}", version.git_version)),
        Err(error) => Check::failed(
            "cluster",
            CheckStatus::Error,
            format!("the API server cannot be asked: {error}"),
            "Check with kubectl version; name a context with `context` in [kubernetes], or a file with KUBECONFIG.",
        ),
    }
}

async fn installed(client: &Client, config: &Config) -> Check {
    let settings = config.kubernetes();
    let runs: Api<TaskRun> = Api::namespaced(client.clone(), &settings.namespace);
    let asked = tokio::time::timeout(LIMIT, runs.list(&ListParams::default().limit(1))).await;
    match asked {
        Ok(Ok(_)) => Check::ok("taskruns", format!("the namespace {} keeps them", settings.namespace)),
        Ok(Err(error)) => {
            let problem = cluster::to_error("list the runs", &error, settings);
            Check::failed("taskruns", CheckStatus::Error, problem.message(), problem.hint())
        }
        Err(_) => Check::failed(
            "taskruns",
            CheckStatus::Error,
            "no answer in time",
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
    finding: CheckStatus,
    why: &str,
) -> Check {
    let group = if resource == "taskruns" { "orchestrator.io" } else { "" };
    let question = SelfSubjectAccessReview {
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
    match query(reviews.create(&PostParams::default(), &question)).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
            Check::ok(name, format!("to {why}"))
        }
        Ok(_) => Check::failed(
            name,
            finding,
            format!("to {why} is missing"),
            format!("Ask for the role orchestrator-user in the namespace {namespace}."),
        ),
        Err(error) => Check::failed(
            name,
            CheckStatus::Warning,
            format!("to {why} cannot be told: {error}"),
            "Ask kubectl auth can-i.",
        ),
    }
}

/// Whether somebody looks after runs, told by the Lease, where it may be read.
async fn check_leader(client: &Client, namespace: &str) -> Check {
    let name = "controller";
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let renewed = match query(leases.get_opt(LEASE)).await {
        Ok(lease) => lease.and_then(|lease| lease.spec?.renew_time),
        Err(_) => return Check::ok(name, "whether it works cannot be told with these rights"),
    };
    let quiet = renewed.map(|time| Timestamp::now().duration_since(time.0).as_secs());
    match quiet {
        Some(seconds) if seconds <= LEASE_STALE_SECONDS => Check::ok(name, "it works"),
        Some(_) | None => Check::failed(
            name,
            CheckStatus::Error,
            "nobody looks after runs: what is submitted waits",
            format!("Look at the log: kubectl logs -n {namespace} deployment/orchestrator."),
        ),
    }
}
