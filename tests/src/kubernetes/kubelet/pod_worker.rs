//! One pod, from binding to deletion.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::environment::Waiting;
use super::launch::{Launched, Prepared, launch, prepare, pull_fault};
use super::report::{Publisher, waiting};
use super::sidecar::{Context, Sidecar};
use super::volumes::{Objects, Volumes};
use super::{Disruption, Inner, LOOK, News, PAUSE, has_ended, is_going, items, text};

/// Time that sidecars have at least, even if the main container used up the grace period.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// Runs a pod until it is deleted.
pub(super) async fn run_pod(inner: Arc<Inner>, mut news: News) {
    let Some(pod) = news.borrow_and_update().clone() else { return };
    if !has_ended(&pod) {
        let mut worker = Worker {
            inner: Arc::clone(&inner),
            pod: Arc::clone(&pod),
            news: news.clone(),
            publisher: Publisher::start(&inner, &pod),
            sidecars: Vec::new(),
        };
        worker.run().await;
        worker.publisher.finish().await;
    }
    // A deleted pod stays until the node confirms that it has stopped.
    if news.wait_for(|pod| pod.as_ref().is_none_or(|pod| is_going(pod))).await.is_ok() {
        let there = news.borrow().is_some();
        if there {
            consent(&inner, &pod).await;
        }
    }
    // The pod's volumes are deleted with it.
    std::fs::remove_dir_all(inner.pod_folder(text(&pod, "/metadata/uid"))).ok();
}

/// Runs the containers of a pod.
struct Worker {
    inner: Arc<Inner>,
    pod: Arc<Value>,
    news: News,
    publisher: Publisher,
    sidecars: Vec<Sidecar>,
}

/// How a pod ended.
struct PodEnd {
    phase: &'static str,
    reason: Option<(&'static str, String)>,
    disruption: Option<&'static str>,
    /// When its containers are killed, if it is being deleted.
    kill_at: Option<Instant>,
}

impl PodEnd {
    fn failed() -> Self {
        Self { phase: "Failed", reason: None, disruption: None, kill_at: None }
    }
}

/// How the program of a container ended.
struct End {
    exit_code: i32,
    struck: Option<Disruption>,
    /// Whether the pod's own deadline had passed.
    late: bool,
    kill_at: Option<Instant>,
}

impl Worker {
    async fn run(&mut self) {
        let end = self.run_containers().await;
        let deadline = end.kill_at.unwrap_or_else(|| Instant::now() + grace(&self.pod));
        let deadline = deadline.max(Instant::now() + SIDECAR_GRACE);
        // The last one first, as they may need each other.
        while let Some(sidecar) = self.sidecars.pop() {
            sidecar.stop(deadline).await;
        }
        self.publisher.update(|report| {
            report.phase = end.phase;
            report.reason = end.reason;
            report.disruption = end.disruption;
        });
    }

    /// Runs init containers, sidecars and the main container until that one has ended.
    async fn run_containers(&mut self) -> PodEnd {
        let pod = Arc::clone(&self.pod);
        let Some((objects, volumes)) = self.create_volumes().await else { return PodEnd::failed() };
        let init: Vec<&Value> = items(&pod, "/spec/initContainers").collect();
        for (index, container) in init.iter().enumerate() {
            let Some(prepared) = self.prepare(index, container, &objects, &volumes).await else {
                return PodEnd::failed();
            };
            let begun = if container["restartPolicy"] == "Always" {
                self.start_sidecar(index, container, prepared).await
            } else {
                self.run_container(index, container, &prepared).await.exit_code == 0
            };
            if !begun || self.is_going() {
                return PodEnd::failed();
            }
        }
        self.publisher.update(|report| report.initialized = true);
        let container = &pod["spec"]["containers"][0];
        let Some(prepared) = self.prepare(init.len(), container, &objects, &volumes).await else {
            return PodEnd::failed();
        };
        let end = self.run_container(init.len(), container, &prepared).await;
        let evicted = (end.struck == Some(Disruption::Evict))
            .then(|| ("Evicted", "The node was low on resource: memory.".to_owned()));
        let late = end.late.then(|| {
            ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline".to_owned())
        });
        let failed = end.exit_code != 0 || evicted.is_some() || late.is_some();
        PodEnd {
            phase: if failed { "Failed" } else { "Succeeded" },
            disruption: evicted.as_ref().map(|_| "TerminationByKubelet"),
            reason: evicted.or(late),
            kill_at: end.kill_at,
        }
    }

    fn is_going(&self) -> bool {
        self.news.borrow().as_ref().is_none_or(|pod| is_going(pod))
    }

    /// Waits for the objects and the volumes of the pod; returns `None` if it is deleted before.
    async fn create_volumes(&mut self) -> Option<(Objects, Volumes)> {
        let main = items(&self.pod, "/spec/initContainers").count();
        loop {
            self.news.borrow_and_update();
            if self.is_going() {
                return None;
            }
            self.inner.connected().await;
            let unready = |message: String| Waiting { reason: "ContainerCreating", message };
            let created = match Objects::fetch(&self.inner, &self.pod).await {
                Ok(objects) => {
                    Volumes::create(&self.inner, &self.pod, &objects).await.map(|volumes| (objects, volumes))
                }
                Err(error) => Err(unready(error.to_string())),
            };
            match created {
                Ok(created) => return Some(created),
                Err(why) => self.publisher.set_state(main, waiting(why.reason, &why.message)),
            }
            tokio::time::timeout(PAUSE, self.news.changed()).await.ok();
        }
    }

