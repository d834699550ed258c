//! Who may ask for what in a cluster: the controller's allow-lists, and the policy of `deploy/agent-access`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use kube_cel::cel::extractors::This;
use kube_cel::cel::{Context, Program, ResolveResult, Value as CelValue};
use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::hostile::{Attack, Kind, Origin, Promise};
use orchestrator_tests::kubernetes::ControlPlane;
use orchestrator_tests::kubernetes::test_cluster::{CONTROLLER, NAMESPACE, TestCluster};
use orchestrator_tests::messages_api::Script;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const FOREIGN_IMAGE: Attack = Attack {
    id: "control-foreign-image",
    origin: Origin::Client,
    promise: Promise::NoSecretLeaked,
    what: "creates a TaskRun with an image of its own, or with an agent or service that the operator does not list",
};

const FOREIGN_AGENT: Attack = Attack {
    id: "control-foreign-agent",
    origin: Origin::Client,
    promise: Promise::NoSecretLeaked,
    what: "creates a TaskRun as a listed agent that RBAC does not let this user use",
};

/// Returns the objects of a manifest of `deploy/agent-access`.
fn manifest(file: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dispatcher/deploy/agent-access");
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// Parses an object as its API type, which must know every field.
#[track_caller]
fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> T {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), *object);
    typed
}

#[test]
fn agent_access_manifests_match_their_api_types() {
    let [policy, binding] = manifest("policy.yaml").try_into().unwrap();
    let policy: ValidatingAdmissionPolicy = typed(&policy);
    let binding: ValidatingAdmissionPolicyBinding = typed(&binding);
    let spec = policy.spec.unwrap();
    assert_eq!(spec.failure_policy.as_deref(), Some("Fail"), "an error must not admit");
    let rules = spec.match_constraints.unwrap().resource_rules.unwrap();
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!(rule.api_groups.as_deref(), Some(&["orchestrator.io".to_owned()][..]));
    assert_eq!(rule.resources.as_deref(), Some(&["taskruns".to_owned()][..]));
    assert_eq!(rule.api_versions.as_deref(), Some(&["*".to_owned()][..]));
    assert!(rule.operations.as_ref().unwrap().contains(&"CREATE".to_owned()));
    assert!(rule.resource_names.is_none() && rule.scope.is_none());
    let bound = binding.spec.unwrap();
    assert_eq!(bound.policy_name, policy.metadata.name);
    assert!(bound.validation_actions.unwrap().contains(&"Deny".to_owned()));
    assert!(bound.match_resources.is_none() && bound.param_ref.is_none(), "it applies everywhere");
    for object in manifest("rbac.yaml") {
        match object["kind"].as_str() {
            Some("Role") => drop(typed::<Role>(&object)),
            Some("RoleBinding") => drop(typed::<RoleBinding>(&object)),
            other => panic!("{other:?}"),
        }
    }
}

/// An authorizer with the functions of Kubernetes' CEL library
/// (<https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library>): each call appends to a text,
/// and `allowed` looks the text up in `grants`.
fn with_authorizer(context: &mut Context<'_>, grants: BTreeSet<String>) {
    type Text = Arc<String>;
    let add = |name: &'static str| {
        move |This(this): This<Text>, value: Text| -> ResolveResult {
            Ok(CelValue::from(format!("{this}/{name}={value}")))
        }
    };
    context.add_function("group", add("group"));
    context.add_function("resource", add("resource"));
    context.add_function("namespace", add("namespace"));
    context.add_function("name", add("name"));
    context.add_function("check", add("verb"));
    context.add_function("allowed", move |This(this): This<Text>| -> ResolveResult {
        Ok(CelValue::Bool(grants.contains(this.as_str())))
    });
    context.add_variable_from_value("authorizer", String::new());
}

/// Returns the agents that RBAC lets a user use, in the form of [`with_authorizer`].
async fn grants(plane: &ControlPlane, user: &str, groups: &[&str], agents: &[&str]) -> BTreeSet<String> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(plane.client_for(user, groups));
    let mut allowed = BTreeSet::new();
    for agent in agents {
        let review = json!({"spec": {"resourceAttributes": {
            "group": "orchestrator.io", "resource": "agents", "namespace": NAMESPACE, "name": agent, "verb": "use",
        }}});
        let review = serde_json::from_value(review).unwrap();
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        if answer.status.unwrap().allowed {
            allowed.insert(format!(
                "/group=orchestrator.io/resource=agents/namespace={NAMESPACE}/name={agent}/verb=use"
            ));
        }
    }
    allowed
}

