//! Jobs: their pods, their status, and their deletion.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{ClusterEnv, eventually, object, thing};

/// A Job that runs a script once.
fn job(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "main", "image": "image:1", "command": ["sh", "-c", script]}],
    }}}})
}

impl ClusterEnv {
    async fn start_job(&self, job: Value) -> Job {
        self.api::<Job>().create(&PostParams::default(), &object(job)).await.expect("a job")
    }

    /// Waits for a Job that fits and returns it.
    async fn job_when(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let jobs = self.api::<Job>();
        eventually(what, || async {
            let job = json!(jobs.get(name).await.expect("the job"));
            holds(&job["status"]).then_some(job)
        })
        .await
    }

    async fn pods_of(&self, job: &str) -> Vec<Pod> {
        let of_it = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        self.api::<Pod>().list(&of_it).await.expect("pods").items
    }

    /// Waits for the only pod of a Job to fit and returns it.
    async fn pod_when(&self, job: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || async {
            let pod = json!(self.pods_of(job).await.first()?);
            holds(&pod).then_some(pod)
        })
        .await
    }
}

/// Returns the reason of a true condition.
fn reason(status: &Value, kind: &str) -> Option<String> {
    let mut conditions = status["conditions"].as_array()?.iter();
    let found = conditions.find(|it| it["type"] == kind && it["status"] == "True")?;
    Some(found["reason"].as_str().unwrap_or_default().to_owned())
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

#[tokio::test]
async fn job_with_succeeding_pod_is_complete() {
    let env = ClusterEnv::new().await;
    let made = env.start_job(job("a", "exit 0")).await;
    let job = env.job_when("a", "complete", |status| reason(status, "Complete").is_some()).await;
    let status = &job["status"];
    assert_eq!(reason(status, "Complete").as_deref(), Some("CompletionsReached"));
    assert!(reason(status, "SuccessCriteriaMet").is_some());
    assert_eq!((&status["succeeded"], &status["active"]), (&json!(1), &Value::Null));
    assert!(status["startTime"].is_string() && status["completionTime"].is_string());
    let pod = env.pod_when("a", "released", |pod| pod["metadata"]["finalizers"].is_null()).await;
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["controller"]), (&json!("Job"), &json!(true)));
    assert_eq!(owner["uid"], json!(made.metadata.uid));
    assert_eq!(pod["metadata"]["labels"]["job-name"], "a");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
}

