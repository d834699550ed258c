//! Objects: names, versions, generations, immutability, deletion.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use serde_json::{Value, json};

use super::{ClusterEnv, eventually, object, refusal, thing};

fn map(name: &str, data: Value) -> ConfigMap {
    object(json!({"metadata": {"name": name}, "data": data}))
}

#[tokio::test]
async fn duplicate_name_is_rejected() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let made = maps.create(&PostParams::default(), &map("a", json!({"k": "v"}))).await.expect("a map");
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let (code, reason, message) = refusal(maps.create(&PostParams::default(), &map("a", json!({}))).await);
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
    let (code, reason, message) = refusal(maps.get("b").await);
    assert_eq!((code, reason.as_str(), message.as_str()), (404, "NotFound", "configmaps \"b\" not found"));
}

#[tokio::test]
async fn object_in_missing_namespace_is_rejected() {
    let env = ClusterEnv::new().await;
    let elsewhere: Api<ConfigMap> = Api::namespaced(env.client.clone(), "not-there");
    let (code, _, message) = refusal(elsewhere.create(&PostParams::default(), &map("a", json!({}))).await);
    assert_eq!((code, message.as_str()), (404, "namespaces \"not-there\" not found"));
}

#[tokio::test]
async fn generated_name_is_unique() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let template: ConfigMap = object(json!({"metadata": {"generateName": "some-"}}));
    let first = maps.create(&PostParams::default(), &template).await.expect("a map").metadata.name;
    let second = maps.create(&PostParams::default(), &template).await.expect("a map").metadata.name;
    assert_ne!(first, second);
    assert!(first.is_some_and(|name| name.starts_with("some-") && name.len() == 10));
}

#[tokio::test]
async fn dry_run_creation_is_not_stored() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("a", json!({}))).await.expect("a map");
    assert_eq!(refusal(maps.get("a").await).0, 404);
}

#[tokio::test]
async fn update_of_old_version_is_conflict() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let first = maps.create(&PostParams::default(), &map("a", json!({"k": "1"}))).await.expect("a map");
    let mut next = first.clone();
    next.data = Some([("k".to_owned(), "2".to_owned())].into());
    let second = maps.replace("a", &PostParams::default(), &next).await.expect("an update");
    assert_ne!(first.metadata.resource_version, second.metadata.resource_version);
    let (code, reason, _) = refusal(maps.replace("a", &PostParams::default(), &next).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
}

#[tokio::test]
async fn unchanged_patch_keeps_resource_version() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let first = maps.create(&PostParams::default(), &map("a", json!({"k": "1"}))).await.expect("a map");
    let patch = Patch::Merge(json!({"data": {"k": "1"}}));
    let second = maps.patch("a", &PatchParams::default(), &patch).await.expect("a patch");
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
}

