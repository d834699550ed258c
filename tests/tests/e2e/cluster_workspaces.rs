//! Removal of the workspaces of a cluster, by a user with the role of `dispatcher/deploy` and by one with more.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use orchestrator_contract::Reason;
use orchestrator_tests::kubernetes::test_cluster::TestCluster;
use orchestrator_tests::projects;
use serde_json::{Value, json};

/// Grants the users what docs/kubernetes.md names.
fn grant_removal(cluster: &TestCluster) {
    let rbac = "rbac.authorization.k8s.io";
    let rule = |resource: &str, verbs: [&str; 3]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
    cluster.apply_object(&json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "cleanup"},
        "rules": [
            rule("persistentvolumeclaims", ["get", "list", "delete"]),
            rule("configmaps", ["get", "create", "patch"]),
        ],
    }));
    cluster.apply_object(&json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "cleanup"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "cleanup"},
        "subjects": [{"apiGroup": rbac, "kind": "Group", "name": "users"}],
    }));
}

#[test]
fn removed_workspace_volume_keeps_attempt_numbers() {
    let cluster = TestCluster::start(projects::fixes());
    let _controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    let active = cluster.dispatcher(&["gc", "--workspaces", "--service", "trader", "--yes"]);
    assert!(active.stdout.contains(&format!("kept: {run} is active")), "{active:?}");
    assert_eq!(cluster.end(&run)["reason"], "Completed");

    let shown = cluster.dispatcher(&["gc", "--workspaces", "-o", "json"]);
    let plan: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    let plan = &plan["workspaces"][0];
    assert_eq!((&plan["workspace"], &plan["action"]), (&json!("workspace-trader"), &json!("remove")));
    assert!(plan["size"].as_str().is_some_and(|size| size.starts_with("volume of ")), "{plan}");
    let mounted = cluster.dispatcher(&["gc", "--workspaces", "--yes"]);
    assert_eq!(mounted.code, i32::from(Reason::WorkspaceBusy.exit_code()), "{mounted:?}");
    assert!(mounted.stderr.contains(&format!("kubectl delete job {run}")), "{mounted:?}");
    cluster.delete_job(&run);
    cluster.wait_for("deletion of the pod", || cluster.pods().is_empty().then_some(()));
    let refused = cluster.dispatcher(&["gc", "--workspaces", "--yes"]);
    assert_eq!(refused.code, i32::from(Reason::PermissionDenied.exit_code()), "{refused:?}");
    assert!(refused.stderr.contains("docs/kubernetes.md"), "{refused:?}");
    assert_eq!(cluster.all::<PersistentVolumeClaim>().len(), 1);

    grant_removal(&cluster);
    let removed = cluster.dispatcher(&["gc", "--workspaces", "--yes"]);
    assert!(removed.stdout.contains("removed 1 workspace"), "{removed:?}");
    cluster.wait_for("deletion of the volume", || {
        cluster.all::<PersistentVolumeClaim>().is_empty().then_some(())
    });
    // Nothing else knows that the number was used.
    cluster.delete(&run);
    cluster.wait_for("deletion of the run", || cluster.run(&run).is_none().then_some(()));
    let next = cluster.submit("trader", "1", &[]);
    assert_eq!(next, "trader-claude-agent-1-task1-attempt2");
    assert_eq!(cluster.end(&next)["reason"], "BranchExists");
}

#[test]
fn client_learns_which_keys_controller_decides() {
    let cluster = TestCluster::start(projects::fixes());
    let done = cluster.dispatcher(&["submit", "--service", "trader", "--task", "1", "-o", "json"]);
    let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let rule = "is ignored here: in a cluster, the controller's orchestrator.toml decides";
    let expected = ["`github_api_url`", "`git_hosts` of [agents.claude-agent-1]"];
    assert_eq!(value["warnings"], json!(expected.map(|key| format!("{key} {rule}"))));
}
