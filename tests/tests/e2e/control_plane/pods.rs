//! Pods on the node: input, output, and end of their programs.

use std::collections::BTreeMap;

use futures::{AsyncBufReadExt as _, AsyncReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, LogParams, PostParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{ClusterEnv, LIMIT, eventually, object, refusal};

/// A pod that runs a script.
fn pod(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 20,
        "containers": [{"name": "main", "image": "image:1", "command": ["sh", "-c", script]}],
    }})
}

impl ClusterEnv {
    pub async fn start_pod(&self, pod: Value) {
        self.api::<Pod>().create(&PostParams::default(), &object(pod)).await.expect("a pod");
    }

    /// Waits for a pod whose status fits and returns it.
    pub async fn pod_status_when(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let pods = self.api::<Pod>();
        eventually(what, || async {
            let pod = json!(pods.get(name).await.expect("the pod"));
            holds(&pod["status"]).then(|| pod["status"].clone())
        })
        .await
    }

    async fn end_of(&self, name: &str) -> Value {
        let ended = |status: &Value| matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
        self.pod_status_when(name, "ended", ended).await["containerStatuses"][0]["state"]["terminated"]
            .clone()
    }

    async fn log_of(&self, name: &str) -> String {
        self.api::<Pod>().logs(name, &LogParams::default()).await.expect("a log")
    }

    pub async fn wait_for_deletion(&self, name: &str) {
        let pods = self.api::<Pod>();
        eventually("the pod is gone", || async {
            pods.get_opt(name).await.expect("an answer").is_none().then_some(())
        })
        .await;
    }
}

pub fn is_running(status: &Value) -> bool {
    status["phase"] == "Running"
}

#[tokio::test]
async fn container_gets_variables_and_volumes() {
    let env = ClusterEnv::new().await;
    let map = json!({"metadata": {"name": "settings"}, "data": {"color": "red", "size": "3"}});
    env.api::<ConfigMap>().create(&PostParams::default(), &object(map)).await.expect("a map");
    let secret = json!({"metadata": {"name": "keys"}, "stringData": {"token": "s3cret"}});
    env.api::<Secret>().create(&PostParams::default(), &object(secret)).await.expect("a secret");
    let script = "echo $NAME $COLOR $TOKEN $GREETING ${MISSING-none}; cat $CONFIG/the-color /in/size /all/token; \
        echo; echo kept > /scratch/file; cat /scratch/file";
    let mut manifest = pod("a", script);
    let spec = &mut manifest["spec"];
    spec["containers"][0]["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "not-there", "key": "x", "optional": true}}},
        {"name": "GREETING", "value": "hello-$(COLOR)"},
        {"name": "CONFIG", "value": "/in"},
    ]);
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "in", "mountPath": "/in"}, {"name": "scratch", "mountPath": "/scratch"}, {"name": "all", "mountPath": "/all"},
    ]);
    spec["volumes"] = json!([
        {"name": "in", "configMap": {"name": "settings", "items": [{"key": "color", "path": "the-color"}, {"key": "size", "path": "size"}]}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "all", "projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "not-there", "optional": true}}]}},
    ]);
    env.start_pod(manifest).await;
    assert_eq!(env.end_of("a").await["exitCode"], 0, "{}", env.log_of("a").await);
    assert_eq!(env.log_of("a").await, "a red s3cret hello-red none\nred3s3cret\nkept\n");
}

#[tokio::test]
async fn image_maps_to_local_program() {
    let env = ClusterEnv::new().await;
    env.kubelet().program("registry.example/echo:1", "/bin/echo");
    let mut manifest = pod("a", "");
    manifest["spec"]["containers"] = json!([{"name": "main", "image": "registry.example/echo:1", "args": ["$(WHO)", "there"],
        "env": [{"name": "WHO", "value": "who"}]}]);
    env.start_pod(manifest).await;
    env.end_of("a").await;
    assert_eq!(env.log_of("a").await, "who there\n");
}

#[tokio::test]
async fn followed_log_ends_with_deleted_pod() {
    let env = ClusterEnv::new().await;
    let pods = env.api::<Pod>();
    env.start_pod(pod("a", "echo one; echo two >&2; trap 'echo bye; exit 0' TERM; sleep 600 & wait")).await;
    env.pod_status_when("a", "running", is_running).await;
    let follow = LogParams { follow: true, timestamps: true, ..LogParams::default() };
    let mut lines = pods.log_stream("a", &follow).await.expect("a log").lines();
    let mut next = async || timeout(LIMIT, lines.try_next()).await.expect("in time").expect("no error");
    let first = next().await.expect("a line");
    let (time, text) = first.split_once(' ').expect("a time and a text");
    time.parse::<jiff::Timestamp>().expect("a time");
    let mut lines =
        vec![text.to_owned(), next().await.expect("a line").split_once(' ').expect("two").1.to_owned()];
    // The order of the two streams is undefined.
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
    pods.delete("a", &DeleteParams::default()).await.expect("a deletion");
    assert!(next().await.is_some_and(|line| line.ends_with(" bye")), "the last line is followed");
    assert_eq!(next().await, None, "and the log ends with it");
    env.wait_for_deletion("a").await;
    assert_eq!(refusal(pods.logs("a", &LogParams::default()).await).0, 404);
}

