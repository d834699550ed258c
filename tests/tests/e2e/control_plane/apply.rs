//! Server-side apply: ownership, removal, authorization.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{ClusterEnv, object, refusal, thing};

fn map(data: Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}))
}

#[tokio::test]
async fn apply_sets_or_releases_owned_fields() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let ours = PatchParams::apply("ours");
    maps.patch("a", &ours, &map(json!({"k": "1", "l": "1"}))).await.expect("a new map");
    maps.patch("a", &PatchParams::apply("theirs"), &map(json!({"m": "1"}))).await.expect("a field more");
    let applied = maps.patch("a", &ours, &map(json!({"k": "2"}))).await.expect("a change");
    assert_eq!(
        json!(applied.data),
        json!({"k": "2", "m": "1"}),
        "a field that no manager applies is removed"
    );
    let managers = applied.metadata.managed_fields.unwrap_or_default();
    let mut names: Vec<_> = managers.into_iter().map(|it| (it.manager, it.operation)).collect();
    names.sort();
    let expected = ["ours", "theirs"].map(|it| (Some(it.to_owned()), Some("Apply".to_owned())));
    assert_eq!(names, expected);
}

#[tokio::test]
async fn repeated_apply_keeps_resource_version() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let ours = PatchParams::apply("ours");
    let first = maps.patch("a", &ours, &map(json!({"k": "1"}))).await.expect("a new map");
    let second = maps.patch("a", &ours, &map(json!({"k": "1"}))).await.expect("the same");
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
}

#[tokio::test]
async fn apply_takes_field_of_other_manager_only_by_force() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.patch("a", &PatchParams::apply("theirs"), &map(json!({"k": "1"}))).await.expect("a new map");
    let ours = PatchParams::apply("ours");
    maps.patch("a", &ours, &map(json!({"k": "1"}))).await.expect("the same value is no conflict");
    let (code, reason, message) = refusal(maps.patch("a", &ours, &map(json!({"k": "2"}))).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"theirs\": .data.k");
    let taken = maps.patch("a", &ours.clone().force(), &map(json!({"k": "2"}))).await.expect("by force");
    assert_eq!(json!(taken.data), json!({"k": "2"}));
    let (code, _, _) = refusal(maps.patch("a", &PatchParams::apply("theirs"), &map(json!({"k": "1"}))).await);
    assert_eq!(code, 409);
}

#[tokio::test]
async fn updated_field_belongs_to_updating_manager() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let ours = PatchParams::apply("ours");
    maps.patch("a", &ours, &map(json!({"k": "1"}))).await.expect("a new map");
    let editor = PatchParams { field_manager: Some("editor".to_owned()), ..PatchParams::default() };
    maps.patch("a", &editor, &Patch::Merge(json!({"data": {"k": "2"}}))).await.expect("an edit");
    let (code, _, message) = refusal(maps.patch("a", &ours, &map(json!({"k": "1"}))).await);
    assert_eq!(code, 409);
    assert!(message.contains("conflict with \"editor\"") && message.ends_with(": .data.k"), "{message}");
}

#[tokio::test]
async fn apply_without_field_manager_is_rejected() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let request = axum::http::Request::patch(format!("/api/v1/namespaces/{}/configmaps/a", env.namespace))
        .header("content-type", "application/apply-patch+yaml")
        .body(
            serde_json::to_vec(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))
                .expect("JSON"),
        )
        .expect("a request");
    let (code, _, message) = refusal(env.client.request::<ConfigMap>(request).await);
    assert!(matches!(code, 400 | 422), "{code}: {message}");
    assert!(message.contains("fieldManager"), "{message}");
    assert_eq!(refusal(maps.get("a").await).0, 404);
}

#[tokio::test]
async fn keyed_lists_merge_by_key() {
    let env = ClusterEnv::new().await;
    let things = env.things().await;
    things
        .create(&PostParams::default(), &object(thing("a", json!({"color": "red"}))))
        .await
        .expect("a thing");
    let apply = async |manager: &str, conditions: Value| {
        let status = json!({
            "apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
            "status": {"conditions": conditions},
        });
        let applied = things.patch_status("a", &PatchParams::apply(manager), &Patch::Apply(status)).await;
        applied.expect("a status").data["status"]["conditions"].clone()
    };
    apply("one", json!([{"type": "Ready", "status": "True"}, {"type": "Slow", "status": "True"}])).await;
    let both = apply("two", json!([{"type": "Done", "status": "False"}])).await;
    assert_eq!(both.as_array().map(Vec::len), Some(3));
    let left = apply("one", json!([{"type": "Ready", "status": "False"}])).await;
    let expected = json!([{"type": "Ready", "status": "False"}, {"type": "Done", "status": "False"}]);
    assert_eq!(left, expected);
}

#[tokio::test]
async fn user_permissions_follow_rbac_roles() {
    let env = ClusterEnv::new().await;
    let namespace = &env.namespace;
    for (path, body) in [
        (
            "roles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}),
        ),
        (
            "rolebindings",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": namespace}]}),
        ),
    ] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{path}");
        let request = axum::http::Request::post(path).header("content-type", "application/json");
        let request = request.body(body.to_string().into_bytes()).expect("a request");
        env.client.request::<Value>(request).await.expect("a role");
    }
    let file = env.plane().kubeconfig_for_account(namespace, "robot");
    let config = kube::config::Kubeconfig::read_from(file).expect("a kubeconfig");
    let config =
        kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await;
    let robot = Client::try_from(config.expect("a configuration")).expect("a client");
    // The authorizer of a real server learns new roles slightly later.
    let pods: Api<Pod> = Api::namespaced(robot.clone(), namespace);
    super::eventually("the role holds", || async { pods.list(&ListParams::default()).await.ok() }).await;
    let (code, reason, message) = refusal(pods.get("a").await);
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    let user = format!("system:serviceaccount:{namespace}:robot");
    assert!(
        message.contains(&format!(
            "User \"{user}\" cannot get resource \"pods\" in API group \"\" in the namespace \"{namespace}\""
        )),
        "{message}"
    );
    let everywhere: Api<Pod> = Api::all(robot);
    assert_eq!(refusal(everywhere.list(&ListParams::default()).await).0, 403);
    assert!(env.plane().requests().iter().any(|it| it.user == user && it.status == 403));
}
