//! The Job controller: creates a pod for each attempt and records the result in the Job's status.
//!
//! Like the real one it counts a pod once and then removes its finalizer, announces the end
//! (`FailureTarget`, `SuccessCriteriaMet`) before the last pod is deleted, and declares it afterwards.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api_state::{ApiState, WriteOptions, generate_name, now};
use super::deletion::DeleteOptions;
use super::garbage::drop_finalizer;
use super::resource_path::ResourcePath;
use super::store::Key;

/// Finalizer of pods that are not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// Seconds before the second attempt; doubled for each further one.
const BACKOFF: i64 = 10;

/// Reconciles all Jobs; returns when to reconcile again without a change.
pub fn reconcile(state: &mut ApiState) -> Option<Duration> {
    release_strays(state);
    let jobs: Vec<Key> = state.store.list("jobs.batch", None).map(|(key, _)| key.clone()).collect();
    let waits: Vec<i64> = jobs.iter().filter_map(|key| reconcile_job(state, key)).collect();
    // Rounded up to a whole second: times have no fractions.
    waits.into_iter().min().map(|seconds| Duration::from_millis(seconds.max(0).unsigned_abs() * 1000 + 50))
}

/// Releases the pods of deleted Jobs.
fn release_strays(state: &mut ApiState) {
    let pods = state.store.list("pods", None).filter(|(_, pod)| is_tracked(pod));
    let pods: Vec<(Key, Arc<Value>)> = pods.map(|(key, pod)| (key.clone(), Arc::clone(pod))).collect();
    for (key, pod) in pods {
        let alive = state
            .store
            .list("jobs.batch", Some(&key.namespace))
            .any(|(_, job)| owns(job, &pod) && job["metadata"]["deletionTimestamp"].is_null());
        if !alive {
            state.amend(&key, |pod| drop_finalizer(pod, TRACKING));
        }
    }
}

fn owns(job: &Value, pod: &Value) -> bool {
    let mut owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| owner["controller"] == true && owner["uid"] == job["metadata"]["uid"])
}

fn is_tracked(pod: &Value) -> bool {
    pod["metadata"]["finalizers"].as_array().into_iter().flatten().any(|it| it == TRACKING)
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn has_ended(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn is_going(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

fn seconds_since(time: &Value) -> Option<i64> {
    let time: Timestamp = time.as_str()?.parse().ok()?;
    Some(Timestamp::now().as_second() - time.as_second())
}

/// Returns a condition that is true.
fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|it| it["type"] == kind && it["status"] == "True")
}

fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str) {
    let now = now();
    let new = json!({
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastProbeTime": now, "lastTransitionTime": now,
    });
    match &mut status["conditions"] {
        Value::Array(list) => {
            let same = list.iter().position(|it| it["type"] == kind);
            match same {
                Some(index) if list[index]["status"] == value => {}
                Some(index) => list[index] = new,
                None => list.push(new),
            }
        }
        conditions => *conditions = json!([new]),
    }
}

/// Reconciles one Job; returns the seconds until its next deadline.
fn reconcile_job(state: &mut ApiState, key: &Key) -> Option<i64> {
    let job = Arc::clone(state.store.get(key)?);
    if is_going(&job) {
        return None;
    }
    let pods = state.store.list("pods", Some(&key.namespace)).filter(|(_, pod)| owns(&job, pod));
    let pods: Vec<(Key, Arc<Value>)> = pods.map(|(key, pod)| (key.clone(), Arc::clone(pod))).collect();
    if condition(&job, "Complete").or_else(|| condition(&job, "Failed")).is_some() {
        return after_the_end(state, key, &job, &pods);
    }
    let (spec, mut status) = (&job["spec"], job["status"].clone());
    let counted = count(&mut status, &pods);
    let suspended = spec["suspend"] == true;
    let start = status["startTime"].clone();
    if !suspended && start.is_null() {
        status["startTime"] = json!(now());
    }
    let limit = spec["activeDeadlineSeconds"].as_i64().filter(|_| !suspended);
    let left = limit.map(|limit| limit - seconds_since(&status["startTime"]).unwrap_or(0));
    let succeeded = status["succeeded"].as_i64().unwrap_or(0);
    let failed = status["failed"].as_i64().unwrap_or(0);
    let completions = spec["completions"].as_i64().unwrap_or(1);
    if condition(&job, "FailureTarget").or_else(|| condition(&job, "SuccessCriteriaMet")).is_none() {
        let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
        announce_end(
            &mut status,
            failed > limit,
            left.is_some_and(|left| left <= 0),
            succeeded >= completions,
        );
    }
    let active: Vec<&(Key, Arc<Value>)> =
        pods.iter().filter(|(_, pod)| !has_ended(pod) && !is_going(pod)).collect();
    let going = pods.iter().filter(|(_, pod)| !has_ended(pod) && is_going(pod)).count();
    let mut alive = active.len();
    let mut wait = left.filter(|left| *left > 0);
    let ends = ending(&status);
    if let Some((kind, end)) = &ends {
        active.iter().for_each(|(pod, _)| delete(state, pod));
        if alive == 0 && going == 0 {
            let field_text = |field: &str| end[field].as_str().unwrap_or_default().to_owned();
            set_condition(&mut status, kind, "True", &field_text("reason"), &field_text("message"));
            if *kind == "Complete" {
                status["completionTime"] = json!(now());
            }
        }
        alive = 0;
    } else if suspended {
        for (pod, _) in &active {
            // A pod that the controller stopped does not count as failed.
            state.amend(pod, |pod| drop_finalizer(pod, TRACKING));
            delete(state, pod);
        }
        alive = 0;
        set_condition(&mut status, "Suspended", "True", "JobSuspended", "Job suspended");
        if let Some(fields) = status.as_object_mut() {
            fields.remove("startTime");
        }
    } else {
        if condition(&job, "Suspended").is_some() {
            set_condition(&mut status, "Suspended", "False", "JobResumed", "Job resumed");
            status["startTime"] = json!(now());
        }
        let desired = spec["parallelism"].as_i64().unwrap_or(1).min(completions - succeeded);
        let missing = desired - i64::try_from(alive).unwrap_or(i64::MAX);
        let backoff = backoff(&pods, failed);
        if missing > 0 && backoff <= 0 {
            (0..missing).for_each(|_| start_pod(state, &job));
            alive += usize::try_from(missing).unwrap_or(0);
        } else if missing > 0 {
            wait = Some(wait.map_or(backoff, |wait| wait.min(backoff)));
        }
    }
    status["active"] = json!(alive);
    status["terminating"] = json!(going);
    status["ready"] =
        json!(active.iter().filter(|(_, pod)| is_ready(pod) && ends.is_none() && !suspended).count());
    status["uncountedTerminatedPods"] = json!({});
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|name, value| name != "active" || *value != json!(0));
    }
    state.amend(key, |job| job["status"] = status);
    for pod in counted {
        state.amend(&pod, |pod| drop_finalizer(pod, TRACKING));
    }
    wait
}

