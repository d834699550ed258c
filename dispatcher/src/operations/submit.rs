//! The `submit` and `retry` commands.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RunName, TaskSpec};
use serde::Serialize;

use super::dispatcher::Dispatcher;
use crate::backend::{CreateOutcome, CreateRun, StoredRun};
use crate::error::Error;
use crate::task::plan::Continuation;
use crate::task::request::{Overrides, Request};
use crate::task::resolve::{ResolveInput, TaskDraft, resolve};
use crate::task::service_name::similarity_warning;
use crate::task::status::Status;
use crate::task::submission::{PriorRun, SubmitDecision, decide_submission, never_reached_agent};

/// Maximum wait for a new run's first event: a supervisor needs milliseconds, and a
/// submission must return within two seconds.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum attempts to submit while concurrent submissions of the same task win; each time, the
/// winner's run can be returned instead.
const MAX_SUBMIT_ATTEMPTS: u32 = 8;

/// Result of a submission.
#[derive(Clone, Debug, Serialize)]
pub struct Submission {
    pub result: SubmitOutcome,
    pub run: RunName,
    pub task: TaskSpec,
    pub status: Status,
    pub warnings: Vec<String>,
    /// The platform's own command for the run, such as `docker logs -f RUN`.
    #[serde(skip)]
    pub native_command: Option<String>,
    /// The attempt that a started retry continues.
    #[serde(skip)]
    pub continues: Option<Continuation>,
}

/// Whether a submission started a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmitOutcome {
    /// It started a new run.
    Created,
    /// The active run has the same task spec.
    AlreadyRunning,
    /// The active run is of the same task, but has other options.
    ConflictingRun,
}

/// What a submission would do.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// Always true.
    pub dry_run: bool,
    /// The active run that the submission would return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_running: Option<RunName>,
    /// The task spec for the supervisor.
    pub task: TaskSpec,
    /// The supervisor's command line.
    pub command: Vec<String>,
    pub warnings: Vec<String>,
    /// The attempt that a retry would continue.
    #[serde(skip)]
    pub continues: Option<Continuation>,
}

/// A request with its resolved task draft.
pub(super) struct Resolved {
    pub(super) request: Request,
    pub(super) draft: TaskDraft,
    pub(super) warnings: Vec<String>,
    /// The finished attempt that a retry continues.
    pub(super) continues: Option<Continuation>,
}

impl Dispatcher {
    /// Builds the request that retries a run; `overrides` replace its options.
    ///
    /// # Errors
    /// Returns an error if no such run exists.
    pub async fn retry_request(&self, run: &RunName, overrides: Overrides) -> Result<Request, Error> {
        let earlier = self.run(run).await?;
        Ok(Request {
            mode: Mode::Retry,
            overrides: overrides.merged_over(&earlier.record.request.overrides),
            ..earlier.record.request
        })
    }

    /// Starts a run, or returns the active run of the same task.
    ///
    /// # Errors
    /// Returns an error if the request is rejected or the run cannot be started. A
    /// rejected request leaves nothing behind.
    pub async fn submit(&self, request: Request) -> Result<Submission, Error> {
        let resolved = self.resolve(request).await?;
        let task_key = resolved.request.identity();
        for _ in 0..MAX_SUBMIT_ATTEMPTS {
            // Read the number first: a concurrent run is then seen below, or has acquired the number.
            let last_attempt = self.backend.last_attempt(&task_key).await?;
            if let Some(existing) = self.existing_run(&resolved, last_attempt).await? {
                return Ok(existing);
            }
            let attempt = last_attempt + 1;
            let new = CreateRun {
                identity: &task_key,
                attempt,
                draft: &resolved.draft,
                request: &resolved.request,
            };
            // Only one submission acquires the number; the others decide again.
            let CreateOutcome::Created(run) = self.backend.create(new).await? else { continue };
            let status = self.wait_for_first_event(&run).await?;
            return Ok(Submission {
                result: SubmitOutcome::Created,
                native_command: self.backend.native_command(&run.task.run),
                run: run.task.run.clone(),
                task: run.task,
                status,
                warnings: resolved.warnings,
                continues: resolved.continues,
            });
        }
        Err(Error::new(Reason::WorkspaceBusy, "gave up: too many concurrent submissions of this task"))
    }