#[tokio::test]
async fn partial_log_can_be_requested() {
    let env = ClusterEnv::new().await;
    let pods = env.api::<Pod>();
    env.start_pod(pod("a", "for i in 1 2 3 4; do echo $i; done")).await;
    env.end_of("a").await;
    let part = async |parameters: LogParams| pods.logs("a", &parameters).await.expect("a log");
    assert_eq!(part(LogParams { tail_lines: Some(2), ..LogParams::default() }).await, "3\n4\n");
    assert_eq!(part(LogParams { limit_bytes: Some(3), ..LogParams::default() }).await, "1\n2");
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(part(LogParams { since_time: Some(later), ..LogParams::default() }).await, "");
    let wrong = LogParams { container: Some("other".to_owned()), ..LogParams::default() };
    assert_eq!(refusal(pods.logs("a", &wrong).await).0, 400);
    let mut stream = pods.log_stream("a", &LogParams::default()).await.expect("a log");
    let mut all = String::new();
    stream.read_to_string(&mut all).await.expect("text");
    assert_eq!(all, "1\n2\n3\n4\n");
}

#[tokio::test]
async fn deleted_pod_receives_sigterm_first() {
    let env = ClusterEnv::new().await;
    let pods = env.api::<Pod>();
    let mut manifest = pod("a", "trap 'echo asked; sleep 1; exit 7' TERM; sleep 600 & wait");
    manifest["metadata"]["finalizers"] = json!(["example.com/look"]);
    env.start_pod(manifest).await;
    env.pod_status_when("a", "running", is_running).await;
    let going =
        pods.delete("a", &DeleteParams::default()).await.expect("a deletion").left().expect("the pod");
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(20));
    assert_eq!(env.end_of("a").await["exitCode"], 7, "it had its time");
    assert_eq!(env.log_of("a").await, "asked\n");
    let release = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("a", &kube::api::PatchParams::default(), &release).await.expect("a release");
    env.wait_for_deletion("a").await;
}

#[tokio::test]
async fn process_ignoring_sigterm_is_killed() {
    let env = ClusterEnv::new().await;
    let pods = env.api::<Pod>();
    let mut manifest = pod("a", "trap '' TERM; while :; do sleep 1; done");
    manifest["metadata"]["finalizers"] = json!(["example.com/look"]);
    env.start_pod(manifest).await;
    env.pod_status_when("a", "running", is_running).await;
    pods.delete("a", &DeleteParams::default().grace_period(1)).await.expect("a deletion");
    assert_eq!(env.end_of("a").await["exitCode"], 137);
    let release = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("a", &kube::api::PatchParams::default(), &release).await.expect("a release");
    env.wait_for_deletion("a").await;
}

#[tokio::test]
async fn termination_message_is_in_pod_status() {
    let env = ClusterEnv::new().await;
    env.start_pod(pod("a", "printf %5000s x > /dev/termination-log; exit 1")).await;
    let terminated = env.end_of("a").await;
    assert_eq!(terminated["message"].as_str().map(str::len), Some(4096));
    let mut reported = pod("b", "echo from the log; exit 1");
    reported["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    env.start_pod(reported).await;
    assert_eq!(env.end_of("b").await["message"], "from the log\n");
}

#[tokio::test]
async fn claim_keeps_files_between_pods() {
    let env = ClusterEnv::new().await;
    let claims = env.api::<PersistentVolumeClaim>();
    let claim = json!({"metadata": {"name": "disk"}, "spec": {"accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let with_disk = |name: &str, script: &str| {
        let mut manifest = pod(name, script);
        manifest["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "disk", "mountPath": "/disk"}]);
        manifest["spec"]["volumes"] =
            json!([{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]);
        manifest
    };
    env.start_pod(with_disk("a", "echo kept > /disk/file; trap 'exit 0' TERM; sleep 600 & wait")).await;
    let waits = |status: &Value| status["conditions"][0]["reason"] == "Unschedulable";
    env.pod_status_when("a", "without its claim it is not scheduled", waits).await;
    claims.create(&PostParams::default(), &object(claim)).await.expect("a claim");
    env.pod_status_when("a", "running", is_running).await;
    let bound = json!(claims.get("disk").await.expect("the claim"));
    assert_eq!(bound["status"]["phase"], "Bound");
    env.start_pod(with_disk("b", "cat /disk/file; while [ ! -e /disk/go ]; do sleep 0.1; done")).await;
    env.pod_status_when("b", "one pod at a time has it", waits).await;
    env.api::<Pod>().delete("a", &DeleteParams::default()).await.expect("a deletion");
    env.wait_for_deletion("a").await;
    env.pod_status_when("b", "running", is_running).await;
    let going =
        claims.delete("disk", &DeleteParams::default()).await.expect("a deletion").left().expect("the claim");
    assert_eq!(going.metadata.finalizers.as_deref(), Some(&["kubernetes.io/pvc-protection".to_owned()][..]));
    let folder = env.kubelet().claim_folder(&env.namespace, "disk").expect("a folder");
    std::fs::write(folder.join("go"), "").expect("a file for the pod");
    env.end_of("b").await;
    assert_eq!(env.log_of("b").await, "kept\n");
    claims.get("disk").await.expect("a pod that has ended still has it");
    env.api::<Pod>().delete("b", &DeleteParams::default()).await.expect("a deletion");
    eventually("the claim is deleted once unused", || async {
        claims.get_opt("disk").await.expect("an answer").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn pod_waits_for_missing_configmap() {
    let env = ClusterEnv::new().await;
    let mut manifest = pod("a", "cat /in/k");
    manifest["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "in", "mountPath": "/in"}]);
    manifest["spec"]["volumes"] = json!([{"name": "in", "configMap": {"name": "late"}}]);
    env.start_pod(manifest).await;
    let waits =
        |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating";
    env.pod_status_when("a", "waiting", waits).await;
    let map: ConfigMap = object(json!({"metadata": {"name": "late"}, "data": BTreeMap::from([("k", "v")])}));
    env.api::<ConfigMap>().create(&PostParams::default(), &map).await.expect("a map");
    assert_eq!(env.end_of("a").await["exitCode"], 0);
}
