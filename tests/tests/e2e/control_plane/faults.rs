//! Faults of pods, the node, the network, and the server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use orchestrator_tests::kubernetes::kubelet::OnNodeLoss;
use orchestrator_tests::kubernetes::{Fault, HookPoint};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::pods::is_running;
use super::{ClusterEnv, eventually, object, refusal};

fn sleeper(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [
        {"name": "main", "image": "image:1", "command": ["sh", "-c", "echo started; (setsid sleep 600 &); sleep 600"]},
    ]}})
}

fn waiting(status: &Value) -> &str {
    status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|it| it["type"] == kind)
}

fn map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name}}))
}

/// Returns whether a process exists, zombies included.
fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn unpullable_image_is_reported_until_pullable() {
    let env = ClusterEnv::alone().await;
    env.kubelet().fail("a", Fault::ImagePull);
    env.start_pod(sleeper("a")).await;
    let status =
        env.pod_status_when("a", "backing off", |status| waiting(status) == "ImagePullBackOff").await;
    assert_eq!(status["phase"], "Pending");
    assert_eq!(refusal(env.api::<Pod>().logs("a", &LogParams::default()).await).0, 400);
    env.kubelet().clear_faults();
    env.pod_status_when("a", "running", is_running).await;
}

#[tokio::test]
async fn unschedulable_pod_reports_cause() {
    let env = ClusterEnv::alone().await;
    let why = "0/1 nodes are available: 1 Insufficient memory.";
    env.kubelet().fail_where(|_| true, Fault::Unschedulable(why.to_owned()));
    env.start_pod(sleeper("a")).await;
    let status =
        env.pod_status_when("a", "refused", |status| condition(status, "PodScheduled").is_some()).await;
    let scheduled = condition(&status, "PodScheduled").expect("it was waited for");
    assert_eq!(
        (&scheduled["status"], &scheduled["reason"], &scheduled["message"]),
        (&json!("False"), &json!("Unschedulable"), &json!(why))
    );
    env.api::<Pod>().delete("a", &DeleteParams::default()).await.expect("a deletion");
    eventually("the finalizer is removed", || async {
        env.api::<Pod>().get_opt("a").await.expect("an answer").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn killed_oom_evicted_pods_report_distinct_status() {
    let env = ClusterEnv::new().await;
    let ended = |status: &Value| status["phase"] == "Failed";
    for (name, expected) in [("killed", "Error"), ("hungry", "OOMKilled"), ("evicted", "Error")] {
        env.start_pod(sleeper(name)).await;
        env.pod_status_when(name, "running", is_running).await;
        let pid = env.kubelet().pid(&env.namespace, name).expect("a process");
        match name {
            "killed" => env.kubelet().kill(&env.namespace, name),
            "hungry" => env.kubelet().run_out_of_memory(&env.namespace, name),
            _ => env.kubelet().evict(&env.namespace, name),
        }
        let status = env.pod_status_when(name, "failed", ended).await;
        let terminated = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (&terminated["exitCode"], &terminated["reason"]),
            (&json!(137), &json!(expected)),
            "{name}"
        );
        let disrupted = condition(&status, "DisruptionTarget").map(|it| it["reason"].clone());
        assert_eq!(disrupted, (name == "evicted").then(|| json!("TerminationByKubelet")), "{name}");
        assert_eq!(status["reason"] == "Evicted", name == "evicted");
        assert!(!exists(pid), "{name}");
    }
}

#[tokio::test]
async fn lost_node_keeps_pods_until_removed() {
    let env = ClusterEnv::alone().await;
    env.start_pod(sleeper("a")).await;
    env.pod_status_when("a", "running", is_running).await;
    env.kubelet().lose(OnNodeLoss::Kill).await;
    let pod = json!(env.api::<Pod>().get("a").await.expect("the pod"));
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "marked for deletion, and the node is lost");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod["status"], "Ready").map(|it| &it["status"]), Some(&json!("False")));
    let target = condition(&pod["status"], "DisruptionTarget").expect("a condition");
    assert_eq!(target["reason"], "DeletionByTaintManager");
    env.kubelet().remove().await;
    assert_eq!(refusal(env.api::<Pod>().get("a").await).0, 404);
}