#[tokio::test]
async fn patch_merges_or_removes_fields() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map("a", json!({"k": "1", "l": "1"}))).await.expect("a map");
    let patch = Patch::Merge(json!({"data": {"k": null, "m": "2"}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.expect("a patch");
    assert_eq!(json!(patched.data), json!({"l": "1", "m": "2"}));
    let patch = Patch::Strategic(json!({"metadata": {"labels": {"x": "y"}}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.expect("a patch");
    assert_eq!(json!(patched.metadata.labels), json!({"x": "y"}));
}

#[tokio::test]
async fn list_filters_by_selectors() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    for (name, color) in [("a", "red"), ("b", "green"), ("c", "red")] {
        let map: ConfigMap = object(json!({"metadata": {"name": name, "labels": {"color": color}}}));
        maps.create(&PostParams::default(), &map).await.expect("a map");
    }
    let names = async |parameters: &ListParams| {
        let list = maps.list(parameters).await.expect("a list");
        list.items
            .into_iter()
            .filter_map(|map| map.metadata.name)
            .filter(|it| it.len() == 1)
            .collect::<String>()
    };
    assert_eq!(names(&ListParams::default().labels("color=red")).await, "ac");
    assert_eq!(names(&ListParams::default().labels("color in (green, blue)")).await, "b");
    assert_eq!(names(&ListParams::default().labels("color notin (green)")).await, "ac");
    assert_eq!(names(&ListParams::default().labels("color,color!=red")).await, "b");
    assert_eq!(names(&ListParams::default().fields("metadata.name=b")).await, "b");
    let (code, _, message) = refusal(maps.list(&ListParams::default().fields("spec.nothing=b")).await);
    assert_eq!(code, 400, "{message}");
}

#[tokio::test]
async fn invalid_names_or_labels_are_rejected() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    for wrong in [
        json!({"metadata": {"name": "Upper"}}),
        json!({"metadata": {"name": "a".repeat(254)}}),
        json!({"metadata": {"name": "a", "labels": {"k": "a".repeat(64)}}}),
        json!({"metadata": {"name": "a", "labels": {"k": "no spaces"}}}),
        json!({"metadata": {"name": "a", "labels": {"-k": "v"}}}),
        json!({"metadata": {"name": "a", "finalizers": ["unqualified"]}}),
        json!({"metadata": {"name": "a"}, "data": {"no/slash": "v"}}),
    ] {
        let (code, reason, message) =
            refusal(maps.create(&PostParams::default(), &object(wrong.clone())).await);
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{wrong}: {message}");
    }
}

#[tokio::test]
async fn immutable_configmap_rejects_data_changes() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let fixed: ConfigMap = object(json!({"metadata": {"name": "a"}, "data": {"k": "v"}, "immutable": true}));
    maps.create(&PostParams::default(), &fixed).await.expect("a map");
    for change in [json!({"data": {"k": "w"}}), json!({"immutable": null})] {
        let (code, reason, message) =
            refusal(maps.patch("a", &PatchParams::default(), &Patch::Merge(change)).await);
        assert_eq!((code, reason.as_str()), (422, "Invalid"));
        assert!(message.contains("field is immutable when `immutable` is set"), "{message}");
    }
    let label = Patch::Merge(json!({"metadata": {"labels": {"k": "v"}}}));
    maps.patch("a", &PatchParams::default(), &label).await.expect("metadata may change");
}

#[tokio::test]
async fn oversized_object_is_rejected() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let large = map("a", json!({"k": "x".repeat((1 << 20) + 1)}));
    let (code, reason, message) = refusal(maps.create(&PostParams::default(), &large).await);
    assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
    let fits = map("a", json!({"k": "x".repeat(1 << 20)}));
    maps.create(&PostParams::default(), &fits).await.expect("a map of one MiB");
    let things = env.things().await;
    let huge = |bytes: usize| -> DynamicObject {
        object(thing(&format!("x{bytes}"), json!({"color": "red", "rest": {"k": "x".repeat(bytes)}})))
    };
    things.create(&PostParams::default(), &huge(1 << 20)).await.expect("a thing of one MiB");
    // Below the limit of requests, above the limit of etcd.
    let (code, _, message) = refusal(things.create(&PostParams::default(), &huge(1_700_000)).await);
    assert_eq!((code, message.as_str()), (500, "etcdserver: request is too large"));
    let (code, reason, message) = refusal(things.create(&PostParams::default(), &huge(4 << 20)).await);
    assert_eq!((code, reason.as_str()), (413, "RequestEntityTooLarge"), "{message}");
}

#[tokio::test]
async fn finalizer_blocks_deletion() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let held: ConfigMap = object(json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}));
    maps.create(&PostParams::default(), &held).await.expect("a map");
    let deleted = maps.delete("a", &DeleteParams::default()).await.expect("a deletion");
    assert!(
        deleted.left().is_some_and(|map| map.metadata.deletion_timestamp.is_some()),
        "it is shown as it goes"
    );
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}));
    let (code, reason, message) = refusal(maps.patch("a", &PatchParams::default(), &more).await);
    assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &release).await.expect("a release");
    assert_eq!(refusal(maps.get("a").await).0, 404);
}

#[tokio::test]
async fn deletion_preconditions_are_checked() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map("a", json!({}))).await.expect("a map");
    let meant = Preconditions { uid: Some("0".to_owned()), resource_version: None };
    let other = DeleteParams::default().preconditions(meant);
    let (code, reason, _) = refusal(maps.delete("a", &other).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    let deleted = maps.delete("a", &DeleteParams::default()).await.expect("a deletion");
    assert!(deleted.right().is_some_and(|status| status.is_success()));
}

#[tokio::test]
async fn namespace_deletion_removes_its_content() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map("a", json!({}))).await.expect("a map");
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces.delete(&env.namespace, &DeleteParams::default()).await.expect("a deletion");
    eventually("the namespace is gone", || async {
        namespaces.get_opt(&env.namespace).await.expect("an answer").is_none().then_some(())
    })
    .await;
    assert_eq!(refusal(maps.get("a").await).0, 404);
}

