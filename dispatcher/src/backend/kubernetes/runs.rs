//! Converts TaskRuns to runs and their status. Pure.

use jiff::Timestamp;
use orchestrator_contract::event::Progress;
use orchestrator_contract::{Outcome, Phase, Reason, RunName, Step};

use crate::backend::{StoredRun, SubmissionRecord};
use crate::error::Error;
use crate::task::event_fold::RunSnapshot;
use crate::task::request::{Overrides, Request};
use crate::task::status::{DamagedRun, RunInfo, Status};
use crate::taskrun::definition::TaskRun;
use crate::taskrun::status::{STARTING_MESSAGE, TaskRunStatus};

/// Returns the run of a TaskRun; `None` if its task is invalid, which the controller reports.
pub(super) fn run(found: &TaskRun) -> Option<StoredRun> {
    let request = found.spec.request.clone().and_then(|value| serde_json::from_value(value).ok());
    let submitted_at =
        found.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    // A TaskRun that was not created by a dispatcher has no request.
    let request = request.unwrap_or_else(|| request_from_spec(found));
    let record = SubmissionRecord { version: 1, backend: "kubernetes".to_owned(), submitted_at, request };
    let Ok(task) = found.task() else { return None };
    Some(StoredRun { record, task })
}

/// Returns a TaskRun whose task is invalid.
pub(super) fn damaged(found: &TaskRun) -> Option<DamagedRun> {
    let errors = found.task().err()?;
    let problem = format!("invalid TaskRun: {}", Error::from_field_errors(&errors));
    Some(DamagedRun { run: found.metadata.name.clone().unwrap_or_default(), problem })
}

fn request_from_spec(found: &TaskRun) -> Request {
    let spec = found.spec.clone();
    Request {
        kind: spec.kind,
        task: spec.task_id,
        service: spec.service,
        agent: spec.agent,
        mode: spec.mode,
        overrides: Overrides {
            model: Some(spec.model),
            branch: spec.target.base,
            guidance: spec.guidance,
            repository_url: Some(spec.target.url),
            platform_repository_url: Some(spec.platform.url),
            platform_branch: spec.platform.branch,
            docs_directory: spec.platform.docs_directory,
            github_user: spec.github_user,
            working_directory: spec.target.working_directory,
            timeout_minutes: Some(spec.limits.timeout_minutes),
            cost_usd: spec.limits.cost_usd,
            turns: spec.limits.turns,
            wait_for_quota_minutes: Some(spec.limits.wait_for_quota_minutes),
            verify: Some(spec.verify).filter(|commands| !commands.is_empty()),
            setup: Some(spec.setup).filter(|commands| !commands.is_empty()),
            pull_request: Some(spec.pull_request),
            force: spec.docs.as_ref().map(|docs| docs.force),
            concurrency: spec.docs.as_ref().map(|docs| docs.concurrency),
        },
    }
}

/// Returns the snapshot that the status of a TaskRun describes.
fn snapshot(status: &TaskRunStatus, run: &RunName) -> RunSnapshot {
    let phase = status.phase.unwrap_or(Phase::Pending);
    let outcome = status.outcome.clone().and_then(|value| serde_json::from_value::<Outcome>(value).ok());
    let step = status.step;
    let progress = Progress {
        phase,
        step: step.unwrap_or(Step::Preflight),
        turns: status.turns.and_then(|turns| u32::try_from(turns).ok()).unwrap_or_default(),
        cost_usd: status.cost_usd.unwrap_or_default(),
        // A problem matters more than the last activity.
        activity: status
            .message
            .clone()
            .or(status.activity.clone())
            .unwrap_or_else(|| STARTING_MESSAGE.to_owned()),
        activity_since: status
            .activity_since
            .or(status.last_event_time)
            .or(status.start_time)
            .unwrap_or(Timestamp::UNIX_EPOCH),
        branch: status.branch.clone(),
        waiting_for: status.waiting_for.clone(),
    };
    RunSnapshot {
        phase,
        step,
        reason: status.reason,
        progress: Some(progress),
        outcome: outcome.filter(|outcome| outcome.run == *run).map(Box::new),
        last_event_seq: status.last_event_seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or_default(),
        last_time: status.last_event_time,
        garbage: 0,
    }
}

/// Returns the status of a run from its TaskRun.
pub(super) fn status(found: &TaskRun, run: &StoredRun, workspace: &str, now: Timestamp) -> Status {
    let recorded = found.status.clone().unwrap_or_default();
    let mut snapshot = snapshot(&recorded, &run.task.run);
    if let Some(progress) =
        snapshot.progress.as_mut().filter(|progress| progress.activity_since == Timestamp::UNIX_EPOCH)
    {
        progress.activity_since = run.record.submitted_at;
    }
    compose(run, snapshot, &recorded, workspace, now)
}

/// Combines a snapshot of the events with the end that the controller inferred, if it did.
pub(super) fn compose(
    run: &StoredRun,
    snapshot: RunSnapshot,
    recorded: &TaskRunStatus,
    workspace: &str,
    now: Timestamp,
) -> Status {
    let info = RunInfo {
        task: &run.task,
        submitted_at: run.record.submitted_at,
        workspace: workspace.to_owned(),
        lost_at: recorded.completion_time,
        last_stderr_line: None,
    };
    let is_inferred = snapshot.outcome.is_none() && snapshot.reason.is_some();
    let mut status = Status::compose(&info, snapshot, now);
    if is_inferred {
        status.message = recorded.message.clone().or(status.message);
        status.work = recorded.work.clone();
        status.pull_request.clone_from(&recorded.pull_request);
        status.branch = recorded.branch.clone().or(status.branch);
    }
    status
}

/// Returns the status of a run whose TaskRun was deleted.
pub(super) fn deleted_status(run: &StoredRun, workspace: &str, now: Timestamp) -> Status {
    let reason = Reason::SupervisorLost;
    let message = format!("the TaskRun was deleted; its work was pushed or is in the volume {workspace}");
    let recorded = TaskRunStatus {
        phase: Some(reason.phase()),
        reason: Some(reason),
        message: Some(message),
        ..TaskRunStatus::default()
    };
    let snapshot = snapshot(&recorded, &run.task.run);
    compose(run, snapshot, &recorded, workspace, now)
}
