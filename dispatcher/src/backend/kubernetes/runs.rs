//! TaskRuns as runs, and their status (pure).

use jiff::Timestamp;
use orchestrator_contract::event::Progress;
use orchestrator_contract::{Outcome, Phase, Reason, RunName, Step, TaskKey};

use crate::backend::{StoredRun, SubmissionRecord};
use crate::controller::crd::{TaskRun, TaskRunStatus};
use crate::task::event_fold::RunSnapshot;
use crate::task::request::{Overrides, Request};
use crate::task::status::{RunInfo, Status};

/// Whose attempt a TaskRun is.
pub(super) fn identity(run: &TaskRun) -> TaskKey {
    let spec = &run.spec;
    TaskKey { kind: spec.kind, service: spec.service.clone(), agent: spec.agent.clone(), task: spec.task_id }
}

/// The run of a TaskRun; none of one that no supervisor would take, which its controller says.
pub(super) fn run(found: &TaskRun) -> Option<StoredRun> {
    let request = found.spec.request.clone().and_then(|value| serde_json::from_value(value).ok());
    let submitted_at =
        found.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    // One that was made by hand says it all in its specification.
    let request = request.unwrap_or_else(|| request_of(found));
    let record = SubmissionRecord { version: 1, backend: "kubernetes".to_owned(), submitted_at, request };
    let Ok(task) = found.task() else { return None };
    Some(StoredRun { record, task })
}

fn request_of(found: &TaskRun) -> Request {
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
            verify: Some(spec.verify).filter(|commands| !commands.is_empty()),
            setup: Some(spec.setup).filter(|commands| !commands.is_empty()),
            pull_request: Some(spec.pull_request),
            force: spec.docs.as_ref().map(|docs| docs.force),
            concurrency: spec.docs.as_ref().map(|docs| docs.concurrency),
        },
    }
}

/// What the status of a TaskRun says.
pub(super) fn observed(status: &TaskRunStatus, run: &RunName) -> RunSnapshot {
    let phase = status.phase.unwrap_or(Phase::Pending);
    let outcome = status.outcome.clone().and_then(|value| serde_json::from_value::<Outcome>(value).ok());
    let step = status.step;
    let progress = Progress {
        phase,
        step: step.unwrap_or(Step::Preflight),
        turns: status.turns.and_then(|turns| u32::try_from(turns).ok()).unwrap_or_default(),
        cost_usd: status.cost_usd.unwrap_or_default(),
        // What keeps it is more to the point than what it did last.
        activity: status
            .message
            .clone()
            .or(status.activity.clone())
            .unwrap_or_else(|| "its container is being started".to_owned()),
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

/// The status of a run, from its TaskRun.
pub(super) fn status(found: &TaskRun, run: &StoredRun, workspace: &str, now: Timestamp) -> Status {
    let kept = found.status.clone().unwrap_or_default();
    let mut seen = observed(&kept, &run.task.run);
    if let Some(progress) =
        seen.progress.as_mut().filter(|progress| progress.activity_since == Timestamp::UNIX_EPOCH)
    {
        progress.activity_since = run.record.submitted_at;
    }
    compose(run, seen, &kept, workspace, now)
}

/// Puts together what was observed, and what the controller has found out where the supervisor could not.
pub(super) fn compose(
    run: &StoredRun,
    seen: RunSnapshot,
    kept: &TaskRunStatus,
    workspace: &str,
    now: Timestamp,
) -> Status {
    let known = RunInfo {
        task: &run.task,
        submitted_at: run.record.submitted_at,
        workspace: workspace.to_owned(),
        lost_at: kept.completion_time,
        last_stderr_line: None,
    };
    let untold = seen.outcome.is_none() && seen.reason.is_some();
    let mut status = Status::compose(&known, seen, now);
    if untold {
        status.message = kept.message.clone().or(status.message);
        status.work = kept.work.clone();
        status.pull_request.clone_from(&kept.pull_request);
        status.branch = kept.branch.clone().or(status.branch);
    }
    status
}

/// The status of a run whose TaskRun is gone.
pub(super) fn deleted_status(run: &StoredRun, workspace: &str, now: Timestamp) -> Status {
    let reason = Reason::SupervisorLost;
    let message =
        format!("the TaskRun was deleted; whatever it made is pushed, or in the volume {workspace}");
    let kept = TaskRunStatus {
        phase: Some(reason.phase()),
        reason: Some(reason),
        message: Some(message),
        ..TaskRunStatus::default()
    };
    let seen = observed(&kept, &run.task.run);
    compose(run, seen, &kept, workspace, now)
}