    /// Waits for what a container needs; returns `None` if the pod is deleted before.
    async fn prepare(
        &mut self,
        index: usize,
        container: &Value,
        objects: &Objects,
        volumes: &Volumes,
    ) -> Option<Prepared> {
        let mut objects_now = None;
        let mut pulls = 0;
        loop {
            self.news.borrow_and_update();
            if self.is_going() {
                return None;
            }
            let objects = objects_now.as_ref().unwrap_or(objects);
            match prepare(&self.inner, &self.pod, container, index, objects, volumes) {
                Ok(prepared) => return Some(prepared),
                Err(why) if why.reason == "ErrImagePull" && pulls > 0 => {
                    let message = format!("Back-off pulling image {}", container["image"]);
                    self.publisher.set_state(index, waiting("ImagePullBackOff", &message));
                    self.wait_for_image(container).await;
                }
                Err(why) => {
                    self.publisher.set_state(index, waiting(why.reason, &why.message));
                    pulls += usize::from(why.reason == "ErrImagePull");
                    tokio::time::timeout(PAUSE, self.news.changed()).await.ok();
                }
            }
            self.inner.connected().await;
            objects_now = Objects::fetch(&self.inner, &self.pod).await.ok();
        }
    }

    /// Waits until an injected pull error is cleared.
    async fn wait_for_image(&mut self, container: &Value) {
        loop {
            let image = text(container, "/image");
            let named = !container["command"].is_null() || self.inner.program_of(image).is_some();
            if self.is_going() || named && pull_fault(&self.inner, &self.pod, container).is_none() {
                return;
            }
            tokio::time::timeout(PAUSE, self.news.changed()).await.ok();
        }
    }

    /// Starts a sidecar; returns false if the pod is deleted before it runs.
    async fn start_sidecar(&mut self, index: usize, container: &Value, prepared: Prepared) -> bool {
        let sidecar = Sidecar::start(Context {
            inner: Arc::clone(&self.inner),
            pod: Arc::clone(&self.pod),
            container: container.clone(),
            index,
            prepared,
            news: self.news.clone(),
            report: self.publisher.sender(),
        });
        let mut started = sidecar.started();
        self.sidecars.push(sidecar);
        loop {
            if *started.borrow_and_update() {
                return true;
            }
            if self.is_going() || self.news.has_changed().is_err() {
                return false;
            }
            tokio::select! {
                _ = started.changed() => {}
                _ = self.news.changed() => drop(self.news.borrow_and_update()),
            }
        }
    }

    /// Runs a container's program until it exits.
    async fn run_container(&mut self, index: usize, container: &Value, prepared: &Prepared) -> End {
        let mut launched = match launch(&self.inner, &self.pod, container, prepared) {
            Ok(launched) => launched,
            Err(state) => {
                self.publisher.set_state(index, state);
                return End { exit_code: 128, struck: None, late: false, kill_at: None };
            }
        };
        let is_main = index == items(&self.pod, "/spec/initContainers").count();
        let running = json!({"running": {"startedAt": launched.started}});
        self.publisher.update(|report| {
            report.containers[index].state = running;
            if is_main {
                report.phase = "Running";
            }
        });
        let (status, late, kill_at) = self.wait_for_exit(&mut launched).await;
        let ended = launched.finish(&self.inner, &self.pod, container, prepared, status).await;
        self.publisher.set_state(index, ended.state);
        End { exit_code: ended.exit_code, struck: ended.struck, late, kill_at }
    }

    /// Waits for a program; terminates and then kills it when the pod is deleted. Returns whether the pod's own
    /// deadline had passed, and when the pod's containers are killed.
    async fn wait_for_exit(&mut self, launched: &mut Launched) -> (ExitStatus, bool, Option<Instant>) {
        let Launched { child, group, .. } = launched;
        let limit = self.pod["spec"]["activeDeadlineSeconds"].as_u64();
        let deadline = limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let (mut kill_at, mut killed): (Option<Instant>, bool) = (None, false);
        let mut late = false;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let at = |when: Option<Instant>| async move {
                match when {
                    Some(when) => tokio::time::sleep_until(when).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = child.wait() => return (status.expect("our own child"), late, kill_at),
                _ = looks.tick() => group.look(),
                () = at(kill_at.filter(|_| !killed)) => {
                    group.kill();
                    killed = true;
                }
                () = at(deadline.filter(|_| !late)) => {
                    late = true;
                    group.terminate();
                    kill_at = Some(Instant::now() + grace(&self.pod));
                }
                changed = self.news.changed() => {
                    let current = self.news.borrow_and_update().clone().filter(|_| changed.is_ok());
                    match current {
                        // A forced deletion skips the grace period.
                        None => {
                            group.kill();
                            kill_at = Some(Instant::now());
                        }
                        Some(current) if is_going(&current) => {
                            let deadline = Instant::now() + grace(&current);
                            if kill_at.is_none() {
                                group.terminate();
                            }
                            kill_at = Some(kill_at.map_or(deadline, |before| before.min(deadline)));
                        }
                        Some(_) => {}
                    }
                }
            }
            if self.news.has_changed().is_err() {
                // The node stops and kills its programs.
                group.kill();
                return (child.wait().await.expect("our own child"), late, kill_at);
            }
        }
    }
}

fn grace(pod: &Value) -> Duration {
    let requested = pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
    let seconds = requested.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30);
    Duration::from_secs(seconds)
}

/// Confirms the deletion of a pod that stopped.
async fn consent(inner: &Arc<Inner>, pod: &Value) {
    let pods: Api<Pod> = Api::namespaced(inner.client.clone(), text(pod, "/metadata/namespace"));
    let meant = Preconditions { uid: Some(text(pod, "/metadata/uid").to_owned()), resource_version: None };
    let now = DeleteParams::default().grace_period(0).preconditions(meant);
    loop {
        inner.connected().await;
        match pods.delete(text(pod, "/metadata/name"), &now).await {
            // Deleted, or replaced by another pod of the same name.
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