    /// Waits briefly for the first event of a new run, so that a failed start is reported immediately.
    async fn wait_for_first_event(&self, run: &StoredRun) -> Result<Status, Error> {
        let deadline = tokio::time::Instant::now() + FIRST_EVENT_TIMEOUT;
        let mut follower = self.backend.follow(run.clone());
        loop {
            let status = follower.status(Timestamp::now(), &mut |_, _| {}).await?;
            if status.last_event_seq > 0 || status.phase.is_final() || deadline <= tokio::time::Instant::now()
            {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns what [`Self::submit`] would do; writes nothing.
    ///
    /// # Errors
    /// Returns the errors of [`Self::submit`].
    pub async fn preview(&self, request: Request) -> Result<Preview, Error> {
        let resolved = self.resolve(request).await?;
        let task_key = resolved.request.identity();
        let last_attempt = self.backend.last_attempt(&task_key).await?;
        let existing = self.existing_run(&resolved, last_attempt).await?;
        let task = match &existing {
            Some(existing) => existing.task.clone(),
            None => {
                let attempt = last_attempt + 1;
                resolved.draft.with_attempt(self.backend.run_name(&task_key, attempt).await, attempt)
            }
        };
        let command = self.backend.command(&task).await?;
        let continues = resolved.continues.filter(|_| existing.is_none());
        Ok(Preview {
            dry_run: true,
            already_running: existing.map(|existing| existing.run),
            task,
            command,
            warnings: resolved.warnings,
            continues,
        })
    }

    /// Resolves a request against the configuration, the working directory and earlier runs.
    pub(super) async fn resolve(&self, mut request: Request) -> Result<Resolved, Error> {
        let task_key = request.identity();
        if request.mode == Mode::Fresh && self.backend.last_attempt(&task_key).await? == 0 {
            // Nothing to start over from: the first attempt is fresh anyway.
            request.mode = Mode::First;
        }
        let runs = self.backend.runs().await?;
        let of_service = runs.iter().filter(|run| run.task.service == request.service);
        let changed_code = |run: &&StoredRun| run.task.kind == Kind::Implementation;
        let last_target = of_service.clone().find(changed_code).map(|run| run.task.target.url.clone());
        let (mut earlier, mut continues) = (None, None);
        if request.mode == Mode::Retry {
            for run in of_service.filter(|run| run.task.identity() == task_key) {
                let status = self.status_of(run.clone()).await?;
                if status.phase.is_final() {
                    continues = Some(Continuation::from(&status));
                    request.overrides = request.overrides.merged_over(&run.record.request.overrides);
                    earlier = Some(run.task.clone());
                    break;
                }
            }
        }
        let remote = self.config.folder.remote();
        let input = ResolveInput {
            defaults: self.config.defaults().clone(),
            service: self.config.service(&request.service),
            agent: self.config.agent(&request.agent)?.profile(),
            configuration: self.config.source_description(),
            folder: self.config.folder.path.display().to_string(),
            remote: remote.url,
            remote_warning: remote.warning,
            known_services: runs
                .iter()
                .map(|run| &run.task.service)
                .chain(self.config.service_names())
                .filter(|known| **known != request.service)
                .cloned()
                .collect(),
            last_target,
            earlier,
            open_branch: self.platform_checkout(&request.overrides).and_then(|checkout| checkout.branch()),
        };
        let draft = resolve(&request, &input)?;
        // Warn about the remote only if the task uses it.
        let uses_remote = input.remote.as_ref().is_some_and(|url| draft.uses(url));
        let mut warnings: Vec<String> =
            input.remote_warning.clone().filter(|_| uses_remote).into_iter().collect();
        let is_known = runs.iter().any(|run| run.task.service == request.service)
            || self.config.service_names().any(|known| *known == request.service);
        if !is_known {
            warnings.extend(similarity_warning(&request.service, &input.known_services));
        }
        warnings.extend(self.config.ignored_keys(&request.agent)?);
        let preview = draft.with_attempt(task_key.run_name(1, |_| false), 1);
        match request.kind {
            Kind::Docs => {
                warnings.extend(self.waiting_document_warnings(&request, &preview, &runs).await?);
                warnings.extend(self.local_change_warnings(&preview, &request.overrides).await);
            }
            Kind::Implementation => {
                warnings.extend(self.document_warnings(&preview, &request.overrides).await);
            }
        }
        Ok(Resolved { request, draft, warnings, continues })
    }

    /// Returns the active run of the same task, or `None` if a new run is to be started.
    async fn existing_run(
        &self,
        resolved: &Resolved,
        last_attempt: u32,
    ) -> Result<Option<Submission>, Error> {
        let Resolved { request, draft, warnings, continues: _ } = resolved;
        let task_key = request.identity();
        let mut prior = Vec::new();
        let mut statuses = Vec::new();
        for run in self.backend.runs().await?.into_iter().filter(|run| run.task.identity() == task_key) {
            let status = self.status_of(run.clone()).await?;
            // A lost run without events did nothing: it is not an attempt to continue from.
            if status.reason == Some(Reason::SupervisorLost) && status.last_event_seq == 0 {
                continue;
            }
            prior.push(PriorRun {
                run: run.task.run.clone(),
                attempt: run.task.attempt,
                phase: status.phase,
                reason: status.reason,
                same: draft.is_same_as(&run.task),
                is_blank: status.outcome.as_deref().is_some_and(never_reached_agent),
            });
            statuses.push((run, status));
        }
        match decide_submission(request.mode, &prior, last_attempt) {
            SubmitDecision::Start => Ok(None),
            SubmitDecision::Reject(rejection) => Err(rejection.into()),
            SubmitDecision::ReuseRunning { run: name, same } => {
                let found = statuses.into_iter().find(|(run, _)| run.task.run == name);
                Ok(found.map(|(run, status)| Submission {
                    native_command: self.backend.native_command(&name),
                    result: if same { SubmitOutcome::AlreadyRunning } else { SubmitOutcome::ConflictingRun },
                    run: name,
                    task: run.task,
                    status,
                    warnings: warnings.clone(),
                    continues: None,
                }))
            }
        }
    }
}
