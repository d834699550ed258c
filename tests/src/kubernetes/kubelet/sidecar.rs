//! A sidecar: an init container that is restarted until the main container has ended.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::launch::{Launched, Prepared, launch};
use super::report::{ContainerReport, Report, waiting};
use super::{Inner, LOOK, News};

/// Time before the first restart, doubled for each further one; a real kubelet waits 10 seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Maximum time before a restart.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// A running sidecar.
pub struct Sidecar {
    /// When it is killed, once it may end.
    stop: watch::Sender<Option<Instant>>,
    /// Whether it has ever run.
    started: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// What the task of a sidecar works with.
pub struct Context {
    pub inner: Arc<Inner>,
    pub pod: Arc<Value>,
    pub container: Value,
    /// Index of the container in the report.
    pub index: usize,
    pub prepared: Prepared,
    pub news: News,
    pub report: Arc<watch::Sender<Report>>,
}

impl Sidecar {
    pub fn start(context: Context) -> Self {
        let (stop, stopped) = watch::channel(None);
        let (tell, started) = watch::channel(false);
        Self { stop, started, task: tokio::spawn(keep_running(context, stopped, tell)) }
    }

    /// Returns whether it has ever run, and a receiver of that.
    pub fn started(&self) -> watch::Receiver<bool> {
        self.started.clone()
    }

    /// Terminates it and waits for its end; it is killed at the deadline.
    pub async fn stop(self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        self.task.await.ok();
    }
}

impl Context {
    fn set(&self, change: impl FnOnce(&mut ContainerReport)) {
        self.report.send_modify(|report| change(&mut report.containers[self.index]));
    }
}

/// Runs the program until the sidecar may end, and restarts it when it exits before.
async fn keep_running(
    mut context: Context,
    mut stop: watch::Receiver<Option<Instant>>,
    started: watch::Sender<bool>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let state = match launch(&context.inner, &context.pod, &context.container, &context.prepared) {
            Err(state) => state,
            Ok(mut launched) => {
                let running = json!({"running": {"startedAt": launched.started}});
                context.set(|container| container.state = running);
                started.send_replace(true);
                let status = wait(&mut launched, &mut stop, &mut context.news).await;
                let Context { inner, pod, container, prepared, .. } = &context;
                launched.finish(inner, pod, container, prepared, status).await.state
            }
        };
        let backing_off = waiting("CrashLoopBackOff", "back-off restarting failed container");
        if !is_over(&stop, &context.news) {
            context.set(|container| {
                container.last_state = state.clone();
                container.state = backing_off;
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
        if is_over(&stop, &context.news) {
            context.set(|container| container.state = state);
            return;
        }
        pause = (pause * 2).min(MAX_PAUSE);
        context.set(|container| container.restarts += 1);
    }
}

/// Returns whether the sidecar may end, or its pod or node is gone.
fn is_over(stop: &watch::Receiver<Option<Instant>>, news: &News) -> bool {
    stop.borrow().is_some()
        || stop.has_changed().is_err()
        || news.borrow().is_none()
        || news.has_changed().is_err()
}

/// Waits for the program's exit.
async fn wait(
    launched: &mut Launched,
    stop: &mut watch::Receiver<Option<Instant>>,
    news: &mut News,
) -> ExitStatus {
    let mut looks = tokio::time::interval(LOOK);
    let (mut asked, mut killed) = (false, false);
    loop {
        let deadline = *stop.borrow_and_update();
        if deadline.is_some() && !asked {
            launched.group.terminate();
            asked = true;
        }
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let gone = tokio::select! {
            status = launched.child.wait() => return status.expect("our own child"),
            _ = looks.tick() => {
                launched.group.look();
                false
            }
            () = expired, if !killed => true,
            changed = stop.changed(), if !killed => changed.is_err(),
            changed = news.changed(), if !killed => changed.is_err() || news.borrow_and_update().is_none(),
        };
        if gone {
            launched.group.kill();
            killed = true;
        }
    }
}
