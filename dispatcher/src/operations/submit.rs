//! submit and retry.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RunName, TaskSpec};
use serde::Serialize;

use super::Dispatcher;
use crate::backend::{CreateOutcome, CreateRun, StoredRun};
use crate::error::Error;
use crate::task::request::{Overrides, Request};
use crate::task::resolve::{ResolveInput, TaskDraft, resolve};
use crate::task::status::Status;
use crate::task::submission::{PriorRun, SubmitDecision, decide_submission};

/// How long a new run is waited for: a supervisor says something within
/// milliseconds, and a submission is to be answered within two seconds.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a submission is decided upon anew because somebody else was faster; each time, that
/// one's run is there to answer with.
const MAX_SUBMIT_ATTEMPTS: u32 = 8;

/// What came of a submission.
#[derive(Clone, Debug, Serialize)]
pub struct Submission {
    /// Whether anything was started.
    pub result: SubmitOutcome,
    /// The run.
    pub run: RunName,
    /// What it was asked to do.
    pub task: TaskSpec,
    /// Where it stands.
    pub status: Status,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The command by which people look at it without this program.
    #[serde(skip)]
    pub native_command: Option<String>,
}

/// Whether anything was started.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmitOutcome {
    /// A new run.
    Created,
    /// The run at work was asked for the same.
    AlreadyRunning,
    /// The run at work is for the same task, but was asked for something else.
    ConflictingRun,
}

/// What a submission would do.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// Always true: nothing was written or started.
    pub dry_run: bool,
    /// The run that is at work already, if that would be the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_running: Option<RunName>,
    /// The task as it would be given to the supervisor.
    pub task: TaskSpec,
    /// The supervisor's command line.
    pub command: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A request with everything filled in.
pub(super) struct Resolved {
    pub(super) request: Request,
    pub(super) draft: TaskDraft,
    pub(super) warnings: Vec<String>,
}

impl Dispatcher {
    /// The request that tries a run again, with other wishes where there are any.
    ///
    /// # Errors
    /// There is no such run, or it is no run of a task.
    pub async fn retry_request(&self, run: &RunName, wishes: Overrides) -> Result<Request, Error> {
        let earlier = self.run(run).await?;
        Ok(Request {
            mode: Mode::Retry,
            overrides: wishes.merged_over(&earlier.record.request.overrides),
            ..earlier.record.request
        })
    }

    /// Starts a run, or answers with the one that is at work already.
    ///
    /// # Errors
    /// The request is refused, or the run cannot be started. Nothing stays
    /// behind of a request that is refused.
    pub async fn submit(&self, request: Request) -> Result<Submission, Error> {
        let resolved = self.resolve(request).await?;
        let identity = resolved.request.identity();
        for _ in 0..MAX_SUBMIT_ATTEMPTS {
            // The mark first: a run that appears after it is seen here, or has taken the number.
            let mark = self.backend.last_attempt(&identity).await?;
            if let Some(answer) = self.existing_run(&resolved, mark).await? {
                return Ok(answer);
            }
            let attempt = mark + 1;
            let new = CreateRun {
                identity: &identity,
                attempt,
                draft: &resolved.draft,
                request: &resolved.request,
            };
            // The number is what only one can have: whoever was late decides again.
            let CreateOutcome::Created(run) = self.backend.create(new).await? else { continue };
            let status = self.wait_for_first_event(&run).await?;
            return Ok(Submission {
                result: SubmitOutcome::Created,
                native_command: self.backend.native_command(&run.task.run),
                run: run.task.run.clone(),
                task: run.task,
                status,
                warnings: resolved.warnings,
            });
        }
        Err(Error::new(Reason::WorkspaceBusy, "others keep submitting the same task at the same time"))
    }

    /// Waits a moment for the first thing that a new run says, so that one that
    /// cannot even begin is told at once.
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

