use super::*;
use crate::config::SandboxMode;
use crate::taskrun::definition::TaskRunSpec;
use orchestrator_contract::RepositoryUrl;
use schemars::JsonSchema;
use serde::Serialize;

fn run_and_task() -> (TaskRun, TaskSpec) {
    let sample = include_str!("../../../../supervisor/contract/samples/task-v1.json");
    let mut task = TaskSpec::from_json(sample).unwrap();
    task.target.url = RepositoryUrl::new("git@github.com:myorg/trader.git").unwrap();
    let mut run = TaskRun::new(task.run.as_str(), TaskRunSpec::from_task(&task, None, None));
    run.metadata.namespace = Some("orchestrator".to_owned());
    run.metadata.uid = Some("7f1e".to_owned());
    (run, task)
}

/// Settings with every key set.
fn all_settings() -> KubernetesSettings {
    let text = r#"
        image = "ghcr.io/myorg/agent:1.4"
        image_pull_policy = "IfNotPresent"
        image_pull_secrets = ["registry"]
        max_concurrent_runs = 3
        service_account = "agents"
        priority_class = "batch"
        runtime_class = "gvisor"
        agent_user = 10003
        node_selector = { pool = "agents" }
        tolerations = [{ key = "agents", operator = "Exists", effect = "NoSchedule" }]
        environment = { HTTPS_PROXY = "http://proxy:3128" }
        [storage]
        size = "50Gi"
        class = "fast"
        access_mode = "ReadWriteOncePod"
        [resources]
        cpu = "2"
        cpu_limit = "4"
        memory = "8Gi"
        ephemeral_storage = "20Gi"
        [supervisor_resources]
        cpu = "500m"
        cpu_limit = "1"
        memory = "3Gi"
        ephemeral_storage = "4Gi"
    "#;
    toml::from_str(text).unwrap()
}

fn git_hosts() -> GitHostSettings {
    GitHostSettings {
        github_api_url: Some("https://github.example.com/api/v3".to_owned()),
        git_hosts: vec!["github.example.com".to_owned()],
        sandbox: Some(SandboxMode::BestEffort),
    }
}

/// Validates an object against the schema of its API type and returns its JSON.
fn check<T: Serialize + DeserializeOwned + JsonSchema>(object: &T) -> Value {
    let value = serde_json::to_value(object).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(T)).unwrap();
    let errors: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    value
}

/// Returns the paths that the typed object dropped, which are unknown to the API.
fn lost(written: &Value, kept: &Value, path: &str) -> Vec<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => written
            .iter()
            .filter(|(_, value)| !value.is_null())
            .flat_map(|(key, value)| {
                lost(value, kept.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"))
            })
            .collect(),
        (Value::Array(written), Value::Array(kept)) => {
            written.iter().zip(kept).flat_map(|(written, kept)| lost(written, kept, path)).collect()
        }
        (_, Value::Null) if written.as_array().is_none_or(|items| !items.is_empty()) => vec![path.to_owned()],
        _ => Vec::new(),
    }
}

#[test]
fn job_manifest_matches_snapshot() {
    let (run, task) = run_and_task();
    let job = check(&build_job(&run, &task, &all_settings(), &git_hosts()).unwrap());
    insta::assert_json_snapshot!(job);
}

#[test]
fn default_settings_build_hardened_pod() {
    let (run, task) = run_and_task();
    let settings = KubernetesSettings::default();
    let job = check(&build_job(&run, &task, &settings, &GitHostSettings::default()).unwrap());
    let pod = &job["spec"]["template"]["spec"];
    // https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let containers: Vec<&Value> = containers(pod).collect();
    for container in &containers {
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["restartPolicy"], "Never");
    assert_eq!(job["spec"]["backoffLimit"], 0);
    assert!(job["spec"].get("ttlSecondsAfterFinished").is_none(), "set only once outcome and log are saved");
    assert_eq!(pod["shareProcessNamespace"], false);
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(host).is_none(), "{host}");
    }
    let names = names(containers.into_iter());
    assert_eq!(names, ["prepare", "agent", "verify", "supervisor"], "the documentation names them");
    let volumes = self::names(pod["volumes"].as_array().unwrap().iter());
    let of_all = ["workspace", "task", "secrets", "tools", "supervisor-tmp"];
    let of_roles = ["agent-socket", "agent-tmp", "agent-shm", "verify-socket", "verify-tmp", "verify-shm"];
    assert_eq!(volumes, [&of_all[..], &of_roles].concat(), "the pod mounts nothing else");
}

fn names<'a>(objects: impl Iterator<Item = &'a Value>) -> Vec<&'a str> {
    objects.map(|object| object["name"].as_str().unwrap()).collect()
}

