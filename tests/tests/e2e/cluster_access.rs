//! An agent with read access to the cluster.
//! / It uses the real Kubernetes MCP server with the token of a read-only service account, which it never sees.

use orchestrator_contract::outcome::McpStatus;
use orchestrator_contract::{Outcome, Reason};
use orchestrator_tests::invariants::assert_not_below;
use orchestrator_tests::kubernetes::test_cluster::{NAMESPACE, TestCluster};
use orchestrator_tests::messages_api::{Script, Turn};
use orchestrator_tests::projects;
use serde_json::{Value, json};

/// A role binding that lets agents read the namespace of the runs.
fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "inspector"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "orchestrator-inspector"},
        "subjects": [{"kind": "ServiceAccount", "name": "orchestrator-inspector", "namespace": NAMESPACE}],
    })
}

/// A role and a binding with too many permissions.
fn too_much() -> [Value; 2] {
    let rbac = "rbac.authorization.k8s.io";
    [
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "too-much"},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}],
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "too-much"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "too-much"},
            "subjects": [{"kind": "ServiceAccount", "name": "orchestrator-inspector", "namespace": NAMESPACE}],
        }),
    ]
}

fn outcome(cluster: &TestCluster, run: &str) -> Outcome {
    let status = cluster.end(run);
    let outcome = serde_json::from_value(status["outcome"].clone());
    outcome
        .unwrap_or_else(|_| panic!("no outcome: {status:#}\n{}", cluster.dispatcher(&["logs", run]).stdout))
}

#[test]
fn agent_queries_cluster_with_token_it_never_sees() {
    let look = |tool: &str, input: Value| Turn::tool(format!("mcp__kubernetes__{tool}"), input);
    let run = "trader-claude-agent-1-task1-attempt1";
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": NAMESPACE, "name": run});
    let secrets = json!({"apiVersion": "v1", "kind": "Secret", "namespace": NAMESPACE});
    let agent = Script::when("Implement task 1 of the service `trader`")
        // Its own Job is visible.
        .turn(look("resources_get", job))
        .turn(
            look("pods_list_in_namespace", json!({"namespace": "default"}))
                .expecting("activeDeadlineSeconds"),
        )
        .turn(look("resources_list", secrets).expecting("pods is forbidden"))
        .turn(
            look("pods_delete", json!({"name": "any", "namespace": NAMESPACE}))
                .expecting("resource not allowed"),
        )
        .turn(
            // Where the supervisor has it; the node of the tests has no wall between containers.
            Turn::bash("cat /run/secrets/orchestrator/kubernetes-token || echo out-of-reach")
                .expecting("No such tool"),
        )
        .turn(projects::fix().expecting("out-of-reach"))
        .turn(Turn::verdict("done", "best_bid now returns the highest bid."));
    let scripts = vec![agent, projects::fixes()];
    let cluster =
        TestCluster::with(scripts, "[kubernetes.cluster_access]\ntrader = \"orchestrator-inspector\"");
    cluster.apply_object(&binding());
    too_much().iter().for_each(|object| cluster.apply_object(object));
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    let token = cluster.wait_for("the token", || {
        let file = cluster.kubelet.volume_file("secrets", "kubernetes-token")?;
        std::fs::read_to_string(file).ok().filter(|token| !token.is_empty())
    });
    let looked = outcome(&cluster, &run);
    assert_eq!(looked.reason, Reason::Completed, "{looked:#?}");
    let server = looked.mcp_servers.iter().find(|server| server.name == "kubernetes").expect("the server");
    assert!(server.status == McpStatus::Connected && server.tools > 5, "{server:?}");
    cluster.env.assert_invariants(&looked);
    let requests: Vec<String> =
        cluster.env.model.requests().iter().map(|request| request.body.to_string()).collect();
    assert!(!requests.iter().any(|body| body.contains(&token)), "the model saw the token");
    let workspace = cluster.kubelet.claim_folder(NAMESPACE, "workspace-trader").expect("a workspace");
    assert_not_below(&workspace, &token);
    assert!(!cluster.everything_visible().contains(&token), "the token can be seen");

    // The other service has no access.
    let run = cluster.submit("auth", "1", &[]);
    let other = outcome(&cluster, &run);
    assert!(other.mcp_servers.iter().all(|server| server.name != "kubernetes"), "{other:#?}");
    cluster.env.model.assert_played();
}
