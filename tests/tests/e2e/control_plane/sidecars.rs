//! Pods with init containers and sidecars on the node.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, LogParams, PostParams};
use orchestrator_tests::kubernetes::Fault;
use serde_json::{Value, json};

use super::pods::is_running;
use super::{ClusterEnv, object, refusal};

/// A pod whose containers share the claim `disk`, each with its own directory at `/own`.
///
/// `first` is an init container that sees the whole claim at `/disk`.
fn pod(name: &str, first: &str, side: &str, main: &str) -> Value {
    let container = |name: &str, script: &str, mounts: Value| {
        json!({"name": name, "image": "image:1", "command": ["sh", "-c", script], "volumeMounts": mounts,
            "terminationMessagePolicy": "FallbackToLogsOnError"})
    };
    let own = |sub_path: &str| {
        json!([{"name": "disk", "mountPath": "/own", "subPath": sub_path},
        {"name": "meeting", "mountPath": "/meeting"}])
    };
    let mut sidecar = container("side", side, own("side"));
    sidecar["restartPolicy"] = json!("Always");
    json!({"metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 20,
        "initContainers": [container("first", first, json!([{"name": "disk", "mountPath": "/disk"}])), sidecar],
        "containers": [container("main", main, own("main"))],
        "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}, {"name": "meeting", "emptyDir": {}}],
    }})
}

