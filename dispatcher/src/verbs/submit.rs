//! submit and retry.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RunName, TaskSpec};
use serde::Serialize;

use super::Dispatcher;
use crate::backend::{Creation, NewRun, Run};
use crate::problem::Problem;
use crate::task::decide::{Decision, Known, decide_submission};
use crate::task::request::{Request, Wishes};
use crate::task::resolve::{Draft, Sources, resolve};
use crate::task::status::Status;

/// How long a new run is waited for: a supervisor says something within
/// milliseconds, and a submission is to be answered within two seconds.
const FIRST_SIGN: Duration = Duration::from_secs(1);

/// How often a submission is decided upon anew because somebody else was faster; each time, that
/// one's run is there to answer with.
const TRIES: u32 = 8;

/// What came of a submission.
#[derive(Clone, Debug, Serialize)]
pub struct Submission {
    /// Whether anything was started.
    pub started: Started,
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
    pub elsewhere: Option<String>,
}

/// Whether anything was started.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// A new run.
    New,
    /// The run at work was asked for the same.
    AlreadyAtWork,
    /// The run at work is for the same task, but was asked for something else.
    AtWorkOtherwise,
}

/// What a submission would do.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// Always true: nothing was written or started.
    pub dry_run: bool,
    /// The run that is at work already, if that would be the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_at_work: Option<RunName>,
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
    pub(super) draft: Draft,
    pub(super) warnings: Vec<String>,
}

impl Dispatcher {
    /// The request that tries a run again, with other wishes where there are any.
    ///
    /// # Errors
    /// There is no such run, or it is no run of a task.
    pub async fn retry_request(&self, run: &RunName, wishes: Wishes) -> Result<Request, Problem> {
        let earlier = self.run(run).await?;
        Ok(Request {
            mode: Mode::Retry,
            wishes: wishes.over(&earlier.record.request.wishes),
            ..earlier.record.request
        })
    }

    /// Starts a run, or answers with the one that is at work already.
    ///
    /// # Errors
    /// The request is refused, or the run cannot be started. Nothing stays
    /// behind of a request that is refused.
    pub async fn submit(&self, request: Request) -> Result<Submission, Problem> {
        let resolved = self.resolve(request).await?;
        let identity = resolved.request.identity();
        for _ in 0..TRIES {
            // The mark first: a run that appears after it is seen here, or has taken the number.
            let mark = self.backend.mark(&identity).await?;
            if let Some(answer) = self.answer(&resolved, mark).await? {
                return Ok(answer);
            }
            let attempt = mark + 1;
            let new =
                NewRun { identity: &identity, attempt, draft: &resolved.draft, request: &resolved.request };
            // The number is what only one can have: whoever was late decides again.
            let Creation::Created(run) = self.backend.create(new).await? else { continue };
            let status = self.first_sign(&run).await?;
            return Ok(Submission {
                started: Started::New,
                elsewhere: self.backend.elsewhere(&run.task.run),
                run: run.task.run.clone(),
                task: run.task,
                status,
                warnings: resolved.warnings,
            });
        }
        Err(Problem::new(Reason::WorkspaceBusy, "others keep submitting the same task at the same time"))
    }