/// Announces the end of a Job that failed too often, took too long, or has succeeded.
fn announce_end(status: &mut Value, failed_too_often: bool, late: bool, succeeded: bool) {
    if failed_too_often {
        let message = "Job has reached the specified backoff limit";
        set_condition(status, "FailureTarget", "True", "BackoffLimitExceeded", message);
    } else if late {
        let message = "Job was active longer than specified deadline";
        set_condition(status, "FailureTarget", "True", "DeadlineExceeded", message);
    } else if succeeded {
        let message = "Reached expected number of succeeded pods";
        set_condition(status, "SuccessCriteriaMet", "True", "CompletionsReached", message);
    }
}

/// Returns the announced condition and the one that declares the end.
fn ending(status: &Value) -> Option<(&'static str, Value)> {
    let job = json!({"status": status});
    let failed = condition(&job, "FailureTarget").map(|it| ("Failed", it.clone()));
    failed.or_else(|| condition(&job, "SuccessCriteriaMet").map(|it| ("Complete", it.clone())))
}

/// Counts terminated and deleted pods and returns their keys.
fn count(status: &mut Value, pods: &[(Key, Arc<Value>)]) -> Vec<Key> {
    let mut counted = Vec::new();
    for (key, pod) in pods.iter().filter(|(_, pod)| is_tracked(pod)) {
        let field = match phase(pod) {
            "Succeeded" => "succeeded",
            "Failed" => "failed",
            _ if is_going(pod) => "failed",
            _ => continue,
        };
        status[field] = json!(status[field].as_i64().unwrap_or(0) + 1);
        counted.push(key.clone());
    }
    counted
}

/// Returns the seconds until the next attempt may start.
fn backoff(pods: &[(Key, Arc<Value>)], failed: i64) -> i64 {
    if failed == 0 {
        return 0;
    }
    let ended = pods.iter().filter_map(|(_, pod)| {
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"];
        seconds_since(if state.is_null() { &pod["metadata"]["creationTimestamp"] } else { state })
    });
    let doublings = u32::try_from(failed - 1).unwrap_or(0).min(6);
    ended.min().map_or(0, |since| BACKOFF * 2_i64.pow(doublings) - since)
}

fn after_the_end(state: &mut ApiState, key: &Key, job: &Value, pods: &[(Key, Arc<Value>)]) -> Option<i64> {
    for (pod, _) in pods.iter().filter(|(_, pod)| is_tracked(pod)) {
        state.amend(pod, |pod| drop_finalizer(pod, TRACKING));
    }
    let lasts = job["spec"]["ttlSecondsAfterFinished"].as_i64()?;
    let end = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    let left = lasts - seconds_since(&end["lastTransitionTime"])?;
    if left > 0 {
        return Some(left);
    }
    let path = ResourcePath::of(key, &state.resources)?;
    state.delete(&path, &DeleteOptions::foreground()).ok();
    None
}

fn start_pod(state: &mut ApiState, job: &Value) {
    let metadata = &job["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let template = &job["spec"]["template"];
    let pod = json!({
        "metadata": {
            "name": generate_name(&format!("{name}-")),
            "generateName": format!("{name}-"),
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
            "finalizers": [TRACKING],
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template["spec"],
    });
    let resource = state.resources.find("", "v1", "pods").expect("a built-in resource");
    let namespace = metadata["namespace"].as_str().unwrap_or_default().to_owned();
    let path = ResourcePath { resource, namespace, name: String::new(), subresource: String::new() };
    let options = WriteOptions { manager: "kube-controller-manager".to_owned(), ..WriteOptions::default() };
    if let Err(refusal) = state.create(&path, pod, &options) {
        eprintln!("fake Job controller cannot create a pod: {}", refusal.status());
    }
}

fn delete(state: &mut ApiState, pod: &Key) {
    if let Some(path) = ResourcePath::of(pod, &state.resources) {
        // The pod may be deleted already.
        state.delete(&path, &DeleteOptions::background()).ok();
    }
}