    /// What [`Self::submit`] would do. Writes nothing.
    ///
    /// # Errors
    /// The same as those of [`Self::submit`].
    pub async fn preview(&self, request: Request) -> Result<Preview, Error> {
        let resolved = self.resolve(request).await?;
        let identity = resolved.request.identity();
        let mark = self.backend.last_attempt(&identity).await?;
        let answer = self.existing_run(&resolved, mark).await?;
        let task = match &answer {
            Some(answer) => answer.task.clone(),
            None => {
                let attempt = mark + 1;
                resolved.draft.with_attempt(self.backend.run_name(&identity, attempt).await, attempt)
            }
        };
        let command = self.backend.command(&task).await?;
        Ok(Preview {
            dry_run: true,
            already_running: answer.map(|answer| answer.run),
            task,
            command,
            warnings: resolved.warnings,
        })
    }

    /// Fills in what a request leaves out.
    pub(super) async fn resolve(&self, mut request: Request) -> Result<Resolved, Error> {
        let identity = request.identity();
        let runs = self.backend.runs().await?;
        let of_service = runs.iter().filter(|run| run.task.service == request.service);
        let changed_code = |run: &&StoredRun| run.task.kind == Kind::Implementation;
        let last_target = of_service.clone().find(changed_code).map(|run| run.task.target.url.clone());
        let mut earlier = None;
        if request.mode == Mode::Retry {
            for run in of_service.filter(|run| run.task.identity() == identity) {
                if self.status_of(run.clone()).await?.phase.is_final() {
                    request.overrides = request.overrides.merged_over(&run.record.request.overrides);
                    earlier = Some(run.task.clone());
                    break;
                }
            }
        }
        let remote = self.config.folder.remote();
        let sources = ResolveInput {
            defaults: self.config.defaults().clone(),
            service: self.config.service(&request.service),
            agent: self.config.agent(&request.agent)?.profile(),
            configuration: self.config.source_description(),
            folder: self.config.folder.path.display().to_string(),
            remote: remote.url,
            remote_warning: remote.warning,
            last_target,
            earlier,
            open_branch: self.platform_checkout(&request.overrides).and_then(|checkout| checkout.branch()),
        };
        let draft = resolve(&request, &sources)?;
        // What is wrong with a remote that is not used is nobody's concern.
        let used = sources.remote.as_ref().is_some_and(|url| draft.uses(url));
        let mut warnings: Vec<String> = sources.remote_warning.filter(|_| used).into_iter().collect();
        if request.kind == Kind::Docs {
            let preview = draft.with_attempt(identity.run_name(1, |_| false), 1);
            warnings.extend(self.local_change_warnings(&preview, &request.overrides).await);
        }
        Ok(Resolved { request, draft, warnings })
    }

    /// The run that is at work already, or nothing if a new one is to be started.
    async fn existing_run(&self, resolved: &Resolved, mark: u32) -> Result<Option<Submission>, Error> {
        let Resolved { request, draft, warnings } = resolved;
        let identity = request.identity();
        let mut known = Vec::new();
        let mut at_work = Vec::new();
        for run in self.backend.runs().await?.into_iter().filter(|run| run.task.identity() == identity) {
            let status = self.status_of(run.clone()).await?;
            // One that never said anything did nothing either: it is no attempt to go on from.
            if status.reason == Some(Reason::SupervisorLost) && status.last_event_seq == 0 {
                continue;
            }
            known.push(PriorRun {
                run: run.task.run.clone(),
                attempt: run.task.attempt,
                phase: status.phase,
                reason: status.reason,
                same: draft.is_same_as(&run.task),
            });
            at_work.push((run, status));
        }
        match decide_submission(request.mode, &known, mark) {
            SubmitDecision::Start => Ok(None),
            SubmitDecision::Reject(refusal) => Err(refusal.into()),
            SubmitDecision::ReuseRunning { run: name, same } => {
                let found = at_work.into_iter().find(|(run, _)| run.task.run == name);
                Ok(found.map(|(run, status)| Submission {
                    native_command: self.backend.native_command(&name),
                    result: if same { SubmitOutcome::AlreadyRunning } else { SubmitOutcome::ConflictingRun },
                    run: name,
                    task: run.task,
                    status,
                    warnings: warnings.clone(),
                }))
            }
        }
    }
}
