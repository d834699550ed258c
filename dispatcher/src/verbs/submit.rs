//! submit and retry.

use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Identity, Reason, RunName, TaskSpec};
use serde::Serialize;

use super::Dispatcher;
use crate::backend::local::Record;
use crate::backend::local::launch::Launch;
use crate::problem::Problem;
use crate::task::decide::{Decision, Known, decide_submission};
use crate::task::request::{Request, Wishes};
use crate::task::resolve::{Draft, Sources, resolve};
use crate::task::status::Status;

/// How long a new run is waited for: a supervisor says something within
/// milliseconds, and a submission is to be answered within two seconds.
const FIRST_SIGN: Duration = Duration::from_secs(1);

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

struct Resolved {
    request: Request,
    draft: Draft,
    warnings: Vec<String>,
}

impl Dispatcher {
    /// The request that tries a run again, with other wishes where there are any.
    ///
    /// # Errors
    /// There is no such run, or it is no run of a task.
    pub fn retry_request(&self, run: &RunName, wishes: Wishes) -> Result<Request, Problem> {
        let earlier = self.run(run)?;
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
        let resolved = self.resolve(request)?;
        // Decided twice: here without a lock and without writing anything, so that a refusal leaves no trace.
        if let Some(answer) = self.answer(&resolved)? {
            return Ok(answer);
        }
        let identity = resolved.request.identity();
        let preview = resolved.draft.named(identity.run_name(1, |_| false), 1);
        let mut launch = Launch::prepare(&self.config, &preview)?;
        launch.add_token_of_gh(&self.config, &preview).await;

        let gate = self.local.gate(&identity.service).await?;
        if let Some(answer) = self.answer(&resolved)? {
            return Ok(answer);
        }
        let attempt = gate.next(&identity, self.highest(&identity)?)?;
        let record = Record {
            version: 1,
            backend: "local".to_owned(),
            submitted_at: Timestamp::now(),
            request: resolved.request,
        };
        let prepared =
            self.local.prepare(&identity, attempt, record, |run| resolved.draft.named(run, attempt))?;
        let run = prepared.run.clone();
        self.local.start(prepared, &launch)?;
        drop(gate);
        let status = self.first_sign(&run.task.run).await?;
        Ok(Submission {
            started: Started::New,
            run: run.task.run.clone(),
            task: run.task,
            status,
            warnings: resolved.warnings,
        })
    }

    /// Waits a moment for the first thing that a new run says, so that one that
    /// cannot even begin is told at once.
    async fn first_sign(&self, run: &RunName) -> Result<Status, Problem> {
        let deadline = tokio::time::Instant::now() + FIRST_SIGN;
        let mut follower = self.local.follow(self.run(run)?);
        loop {
            let status = follower.status(Timestamp::now(), |_, _| {})?;
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
    pub fn preview(&self, request: Request) -> Result<Preview, Problem> {
        let resolved = self.resolve(request)?;
        let answer = self.answer(&resolved)?;
        let identity = resolved.request.identity();
        let attempt = self.local.mark(&identity)?.max(self.highest(&identity)?) + 1;
        let task = match &answer {
            Some(answer) => answer.task.clone(),
            None => resolved.draft.named(self.local.name(&identity, attempt), attempt),
        };
        let launch = Launch::prepare(&self.config, &task)?;
        let workspace = self.local.workspace(&task.service);
        let arguments = launch.arguments(&self.local.run_folder(&task.run), workspace.root());
        let command = std::iter::once(launch.supervisor.as_os_str())
            .chain(arguments.iter().map(AsRef::as_ref))
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        Ok(Preview {
            dry_run: true,
            already_at_work: answer.map(|answer| answer.run),
            task,
            command,
            warnings: resolved.warnings,
        })
    }

    fn resolve(&self, mut request: Request) -> Result<Resolved, Problem> {
        let identity = request.identity();
        let runs = self.local.runs()?;
        let of_service = runs.iter().filter(|run| run.task.service == request.service);
        let last_target = of_service.clone().next().map(|run| run.task.target.url.clone());
        let mut earlier = None;
        if request.mode == Mode::Retry {
            for run in of_service.filter(|run| run.task.identity() == identity) {
                if self.local.status(run, Timestamp::now())?.phase.is_final() {
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
        };
        let draft = resolve(&request, &sources)?;
        // What is wrong with a remote that is not used is nobody's concern.
        let used = sources.remote.as_ref().is_some_and(|url| draft.uses(url));
        let warnings = sources.remote_warning.filter(|_| used).into_iter().collect();
        Ok(Resolved { request, draft, warnings })
    }

    /// The highest attempt that there is a record of; 0 if there is none.
    fn highest(&self, identity: &Identity) -> Result<u32, Problem> {
        let runs = self.local.runs()?;
        let attempts = runs.iter().filter(|run| run.task.identity() == *identity).map(|run| run.task.attempt);
        Ok(attempts.max().unwrap_or_default())
    }

    /// The run that is at work already, or nothing if a new one is to be started.
    fn answer(&self, resolved: &Resolved) -> Result<Option<Submission>, Problem> {
        let Resolved { request, draft, warnings } = resolved;
        let identity = request.identity();
        let now = Timestamp::now();
        let mut known = Vec::new();
        let mut at_work = Vec::new();
        for run in self.local.runs()?.into_iter().filter(|run| run.task.identity() == identity) {
            let status = self.local.status(&run, now)?;
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
        match decide_submission(request.mode, &known, self.local.mark(&identity)?) {
            Decision::Start => Ok(None),
            Decision::Refuse(refusal) => Err(refusal.into()),
            Decision::Answer { run: name, same } => {
                let found = at_work.into_iter().find(|(run, _)| run.task.run == name);
                Ok(found.map(|(run, status)| Submission {
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
