//! Watches: events, start versions, errors.

use std::pin::pin;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio::time::timeout;

use super::{ClusterEnv, LIMIT, object};

fn map(name: &str, color: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name, "labels": {"color": color}}}))
}

/// Returns a text for the next event about an object.
async fn next<E: std::fmt::Debug>(
    events: &mut (impl Stream<Item = Result<WatchEvent<ConfigMap>, E>> + Unpin),
) -> String {
    loop {
        let event = timeout(LIMIT, events.next())
            .await
            .expect("an event before the timeout")
            .expect("an open stream");
        return match event.expect("no broken stream") {
            WatchEvent::Added(map) => format!("+{}", map.metadata.name.unwrap_or_default()),
            WatchEvent::Modified(map) => format!("~{}", map.metadata.name.unwrap_or_default()),
            WatchEvent::Deleted(map) => format!("-{}", map.metadata.name.unwrap_or_default()),
            WatchEvent::Error(error) => format!("{} {}", error.code, error.reason),
            WatchEvent::Bookmark(_) => continue,
        };
    }
}

#[tokio::test]
async fn watch_returns_changes_since_version() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map("a", "red")).await.expect("a map");
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let version = list.metadata.resource_version.expect("a version");
    maps.create(&PostParams::default(), &map("b", "red")).await.expect("a map");
    let patch = Patch::Merge(json!({"data": {"k": "v"}}));
    maps.patch("a", &PatchParams::default(), &patch).await.expect("a patch");
    maps.delete("b", &DeleteParams::default()).await.expect("a deletion");
    let mut events = pin!(maps.watch(&WatchParams::default(), &version).await.expect("a watch"));
    for expected in ["+b", "~a", "-b"] {
        assert_eq!(next(&mut events).await, expected);
    }
    maps.create(&PostParams::default(), &map("c", "red")).await.expect("a map");
    assert_eq!(next(&mut events).await, "+c", "and what happens now");
}

#[tokio::test]
async fn object_no_longer_matching_watch_appears_deleted() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map("a", "red")).await.expect("a map");
    let red = WatchParams::default().labels("color=red");
    let mut events = pin!(maps.watch(&red, "0").await.expect("a watch"));
    assert_eq!(next(&mut events).await, "+a");
    for (color, expected) in [("green", "-a"), ("red", "+a")] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"color": color}}}));
        maps.patch("a", &PatchParams::default(), &patch).await.expect("a patch");
        assert_eq!(next(&mut events).await, expected);
    }
}

#[tokio::test]
async fn watch_ends_at_timeout() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    let events = maps.watch(&WatchParams::default().timeout(1), "0").await.expect("a watch");
    let all: Vec<_> = timeout(LIMIT, events.try_collect()).await.expect("an end").expect("a clean end");
    assert!(all.iter().all(|event| !matches!(event, WatchEvent::Error(_))), "{all:?}");
}

#[tokio::test]
async fn list_can_be_streamed() {
    let env = ClusterEnv::new().await;
    let maps = env.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map("a", "red")).await.expect("a map");
    let streaming = watcher::Config::default().streaming_lists().labels("color=red");
    let mut events = pin!(watcher(maps, streaming));
    let mut reported = Vec::new();
    loop {
        let event = timeout(LIMIT, events.next())
            .await
            .expect("an event before the timeout")
            .expect("an open stream");
        match event.expect("no error") {
            watcher::Event::Init => reported.push("init".to_owned()),
            watcher::Event::InitApply(map) => reported.extend(map.metadata.name),
            watcher::Event::InitDone => break,
            other => panic!("too early: {other:?}"),
        }
    }
    assert_eq!(reported, ["init", "a"]);
}

#[tokio::test]
async fn expired_history_restarts_watches() {
    let env = ClusterEnv::alone().await;
    let maps = env.api::<ConfigMap>();
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let old = list.metadata.resource_version.expect("a version");
    let mut following = pin!(watcher(maps.clone(), watcher::Config::default().labels("color=red")));
    while !matches!(following.next().await, Some(Ok(watcher::Event::InitDone))) {}
    env.plane().expire().await;
    // The first connections were reset.
    let watch = || async { maps.watch(&WatchParams::default(), &old).await.ok() };
    let mut events = pin!(super::eventually("a watch", watch).await);
    assert_eq!(next(&mut events).await, "410 Expired");
    maps.create(&PostParams::default(), &map("a", "red")).await.expect("a map");
    // kube's watcher lists again and finds the missed change.
    let found = async {
        loop {
            if let Some(Ok(watcher::Event::InitApply(map))) = following.next().await {
                return map.metadata.name;
            }
        }
    };
    assert_eq!(timeout(LIMIT, found).await.expect("in time").as_deref(), Some("a"));
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let new = list.metadata.resource_version.expect("a version");
    let mut events = pin!(maps.watch(&WatchParams::default(), &new).await.expect("a watch"));
    maps.create(&PostParams::default(), &map("b", "red")).await.expect("a map");
    assert_eq!(next(&mut events).await, "+b", "what is new enough is followed");
}

#[tokio::test]
async fn metadata_only_requests_are_served() {
    let env = ClusterEnv::new().await;
    let maps: Api<ConfigMap> = env.api();
    let full: ConfigMap = object(json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
    maps.create(&PostParams::default(), &full).await.expect("a map");
    let part = maps.get_metadata("a").await.expect("metadata");
    assert_eq!(part.types.map(|it| it.kind).as_deref(), Some("PartialObjectMetadata"));
    let list = maps.list_metadata(&ListParams::default()).await.expect("a list");
    assert!(list.items.iter().any(|it| it.metadata.name.as_deref() == Some("a")));
}