#[tokio::test]
async fn job_without_retries_fails_with_its_pod() {
    let env = ClusterEnv::new().await;
    env.start_job(job("a", "exit 3")).await;
    let job = env.job_when("a", "failed", |status| reason(status, "Failed").is_some()).await;
    assert_eq!(reason(&job["status"], "Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(reason(&job["status"], "FailureTarget").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(job["status"]["failed"], 1);
    let pods = env.pods_of("a").await;
    assert_eq!(pods.len(), 1, "no second try");
    let terminated = &json!(pods)[0]["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(3), &json!("Error")));
}

#[tokio::test]
async fn deleted_pod_counts_as_failed() {
    let env = ClusterEnv::new().await;
    // A pod that succeeds counts as succeeded, even if it was deleted.
    env.start_job(job("a", "trap 'exit 1' TERM; sleep 600 & wait")).await;
    let pod = env.pod_when("a", "running", is_running).await;
    let name = pod["metadata"]["name"].as_str().expect("a name");
    env.api::<Pod>().delete(name, &DeleteParams::default()).await.expect("a deletion");
    let job = env.job_when("a", "failed", |status| reason(status, "Failed").is_some()).await;
    assert_eq!(job["status"]["failed"], 1);
    eventually("the pod is gone", || async { env.pods_of("a").await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn job_past_active_deadline_is_stopped() {
    let env = ClusterEnv::new().await;
    let mut slow = job("a", "sleep 600");
    slow["spec"]["activeDeadlineSeconds"] = json!(2);
    env.start_job(slow).await;
    let job = env.job_when("a", "failed", |status| reason(status, "Failed").is_some()).await;
    assert_eq!(reason(&job["status"], "Failed").as_deref(), Some("DeadlineExceeded"));
    eventually("the pod is gone", || async { env.pods_of("a").await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn suspended_job_runs_nothing_until_resumed() {
    let env = ClusterEnv::new().await;
    env.start_job(job("a", "trap 'exit 0' TERM; sleep 600 & wait")).await;
    let first = env.pod_when("a", "running", is_running).await;
    let jobs = env.api::<Job>();
    let suspend = |it: bool| Patch::Merge(json!({"spec": {"suspend": it}}));
    jobs.patch("a", &PatchParams::default(), &suspend(true)).await.expect("a suspension");
    let job = env.job_when("a", "suspended", |status| reason(status, "Suspended").is_some()).await;
    assert_eq!(reason(&job["status"], "Suspended").as_deref(), Some("JobSuspended"));
    eventually("the pod is gone", || async { env.pods_of("a").await.is_empty().then_some(()) }).await;
    jobs.patch("a", &PatchParams::default(), &suspend(false)).await.expect("a resumption");
    let second = env.pod_when("a", "running again", is_running).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let job = env.job_when("a", "resumed", |status| reason(status, "Suspended").is_none()).await;
    assert_eq!(job["status"]["failed"], Value::Null, "stopped pods do not count as failed");
}

#[tokio::test]
async fn job_with_ttl_is_removed_with_its_pod() {
    let env = ClusterEnv::new().await;
    let mut short = job("a", "exit 0");
    short["spec"]["ttlSecondsAfterFinished"] = json!(0);
    env.start_job(short).await;
    let jobs = env.api::<Job>();
    eventually("the job is gone", || async {
        jobs.get_opt("a").await.expect("an answer").is_none().then_some(())
    })
    .await;
    eventually("the pod is gone", || async { env.pods_of("a").await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn job_deleted_without_propagation_orphans_pod() {
    let env = ClusterEnv::new().await;
    env.start_job(job("a", "sleep 600")).await;
    env.pod_when("a", "running", is_running).await;
    let jobs = env.api::<Job>();
    jobs.delete("a", &DeleteParams::default()).await.expect("a deletion");
    eventually("the job is gone", || async {
        jobs.get_opt("a").await.expect("an answer").is_none().then_some(())
    })
    .await;
    let pod = env.pod_when("a", "an orphan", |pod| pod["metadata"]["ownerReferences"].is_null()).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_null() && is_running(&pod));
}

#[tokio::test]
async fn foreground_deletion_removes_owner_last() {
    let env = ClusterEnv::new().await;
    env.start_job(job("a", "trap 'sleep 1; exit 0' TERM; sleep 600 & wait")).await;
    env.pod_when("a", "running", is_running).await;
    let jobs = env.api::<Job>();
    let going =
        jobs.delete("a", &DeleteParams::foreground()).await.expect("a deletion").left().expect("the job");
    let finalizers = going.metadata.finalizers.unwrap_or_default();
    assert!(finalizers.contains(&"foregroundDeletion".to_owned()), "{finalizers:?}");
    eventually("the job is gone", || async {
        let pods = env.pods_of("a").await;
        let deleted = jobs.get_opt("a").await.expect("an answer").is_none();
        // Pods are read first: they must not outlive their owner.
        assert!(!deleted || env.pods_of("a").await.is_empty(), "the owner went first: {pods:?}");
        deleted.then_some(())
    })
    .await;
}

#[tokio::test]
async fn transitive_dependents_are_removed_with_owner() {
    let env = ClusterEnv::new().await;
    let things = env.things().await;
    let owner = things.create(&PostParams::default(), &object(thing("a", json!({"color": "red"})))).await;
    let owner = owner.expect("a thing").metadata.uid;
    let mut owned = job("a", "trap 'exit 0' TERM; sleep 600 & wait");
    let reference = |kind: &str, api_version: &str, uid: &Option<String>| json!([{"apiVersion": api_version, "kind": kind, "name": "a", "uid": uid, "blockOwnerDeletion": true}]);
    owned["metadata"]["ownerReferences"] = reference("Thing", "example.com/v1", &owner);
    let made = env.start_job(owned).await;
    let maps = env.api::<ConfigMap>();
    let map = json!({"metadata": {"name": "a", "ownerReferences": reference("Job", "batch/v1", &made.metadata.uid)}});
    maps.create(&PostParams::default(), &object(map)).await.expect("a map");
    env.pod_when("a", "running", is_running).await;
    things.delete("a", &DeleteParams::background()).await.expect("a deletion");
    let jobs = env.api::<Job>();
    eventually("all is gone", || async {
        let job = jobs.get_opt("a").await.expect("an answer");
        let map = maps.get_opt("a").await.expect("an answer");
        (job.is_none() && map.is_none() && env.pods_of("a").await.is_empty()).then_some(())
    })
    .await;
}