#[test]
fn verify_container_exists_for_verify_commands_only() {
    let (mut run, _) = run_and_task();
    run.spec.verify.clear();
    let pod = build_pod(&run, &all_settings(), &git_hosts(), 7200);
    assert_eq!(names(containers(&pod)), ["prepare", "agent", "supervisor"]);
    assert!(!pod.to_string().contains("verify"), "{pod}");
}

/// Returns init containers and containers.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| pod[list].as_array().unwrap())
}

/// A run of a service with its own image and verify commands.
fn run_of_foreign_image() -> TaskRun {
    let (mut run, _) = run_and_task();
    run.spec.image = Some("ghcr.io/other/toolchain:3".parse().unwrap());
    run.spec.verify = vec!["make test".to_owned()];
    run
}

/// The image of a service is not ours: nothing that a secret could be in is mounted or set there.
#[test]
fn only_operator_image_sees_secrets() {
    let pod = build_pod(&run_of_foreign_image(), &all_settings(), &git_hosts(), 7200);
    for container in containers(&pod) {
        let name = container["name"].as_str().unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap();
        let has = |volume: &str| mounts.iter().any(|mount| mount["name"] == volume);
        let is_ours = container["image"] == "ghcr.io/myorg/agent:1.4";
        assert_eq!(is_ours, ["prepare", "supervisor"].contains(&name), "{name}");
        assert_eq!(has("secrets") || has("task"), name == "supervisor", "{name}");
        assert_eq!(container.get("env").is_some(), name == "supervisor", "{name}");
        assert!(container.get("envFrom").is_none(), "{name}");
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
}

/// The kubelet resolves a `subPath` in a volume that other containers write.
#[test]
fn no_container_writes_parent_of_sub_path() {
    let pod = build_pod(&run_of_foreign_image(), &all_settings(), &git_hosts(), 7200);
    let mut seen = Vec::new();
    for container in containers(&pod).filter(|container| container["name"] != "prepare") {
        for mount in container["volumeMounts"].as_array().unwrap() {
            if mount["name"] == "workspace" {
                let path = mount["subPath"].as_str().unwrap();
                assert!(!path.is_empty() && !path.contains('/'), "{path}");
                let access = if mount["readOnly"] == true { "read" } else { "write" };
                seen.push(format!("{} {path} {access}", container["name"].as_str().unwrap()));
            }
        }
    }
    let expected = [
        "agent tree write",
        "agent shared read",
        "verify verify write",
        "verify shared read",
        "supervisor private write",
        "supervisor shared write",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn container_sees_socket_of_its_own_guest_only() {
    let pod = build_pod(&run_of_foreign_image(), &all_settings(), &git_hosts(), 7200);
    for role in ["agent", "verify"] {
        let container = containers(&pod).find(|container| container["name"] == role).unwrap();
        let sockets: Vec<&Value> = container["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["name"].as_str().unwrap().ends_with("-socket"))
            .collect();
        let path = format!("/run/orchestrator/guests/{role}");
        assert_eq!(
            sockets,
            [&json!({"name": format!("{role}-socket"), "mountPath": path, "readOnly": true})]
        );
        assert_eq!(container["command"][3], format!("{path}/socket"));
        assert_eq!(container["restartPolicy"], "Always");
    }
}

#[test]
fn supervisor_requires_image_and_user_of_its_own() {
    let settings = |text: &str| toml::from_str::<KubernetesSettings>(text).unwrap();
    let refused = |text: &str| settings(text).supervisor_image().unwrap_err().message().to_owned();
    assert!(refused("").contains("no image of the supervisor"), "{}", refused(""));
    for users in ["user = 10002", "agent_user = 10001", "user = 0", "agent_user = 0"] {
        let refused = refused(&format!("image = \"a:1\"\n{users}"));
        assert!(refused.contains("must be two users"), "{refused}");
    }
    assert_eq!(all_settings().supervisor_image().unwrap().as_str(), "ghcr.io/myorg/agent:1.4");
}

#[test]
fn job_deadline_exceeds_supervisor_timeouts() {
    let (run, mut task) = run_and_task();
    task.limits.timeout_minutes = 120.0;
    task.limits.queue_minutes = 0.0;
    let job = build_job(&run, &task, &KubernetesSettings::default(), &GitHostSettings::default()).unwrap();
    let deadline = job.spec.unwrap().active_deadline_seconds.unwrap();
    // Timeout, grace period, and 600 s for each of commit, push and pull request.
    assert!(deadline > 120 * 60 + 10 + 3 * 600 + TERMINATION_GRACE_PERIOD_SECONDS, "{deadline}");
    // The wait for a usage limit of the model is no run time.
    task.limits.wait_for_quota_minutes = 300.0;
    let job = build_job(&run, &task, &KubernetesSettings::default(), &GitHostSettings::default()).unwrap();
    assert_eq!(job.spec.unwrap().active_deadline_seconds.unwrap(), deadline + 300 * 60);
}

#[test]
fn task_configmap_and_pvc_match_snapshots() {
    let (run, task) = run_and_task();
    let map = check(&super::build_task_configmap(&run, &task, &KubernetesSettings::default()).unwrap());
    assert_eq!(map["immutable"], true);
    let text = map["data"]["task.json"].as_str().unwrap();
    assert_eq!(TaskSpec::from_json(text).unwrap(), task);
    let claim = check(&build_pvc(&run, &all_settings()).unwrap());
    assert!(claim["metadata"].get("ownerReferences").is_none(), "it outlives runs");
    insta::assert_json_snapshot!(claim);
}

#[test]
fn pod_manifest_has_no_unknown_api_fields() {
    let (run, _) = run_and_task();
    let written = build_pod(&run, &all_settings(), &git_hosts(), 7200);
    let typed: k8s_openapi::api::core::v1::PodSpec = serde_json::from_value(written.clone()).unwrap();
    let kept = serde_json::to_value(typed).unwrap();
    assert_eq!(lost(&written, &kept, "spec"), [] as [String; 0]);
    let mut wrong = written;
    wrong["securityContext"]["runAsNonRot"] = true.into();
    assert_eq!(lost(&wrong, &kept, "spec"), ["spec.securityContext.runAsNonRot"]);
}

#[test]
fn secrets_are_mounted_as_files_only() {
    let (run, _) = run_and_task();
    let pod = build_pod(&run, &all_settings(), &git_hosts(), 7200).to_string();
    assert!(!pod.contains("secretKeyRef") && !pod.contains("envFrom"), "{pod}");
    for name in
        ["github-pat-claude-agent-1", "github-ssh-claude-agent-1", "anthropic-api-key", "brave-api-key"]
    {
        assert!(pod.contains(name), "{name}");
    }
}

#[test]
fn cluster_access_is_granted_to_named_services_only() {
    let (run, task) = run_and_task();
    let access = |service: &str| {
        let text = format!("[cluster_access]\n{service} = \"orchestrator-inspector\"");
        toml::from_str::<KubernetesSettings>(&text).unwrap()
    };
    let plain = KubernetesSettings::default();
    let git = GitHostSettings::default();
    let other = access("other");
    assert_eq!(build_job(&run, &task, &other, &git).unwrap(), build_job(&run, &task, &plain, &git).unwrap());
    assert_eq!(
        super::build_task_configmap(&run, &task, &other).unwrap(),
        super::build_task_configmap(&run, &task, &plain).unwrap()
    );

    let named = access(run.spec.service.as_str());
    let job = check(&build_job(&run, &task, &named, &git).unwrap());
    let template = &job["spec"]["template"];
    assert_eq!(template["metadata"]["labels"][labels::CLUSTER_ACCESS], "true");
    assert_eq!(template["spec"]["serviceAccountName"], "orchestrator-inspector");
    assert_eq!(template["spec"]["automountServiceAccountToken"], false, "only the supervisor gets a token");
    let volumes = template["spec"]["volumes"].as_array().unwrap();
    let secrets = volumes.iter().find(|volume| volume["name"] == "secrets").unwrap();
    let sources = secrets["projected"]["sources"].as_array().unwrap();
    insta::assert_json_snapshot!(&sources[sources.len() - 3..]);
    let map = check(&super::build_task_configmap(&run, &task, &named).unwrap());
    let kubeconfig: Value = serde_json::from_str(map["data"]["kubeconfig"].as_str().unwrap()).unwrap();
    insta::assert_json_snapshot!(kubeconfig);
}

/// The names of Secrets come from the controller's configuration and the name of the agent alone.
#[test]
fn taskrun_cannot_name_a_secret() {
    let (mut run, _) = run_and_task();
    let names = |run: &TaskRun| -> Vec<String> {
        let pod = build_pod(run, &KubernetesSettings::default(), &GitHostSettings::default(), 7200);
        let volumes = pod["volumes"].as_array().unwrap();
        let secrets = volumes.iter().find(|volume| volume["name"] == "secrets").unwrap();
        let sources = secrets["projected"]["sources"].as_array().unwrap();
        sources.iter().map(|source| source["secret"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let before = names(&run);
    run.spec.github_user = Some("github-pat-other".to_owned());
    run.spec.service = "other".parse().unwrap();
    run.spec.model = "anthropic-api-key-other".to_owned();
    run.spec.mcp_servers = Some(vec!["other".to_owned()]);
    run.spec.request = Some(json!({"secret": "other"}));
    assert_eq!(names(&run), before);
    assert_eq!(before.len(), 6, "{before:?}");
}