#[tokio::test]
async fn agent_access_policy_follows_rbac() {
    let plane = ControlPlane::start();
    plane.namespace(NAMESPACE).await;
    for object in manifest("rbac.yaml") {
        let created = match object["kind"].as_str() {
            Some("Role") => create::<Role>(&plane, &object).await,
            _ => create::<RoleBinding>(&plane, &object).await,
        };
        created.unwrap();
    }
    let policy = &manifest("policy.yaml")[0];
    let validation = &policy["spec"]["validations"][0];
    let rule = Program::compile(validation["expression"].as_str().unwrap()).unwrap();
    let message = Program::compile(validation["messageExpression"].as_str().unwrap()).unwrap();
    let agents = ["claude-agent-1", "claude-agent-2"];
    for (user, groups, expected) in [
        ("ada", &["leads"][..], [true, false]),
        ("eve", &["developers"], [false, false]),
        ("leads", &[], [false, false]),
        (CONTROLLER, &[], [true, true]),
        ("system:serviceaccount:orchestrator:other", &[], [false, false]),
        ("system:serviceaccount:elsewhere:orchestrator", &[], [false, false]),
    ] {
        let grants = grants(&plane, user, groups, &agents).await;
        for (agent, expected) in agents.iter().zip(expected) {
            let mut context = Context::default();
            with_authorizer(&mut context, grants.clone());
            let object = json!({"spec": {"agent": agent}});
            let request = json!({"namespace": NAMESPACE, "userInfo": {"username": user}});
            context.add_variable("object", object).unwrap();
            context.add_variable("request", request).unwrap();
            let admitted = rule.execute(&context).unwrap();
            assert_eq!(admitted, CelValue::Bool(expected), "{user} {agent}");
            let CelValue::String(text) = message.execute(&context).unwrap() else { panic!("no message") };
            assert!(text.contains(user) && text.contains(agent), "{text}");
        }
        let mut elsewhere = Context::default();
        with_authorizer(&mut elsewhere, grants);
        elsewhere.add_variable("object", json!({"spec": {"agent": agents[0]}})).unwrap();
        elsewhere.add_variable("request", json!({"namespace": "default"})).unwrap();
        assert_eq!(rule.execute(&elsewhere).unwrap(), CelValue::Bool(false), "{user}");
    }
    // The fake API server has no admission policies, so only the expression was evaluated.
    FOREIGN_AGENT.held(
        Kind::Any,
        "with `deploy/agent-access` installed, the policy's expression is false for this user; evaluated with RBAC, \
         not yet tried on a real API server",
    );
}

async fn create<K>(plane: &ControlPlane, object: &Value) -> Result<(), kube::Error>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(plane.client(), NAMESPACE);
    let object: K = serde_json::from_value(object.clone()).unwrap();
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// A TaskRun as a user writes it with kubectl.
fn task_run(cluster: &TestCluster, name: &str, more: &Value) -> Value {
    let mut run = json!({
        "apiVersion": "orchestrator.io/v1alpha1", "kind": "TaskRun", "metadata": {"name": name},
        "spec": {
            "service": "trader", "taskId": 1, "attempt": 1,
            "target": {"url": cluster.env.git.url("acme/trader")},
            "platform": {"url": cluster.env.git.url("acme/platform")},
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        run["spec"][field] = value.clone();
    }
    run
}

/// A TaskRun with an image of its author and the name of another agent would get that agent's Secrets.
#[test]
fn taskrun_outside_allow_lists_creates_nothing() {
    let settings = "allowed_images = [\"registry.example/team/*\"]\nallowed_services = [\"trader\"]";
    let cluster = TestCluster::with(Script::new(), settings);
    let _controller = cluster.controller();
    for (name, more, expected) in [
        ("image", json!({"image": "evil.example/steal:1"}), "image `evil.example/steal:1` is not allowed"),
        ("lookalike", json!({"image": "registry.example/team-evil/x"}), "is not allowed"),
        ("retagged", json!({"image": "registry.example/agent:2"}), "is not allowed"),
        ("agent", json!({"agent": "claude-agent-2"}), "no section `[agents.claude-agent-2]`"),
        ("both", json!({"agent": "claude-agent-2", "image": "evil.example/x"}), "`[agents.claude-agent-2]`"),
        ("service", json!({"service": "payments"}), "service `payments` is not allowed"),
    ] {
        cluster.apply_object(&task_run(&cluster, name, &more));
        let status = cluster.end(name);
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("InvalidConfiguration")));
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
        assert!(status.get("jobName").is_none(), "{status:#}");
    }
    assert!(cluster.jobs().is_empty() && cluster.pods().is_empty());
    assert!(cluster.all::<PersistentVolumeClaim>().is_empty(), "not even a volume");
    let maps = cluster.all::<ConfigMap>();
    let maps: Vec<_> = maps.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
    assert_eq!(maps, ["kube-root-ca.crt"]);
    let reported = cluster.dispatcher(&["status", "image"]);
    assert!(reported.stdout.contains("allowed_images"), "{reported:?}");
    FOREIGN_IMAGE
        .held(Kind::Any, "the run ends `InvalidConfiguration`; no volume, ConfigMap, Job or pod is created");

    // The same TaskRun with an allowed image starts.
    cluster.kubelet.program("registry.example/team/agent:7", &Binaries::get().supervisor);
    cluster.apply_object(&task_run(&cluster, "allowed", &json!({"image": "registry.example/team/agent:7"})));
    cluster.until("allowed", "started", |run| run["status"]["jobName"] == "allowed");
    cluster.delete("allowed");
    cluster.wait_for("end of the TaskRun", || cluster.run("allowed").is_none().then_some(()));
}