    /// Waits a moment for the first thing that a new run says, so that one that
    /// cannot even begin is told at once.
    async fn first_sign(&self, run: &Run) -> Result<Status, Problem> {
        let deadline = tokio::time::Instant::now() + FIRST_SIGN;
        let mut follower = self.backend.follow(run.clone());
        loop {
            let status = follower.status(Timestamp::now(), &mut |_, _| {}).await?;
            if status.last_seq > 0 || status.phase.is_final() || deadline <= tokio::time::Instant::now() {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What [`Self::submit`] would do. Writes nothing.
    ///
    /// # Errors
    /// The same as those of [`Self::submit`].
    pub async fn preview(&self, request: Request) -> Result<Preview, Problem> {
        let resolved = self.resolve(request).await?;
        let identity = resolved.request.identity();
        let mark = self.backend.mark(&identity).await?;
        let answer = self.answer(&resolved, mark).await?;
        let task = match &answer {
            Some(answer) => answer.task.clone(),
            None => {
                let attempt = mark + 1;
                resolved.draft.named(self.backend.name_of(&identity, attempt).await, attempt)
            }
        };
        let command = self.backend.command(&task).await?;
        Ok(Preview {
            dry_run: true,
            already_at_work: answer.map(|answer| answer.run),
            task,
            command,
            warnings: resolved.warnings,
        })
    }

    /// Fills in what a request leaves out.
    pub(super) async fn resolve(&self, mut request: Request) -> Result<Resolved, Problem> {
        let identity = request.identity();
        let runs = self.backend.runs().await?;
        let of_service = runs.iter().filter(|run| run.task.service == request.service);
        let changed_code = |run: &&Run| run.task.kind == Kind::Implementation;
        let last_target = of_service.clone().find(changed_code).map(|run| run.task.target.url.clone());
        let mut earlier = None;
        if request.mode == Mode::Retry {
            for run in of_service.filter(|run| run.task.identity() == identity) {
                if self.look(run.clone()).await?.phase.is_final() {
                    request.wishes = request.wishes.over(&run.record.request.wishes);
                    earlier = Some(run.task.clone());
                    break;
                }
            }
        }
        let remote = self.config.folder.remote();
        let sources = Sources {
            defaults: self.config.defaults().clone(),
            service: self.config.service(&request.service),
            agent: self.config.agent(&request.agent)?.profile(),
            configuration: self.config.described(),
            folder: self.config.folder.path.display().to_string(),
            remote: remote.url,
            remote_warning: remote.warning,
            last_target,
            earlier,
            open_branch: self.platform_checkout(&request.wishes).and_then(|checkout| checkout.branch()),
        };
        let draft = resolve(&request, &sources)?;
        // What is wrong with a remote that is not used is nobody's concern.
        let used = sources.remote.as_ref().is_some_and(|url| draft.uses(url));
        let mut warnings: Vec<String> = sources.remote_warning.filter(|_| used).into_iter().collect();
        if request.kind == Kind::Docs {
            let preview = draft.named(identity.run_name(1, |_| false), 1);
            warnings.extend(self.unseen(&preview, &request.wishes).await);
        }
        Ok(Resolved { request, draft, warnings })
    }

    /// The run that is at work already, or nothing if a new one is to be started.
    async fn answer(&self, resolved: &Resolved, mark: u32) -> Result<Option<Submission>, Problem> {
        let Resolved { request, draft, warnings } = resolved;
        let identity = request.identity();
        let mut known = Vec::new();
        let mut at_work = Vec::new();
        for run in self.backend.runs().await?.into_iter().filter(|run| run.task.identity() == identity) {
            let status = self.look(run.clone()).await?;
            // One that never said anything did nothing either: it is no attempt to go on from.
            if status.reason == Some(Reason::Lost) && status.last_seq == 0 {
                continue;
            }
            known.push(Known {
                run: run.task.run.clone(),
                attempt: run.task.attempt,
                phase: status.phase,
                reason: status.reason,
                same: draft.is_same_as(&run.task),
            });
            at_work.push((run, status));
        }
        match decide_submission(request.mode, &known, mark) {
            Decision::Start => Ok(None),
            Decision::Refuse(refusal) => Err(refusal.into()),
            Decision::Answer { run: name, same } => {
                let found = at_work.into_iter().find(|(run, _)| run.task.run == name);
                Ok(found.map(|(run, status)| Submission {
                    elsewhere: self.backend.elsewhere(&name),
                    started: if same { Started::AlreadyAtWork } else { Started::AtWorkOtherwise },
                    run: name,
                    task: run.task,
                    status,
                    warnings: warnings.clone(),
                }))
            }
        }
    }
}