#[tokio::test]
async fn returning_node_releases_its_pods() {
    let env = ClusterEnv::alone().await;
    env.start_pod(sleeper("a")).await;
    env.pod_status_when("a", "running", is_running).await;
    env.kubelet().lose(OnNodeLoss::Keep).await;
    env.kubelet().recover().await;
    eventually("the pod is gone", || async {
        env.api::<Pod>().get_opt("a").await.expect("an answer").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_process_outlives_node() {
    let env = ClusterEnv::alone().await;
    // These processes leave the group immediately; the last one has no link to the pod.
    let folder = tempfile::tempdir().expect("a folder");
    let note = folder.path().join("pids");
    let mut manifest = sleeper("a");
    let script = "sleep 600 & echo $! > $NOTE; (setsid sleep 600 & echo $! >> $NOTE); \
        (cd /disk; env -i setsid /bin/sleep 600 & echo $! >> $NOTE); sleep 600";
    manifest["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    manifest["spec"]["containers"][0]["env"] = json!([{"name": "NOTE", "value": note}]);
    manifest["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "disk", "mountPath": "/disk"}]);
    manifest["spec"]["volumes"] = json!([{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]);
    let claim = json!({"metadata": {"name": "disk"}, "spec": {"accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = env.api::<PersistentVolumeClaim>();
    claims.create(&PostParams::default(), &object(claim)).await.expect("a claim");
    env.start_pod(manifest).await;
    let mut pids: Vec<u32> = eventually("three children", || async {
        let text = std::fs::read_to_string(&note).unwrap_or_default();
        let pids: Vec<u32> = text.lines().filter_map(|it| it.parse().ok()).collect();
        (pids.len() == 3).then_some(pids)
    })
    .await;
    pids.push(eventually("the program", || async { env.kubelet().pid(&env.namespace, "a") }).await);
    assert!(pids.len() == 4 && !pids.iter().any(|pid| is_dead(*pid)));
    drop(env);
    eventually("all are dead", || async { pids.iter().all(|pid| is_dead(*pid)).then_some(()) }).await;
}

/// Returns whether a process exited; it may be a zombie.
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[tokio::test]
async fn outage_drops_connections_deferring_status_updates() {
    let env = ClusterEnv::alone().await;
    let mut manifest = sleeper("a");
    manifest["spec"]["containers"][0]["command"] =
        json!(["sh", "-c", "while [ ! -e $FLAG ]; do sleep 0.1; done"]);
    let folder = tempfile::tempdir().expect("a folder");
    let flag = folder.path().join("flag");
    manifest["spec"]["containers"][0]["env"] = json!([{"name": "FLAG", "value": flag}]);
    env.start_pod(manifest).await;
    env.pod_status_when("a", "running", is_running).await;
    env.plane().disconnect();
    let failed = env.api::<Pod>().get("a").await;
    assert!(matches!(failed, Err(kube::Error::HyperError(_) | kube::Error::Service(_))), "{failed:?}");
    std::fs::write(&flag, "").expect("a flag");
    env.plane().reconnect();
    env.pod_status_when("a", "ended", |status| status["phase"] == "Succeeded").await;
}

#[tokio::test]
async fn hook_sees_change_before_author() {
    let env = ClusterEnv::alone().await;
    let author = env.plane().client_for("author", &["system:masters"]);
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(author, &env.namespace);
    let (reported, arrived) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&reported);
    env.plane().on_mutation("author", 2, HookPoint::CarriedOut, move || seen.notify_one());
    let seen = Arc::clone(&arrived);
    env.plane().on_mutation("author", 1, HookPoint::Arrived, move || seen.store(true, Ordering::SeqCst));
    maps.list(&ListParams::default()).await.expect("questions do not count");
    assert!(!arrived.load(Ordering::SeqCst));
    maps.create(&PostParams::default(), &map("a")).await.expect("a map");
    assert!(arrived.load(Ordering::SeqCst));
    let mut second = tokio::spawn(async move { maps.create(&PostParams::default(), &map("b")).await });
    tokio::select! {
        () = reported.notified() => {}
        answer = &mut second => panic!("the author heard first: {answer:?}"),
    }
    env.api::<ConfigMap>().get("b").await.expect("it was carried out");
    second.await.expect("a task").expect("a map");
    let requests = env.plane().requests();
    let changes: Vec<_> = requests.iter().filter(|it| it.user == "author" && it.is_mutation()).collect();
    assert_eq!(
        changes.iter().map(|it| (it.method.as_str(), it.status)).collect::<Vec<_>>(),
        [("POST", 201), ("POST", 201)]
    );
    assert!(!requests.iter().any(|it| it.user.starts_with("system:node:")));
}

#[tokio::test]
async fn mutation_can_be_rejected() {
    let env = ClusterEnv::alone().await;
    env.plane().refuse_mutation("admin", 1, 409);
    let maps = env.api::<ConfigMap>();
    assert_eq!(refusal(maps.create(&PostParams::default(), &map("a")).await).0, 409);
    assert_eq!(refusal(maps.get("a").await).0, 404, "it was not carried out");
    maps.create(&PostParams::default(), &map("a")).await.expect("the next one is");
}