#[tokio::test]
async fn status_subresource_is_written_separately() {
    let env = ClusterEnv::new().await;
    let things = env.things().await;
    let mut new = thing("a", json!({"color": "red"}));
    new["status"] = json!({"phase": "Early"});
    let made = things.create(&PostParams::default(), &object(new)).await.expect("a thing");
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.data.get("status"), None, "status is ignored at creation");
    assert_eq!(made.data["spec"]["size"], 3, "the default");
    let patch = Patch::Merge(json!({"spec": {"size": 9}, "status": {"phase": "Done"}}));
    let written = things.patch_status("a", &PatchParams::default(), &patch).await.expect("a status");
    assert_eq!(written.metadata.generation, Some(1));
    assert_eq!(
        (&written.data["spec"]["size"], &written.data["status"]["phase"]),
        (&json!(3), &json!("Done"))
    );
    let patch = Patch::Merge(json!({"spec": {"size": 4}, "status": {"phase": "SupervisorLost"}}));
    let changed = things.patch("a", &PatchParams::default(), &patch).await.expect("a spec");
    assert_eq!(changed.metadata.generation, Some(2));
    assert_eq!(
        (&changed.data["spec"]["size"], &changed.data["status"]["phase"]),
        (&json!(4), &json!("Done"))
    );
    let label = Patch::Merge(json!({"metadata": {"labels": {"k": "v"}}}));
    let labeled = things.patch("a", &PatchParams::default(), &label).await.expect("a label");
    assert_eq!(labeled.metadata.generation, Some(2));
}

#[tokio::test]
async fn crd_schema_and_rules_are_enforced() {
    let env = ClusterEnv::new().await;
    let things = env.things().await;
    for wrong in [
        json!({}),
        json!({"color": "blue"}),
        json!({"color": "red", "size": 0}),
        json!({"color": "red", "size": "3"}),
        json!({"color": "red", "note": "longer"}),
        json!({"color": "red", "note": "x", "size": 1}),
    ] {
        let result = things.create(&PostParams::default(), &object(thing("a", wrong.clone()))).await;
        let (code, reason, message) = refusal(result);
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{wrong}: {message}");
    }
    let rest = json!({"color": "red", "extra": 1, "note": null, "rest": {"extra": 1}});
    let made = things.create(&PostParams::default(), &object(thing("a", rest))).await.expect("a thing");
    assert_eq!(made.data["spec"], json!({"color": "red", "size": 3, "note": null, "rest": {"extra": 1}}));
    let patch = Patch::Merge(json!({"spec": {"color": "green"}}));
    let (code, _, message) = refusal(things.patch("a", &PatchParams::default(), &patch).await);
    assert_eq!(code, 422);
    assert!(message.contains("color cannot change"), "{message}");
}

#[tokio::test]
async fn custom_object_update_requires_resource_version() {
    let env = ClusterEnv::new().await;
    let things = env.things().await;
    let new: DynamicObject = object(thing("a", json!({"color": "red"})));
    things.create(&PostParams::default(), &new).await.expect("a thing");
    let (code, _, message) = refusal(things.replace("a", &PostParams::default(), &new).await);
    assert_eq!(code, 422, "{message}");
    assert!(message.contains("must be specified for an update"), "{message}");
}

#[tokio::test]
async fn job_template_is_immutable() {
    let env = ClusterEnv::new().await;
    let jobs = env.api::<Job>();
    let job = |restart: &str, name: &str| -> Job {
        object(json!({"metadata": {"name": name}, "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": restart, "containers": [{"name": "main", "image": "image:1"}]}}}}))
    };
    assert_eq!(refusal(jobs.create(&PostParams::default(), &job("Always", "a")).await).0, 422);
    assert_eq!(refusal(jobs.create(&PostParams::default(), &job("Never", &"a".repeat(64))).await).0, 422);
    let made = jobs.create(&PostParams::default(), &job("Never", "a")).await.expect("a job");
    let labels = made.spec.and_then(|spec| spec.template.metadata).and_then(|metadata| metadata.labels);
    let labels = labels.expect("labels");
    for label in
        ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"]
    {
        assert!(labels.contains_key(label), "{label}");
    }
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "image:2"}]}}}});
    let (code, _, message) =
        refusal(jobs.patch("a", &PatchParams::default(), &Patch::Strategic(image)).await);
    assert_eq!(code, 422);
    assert!(message.contains("field is immutable"), "{message}");
}