impl ClusterEnv {
    async fn claim(&self) {
        let claim = json!({"metadata": {"name": "disk"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        let claims = self.api::<PersistentVolumeClaim>();
        claims.create(&PostParams::default(), &object(claim)).await.expect("a claim");
    }

    async fn log(&self, pod: &str, container: &str) -> String {
        let of_it = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        self.api::<Pod>().logs(pod, &of_it).await.expect("a log")
    }
}

fn ended(status: &Value) -> bool {
    matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Waits in a script until a file exists.
fn until(file: &str) -> String {
    format!("while [ ! -e {file} ]; do sleep 0.05; done")
}

#[tokio::test]
async fn init_containers_run_before_main_beside_sidecars() {
    let env = ClusterEnv::new().await;
    env.claim().await;
    let first =
        "mkdir -p /disk/side /disk/main; echo for-side > /disk/side/file; echo for-main > /disk/main/file";
    let side = format!(
        "trap 'echo bye; exit 3' TERM; cat /own/file; echo up > /meeting/side; {}; sleep 600 & wait",
        until("/meeting/main")
    );
    let main = format!("cat /own/file; {}; echo met; echo up > /meeting/main", until("/meeting/side"));
    env.start_pod(pod("a", first, &side, &main)).await;
    let status = env.pod_status_when("a", "ended", ended).await;
    assert_eq!(status["phase"], "Succeeded", "the end of a sidecar does not count: {status:#}");
    assert_eq!(env.log("a", "main").await, "for-main\nmet\n");
    assert_eq!(env.log("a", "side").await, "for-side\nbye\n", "it is terminated after the main container");
    assert_eq!(
        refusal(
            env.api::<Pod>()
                .logs("a", &LogParams { container: Some("other".to_owned()), ..LogParams::default() })
                .await
        )
        .0,
        400
    );
    let init = &status["initContainerStatuses"];
    assert_eq!((&init[0]["name"], &init[0]["state"]["terminated"]["exitCode"]), (&json!("first"), &json!(0)));
    assert_eq!((&init[1]["name"], &init[1]["state"]["terminated"]["exitCode"]), (&json!("side"), &json!(3)));
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let order = |path: &str| status.pointer(path).and_then(Value::as_str).expect("a time").to_owned();
    assert!(
        order("/initContainerStatuses/0/state/terminated/finishedAt")
            <= order("/initContainerStatuses/1/state/terminated/startedAt")
    );
}

#[tokio::test]
async fn failed_init_container_fails_pod_before_start() {
    let env = ClusterEnv::new().await;
    env.claim().await;
    env.start_pod(pod("a", "echo no space >&2; exit 74", "sleep 600", "echo never")).await;
    let status = env.pod_status_when("a", "ended", ended).await;
    assert_eq!(status["phase"], "Failed");
    let end = &status["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["message"]), (&json!(74), &json!("no space\n")));
    for waiting in [&status["initContainerStatuses"][1], &status["containerStatuses"][0]] {
        assert_eq!(waiting["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!((&waiting["ready"], &waiting["started"]), (&json!(false), &json!(false)));
    }
}

#[tokio::test]
async fn ended_sidecar_is_restarted_while_main_runs() {
    let env = ClusterEnv::new().await;
    env.claim().await;
    let main = format!("{}; echo done", until("/own/go"));
    env.start_pod(pod("a", "mkdir -p /disk/main", "echo started; sleep 600", &main)).await;
    env.pod_status_when("a", "running", is_running).await;
    let side = |status: &Value| status["initContainerStatuses"][1].clone();
    env.kubelet().container_runs_out_of_memory(&env.namespace, "a", "side");
    let again = |count: u32| {
        move |status: &Value| {
            side(status)["restartCount"] == count && side(status)["state"]["running"].is_object()
        }
    };
    let status = env.pod_status_when("a", "restarted", again(1)).await;
    assert_eq!(side(&status)["lastState"]["terminated"]["reason"], "OOMKilled");
    assert_eq!(status["phase"], "Running");
    env.kubelet().kill_container(&env.namespace, "a", "side");
    let status = env.pod_status_when("a", "restarted twice", again(2)).await;
    assert_eq!(side(&status)["lastState"]["terminated"]["exitCode"], 137);
    assert!(env.kubelet().container_pid(&env.namespace, "a", "side").is_some());
    let folder = env.kubelet().claim_folder(&env.namespace, "disk").expect("a folder");
    std::fs::write(folder.join("main/go"), "").expect("a file for the main container");
    assert_eq!(env.pod_status_when("a", "ended", ended).await["phase"], "Succeeded");
    assert_eq!(env.kubelet().container_pid(&env.namespace, "a", "side"), None);
}

#[tokio::test]
async fn main_waits_for_sidecar_that_cannot_start() {
    let env = ClusterEnv::alone().await;
    env.claim().await;
    env.kubelet().fail("a", Fault::StartErrorOf("side"));
    env.start_pod(pod("a", "true", "sleep 600", "echo started")).await;
    let crashes = |status: &Value| {
        let side = &status["initContainerStatuses"][1];
        side["state"]["waiting"]["reason"] == "CrashLoopBackOff" && side["restartCount"].as_u64() >= Some(2)
    };
    let status = env.pod_status_when("a", "crashing", crashes).await;
    let last = &status["initContainerStatuses"][1]["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("StartError"), &json!(128)));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    env.kubelet().clear_faults();
    assert_eq!(env.pod_status_when("a", "ended", ended).await["phase"], "Succeeded");

    env.kubelet().fail("b", Fault::ImagePullOf("side"));
    env.start_pod(pod("b", "true", "sleep 600", "echo started")).await;
    let backs_off = |status: &Value| {
        status["initContainerStatuses"][1]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    };
    env.pod_status_when("b", "backing off", backs_off).await;
    env.api::<Pod>().delete("b", &DeleteParams::default()).await.expect("a deletion");
    env.wait_for_deletion("b").await;
}

#[tokio::test]
async fn deleted_pod_ends_main_before_its_sidecars() {
    let env = ClusterEnv::new().await;
    env.claim().await;
    let side = "trap 'ls /meeting > /own/seen; exit 0' TERM; echo up > /meeting/side; sleep 600 & wait";
    let main = format!(
        "trap 'sleep 1; echo > /meeting/ended; exit 0' TERM; {}; sleep 600 & wait",
        until("/meeting/side")
    );
    env.start_pod(pod("a", "mkdir -p /disk/side", side, &main)).await;
    env.pod_status_when("a", "running", is_running).await;
    env.api::<Pod>().delete("a", &DeleteParams::default()).await.expect("a deletion");
    env.wait_for_deletion("a").await;
    let folder = env.kubelet().claim_folder(&env.namespace, "disk").expect("a folder");
    let seen = std::fs::read_to_string(folder.join("side/seen")).expect("what the sidecar saw");
    assert_eq!(seen, "ended\nside\n");
}

#[tokio::test]
async fn invalid_init_containers_are_refused() {
    let env = ClusterEnv::new().await;
    let refused = async |change: fn(&mut Value)| {
        let mut manifest = pod("a", "true", "true", "true");
        change(&mut manifest["spec"]);
        let created = env.api::<Pod>().create(&PostParams::default(), &object(manifest)).await;
        refusal(created)
    };
    for change in [
        (|spec| spec["initContainers"][1]["restartPolicy"] = json!("OnFailure")) as fn(&mut Value),
        |spec| spec["initContainers"][1]["name"] = json!("main"),
        |spec| spec["initContainers"][0]["volumeMounts"][0]["name"] = json!("other"),
        |spec| spec["initContainers"][1]["volumeMounts"][0]["subPath"] = json!("../all"),
        |spec| spec["initContainers"][1]["volumeMounts"][1]["mountPath"] = json!("/own"),
    ] {
        let (code, reason, message) = refused(change).await;
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
    }
}
