//! The server: discovery, definitions, events, leases, collections.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::discovery::Discovery;
use kube::runtime::events::{Event as News, EventType, Recorder, Reporter};
use serde_json::json;

use super::{ClusterEnv, definition, eventually, object, refusal, thing};

#[tokio::test]
async fn client_discovers_served_resources() {
    let env = ClusterEnv::new().await;
    env.things().await;
    env.client.apiserver_version().await.expect("a version");
    // A real server lists a new definition slightly after it serves it.
    eventually("the definition is listed", || async {
        let discovery = Discovery::new(env.client.clone()).run().await.expect("a discovery");
        let has = |group: &str, kind: &str| {
            let found = discovery.get(group).into_iter().flat_map(|group| group.recommended_resources());
            found.into_iter().any(|(resource, _)| resource.kind == kind)
        };
        assert!(has("", "Pod") && has("batch", "Job") && has("coordination.k8s.io", "Lease"));
        has("example.com", "Thing").then_some(())
    })
    .await;
}

#[tokio::test]
async fn invalid_crd_is_rejected() {
    let env = ClusterEnv::new().await;
    let kind = kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> =
        Api::all_with(env.client.clone(), &kube::core::ApiResource::from_gvk(&kind));
    let mut wrong_name = definition();
    wrong_name["metadata"]["name"] = json!("other.example.com");
    let mut wrong_rule = definition();
    wrong_rule["metadata"]["name"] = json!("stuffs.example.com");
    wrong_rule["spec"]["names"] =
        json!({"plural": "stuffs", "singular": "stuff", "kind": "Stuff", "listKind": "StuffList"});
    let schema = &mut wrong_rule["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "self.size >"}]);
    for wrong in [wrong_name, wrong_rule] {
        let (code, reason, message) =
            refusal(definitions.create(&PostParams::default(), &object(wrong)).await);
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
    }
}

#[tokio::test]
async fn unknown_fields_are_dropped_or_rejected_as_requested() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let things = env.things().await;
    let strict =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("ours") };
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "datum": {"k": "v"}});
    let mut other = thing("a", json!({"color": "red"}));
    other["spec"]["extra"] = json!(1);
    let refused = [
        refusal(maps.patch("a", &strict, &Patch::Apply(&map)).await),
        refusal(things.patch("a", &strict, &Patch::Apply(&other)).await),
    ];
    for (code, _, message) in refused {
        assert!(matches!(code, 400 | 422 | 500), "{code} {message}");
        assert!(message.contains("datum") || message.contains("extra"), "{message}");
    }
    let merge = PatchParams::default();
    things
        .create(&PostParams::default(), &object(thing("a", json!({"color": "red"}))))
        .await
        .expect("a thing");
    let lax = things.patch("a", &merge, &Patch::Merge(json!({"spec": {"extra": 1}}))).await.expect("a patch");
    assert_eq!(lax.data["spec"].get("extra"), None);
}

#[tokio::test]
async fn event_is_visible_in_both_api_groups() {
    let env = ClusterEnv::new().await;
    let reporter =
        Reporter { controller: "example.com/controller".to_owned(), instance: Some("one".to_owned()) };
    let recorder = Recorder::new(env.client.clone(), reporter);
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        name: Some("a".to_owned()),
        namespace: Some(env.namespace.clone()),
        uid: Some("0".to_owned()),
        ..ObjectReference::default()
    };
    let news = |action: &str| News {
        type_: EventType::Warning,
        reason: "Reason".to_owned(),
        note: Some("a note".to_owned()),
        action: action.to_owned(),
        secondary: None,
    };
    recorder.publish(&news("Look"), &about).await.expect("an event");
    let (code, _, message) = refusal(recorder.publish(&news(&"x".repeat(200)), &about).await);
    assert_eq!(code, 422, "{message}");
    let events = env.api::<Event>().list(&ListParams::default()).await.expect("events").items;
    let note = events.iter().find(|it| it.action.as_deref() == Some("Look")).and_then(|it| it.note.clone());
    assert_eq!(note.as_deref(), Some("a note"));
    let of_it = ListParams::default().fields("involvedObject.name=a");
    let events = env.api::<CoreEvent>().list(&of_it).await.expect("events").items;
    assert_eq!(events.first().and_then(|it| it.message.as_deref()), Some("a note"));
}

#[tokio::test]
async fn lease_has_single_holder() {
    let env = ClusterEnv::new().await;
    let leases = env.api::<Lease>();
    let lease = |holder: &str, version: Option<String>| -> Lease {
        object(json!({"metadata": {"name": "a", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.123456Z"}}))
    };
    let made = leases.create(&PostParams::default(), &lease("one", None)).await.expect("a lease");
    let version = made.metadata.resource_version;
    leases.replace("a", &PostParams::default(), &lease("two", version.clone())).await.expect("a new holder");
    let (code, reason, _) =
        refusal(leases.replace("a", &PostParams::default(), &lease("one", version)).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    let kept = leases.get("a").await.expect("the lease").spec.and_then(|spec| spec.renew_time);
    assert_eq!(kept.map(|time| time.0.subsec_microsecond()), Some(123_456));
}

#[tokio::test]
async fn delete_collection_filters_by_labels() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    for (name, color) in [("a", "red"), ("b", "green"), ("c", "red")] {
        let map: ConfigMap = object(json!({"metadata": {"name": name, "labels": {"color": color}}}));
        maps.create(&PostParams::default(), &map).await.expect("a map");
    }
    let red = ListParams::default().labels("color=red");
    maps.delete_collection(&DeleteParams::default(), &red).await.expect("a deletion");
    let left = maps.list(&ListParams::default().labels("color")).await.expect("a list").items;
    assert_eq!(left.iter().filter_map(|map| map.metadata.name.as_deref()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn json_patch_test_guards_change() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let map: ConfigMap = object(json!({"metadata": {"name": "a"}, "data": {"k": "1"}}));
    maps.create(&PostParams::default(), &map).await.expect("a map");
    let patch = async |from: &str, to: &str| {
        let body = json!([
            {"op": "test", "path": "/data/k", "value": from},
            {"op": "replace", "path": "/data/k", "value": to},
        ]);
        let path = format!("/api/v1/namespaces/{}/configmaps/a", env.namespace);
        let request = axum::http::Request::patch(path).header("content-type", "application/json-patch+json");
        env.client.request::<ConfigMap>(request.body(body.to_string().into_bytes()).expect("a request")).await
    };
    patch("1", "2").await.expect("a patch");
    let (code, reason, message) = refusal(patch("1", "3").await);
    assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
    assert_eq!(json!(maps.get("a").await.expect("the map").data), json!({"k": "2"}));
}
