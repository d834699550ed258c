//! Starts the work of each effect and takes in what it found.

use std::sync::Arc;
use std::time::Duration;

use git2::Oid;
use orchestrator_contract::budget::PULL_REQUEST_TIMEOUT_SECONDS;
use orchestrator_contract::outcome::{
    CommandResult, Outcome, PullRequest, Revision, VerificationStatus, Work, WorkLocation,
};
use orchestrator_contract::{Kind, Level, Reason, Step};

use super::{EventLoop, seconds};
use crate::agent::prepare_session;
use crate::agent::session::SessionExit;
use crate::agent::stream::truncate;
use crate::commands::{self, run_commands};
use crate::context::{AgentTools, Context, RepositoryRole, StepOutputs, failure, io_failure};
use crate::docs;
use crate::docs::plan::Plan;
use crate::docs::usage::PreviousDocs;
use crate::publish::fallback::PushTarget;
use crate::publish::push::{PushResult, keep_in_workspace, push_with_fallbacks};
use crate::publish::save::{SavedWork, WorktreeBase, save_tree, write_patch};
use crate::publish::text::render_commit_message;
use crate::publish::{pull_request, scan};
use crate::run::{DocsSessionResult, Failure, PullRequestMode, RunEvent, VerifyResult};
use crate::workspace::branch::{PreparedBranch, prepare_branch};
use crate::workspace::documents::TaskDocuments;
use crate::workspace::fetch::{Fetched, blocking, fetch_platform, fetch_target, open};
use crate::workspace::preflight::{Preflight, check};
use crate::workspace::state::{LastAttempt, TreeState, WorktreeStatus, write_last_attempt, write_tree_state};
use crate::workspace::tools::{find_documents, plan_documents, start_mcp_servers_and_setup};

/// What a task found, or why it could not.
#[derive(Debug)]
pub(super) enum StepOutput {
    Checked(Result<Box<Preflight>, Failure>),
    Platform(Result<Revision, Failure>),
    Target(Result<Fetched, Failure>),
    Branch(Result<PreparedBranch, Failure>),
    Documents(Result<Box<TaskDocuments>, Failure>),
    Planned(Result<Box<(Plan, PreviousDocs)>, Failure>),
    Tools(Result<Box<AgentTools>, Failure>),
    Conversed(Result<Box<SessionExit>, Failure>),
    ItemEnded(usize, Option<Box<SessionExit>>, DocsSessionResult),
    Verified(Result<commands::CommandsResult, Failure>),
    Saved(Result<(SavedWork, u32), Failure>),
    Policy(Result<(), Failure>),
    Home(PushResult),
    PullRequest(Result<Option<PullRequest>, Failure>),
}

/// What a step's facts are missing if it is started out of order: a fault of ours, never of the user.
fn missing_input(what: &str) -> Failure {
    Failure::new(Reason::InternalError, format!("a step was started before {what}"))
}

fn cancelled() -> Failure {
    Failure::new(Reason::Stopped, "it was given up")
}

impl EventLoop {
    /// Runs `work` as a task that reports its end, unless it is cancelled.
    fn start<F>(&mut self, work: F)
    where
        F: Future<Output = StepOutput> + Send + 'static,
    {
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.results_tx.clone());
        tokio::spawn(async move {
            tokio::select! {
                found = work => drop(happened.send(found).await),
                // Whoever cancels has decided what comes next.
                () = cancel.cancelled() => {}
            }
        });
    }

    pub(super) fn start_step(&mut self, step: Step) {
        let context = Arc::clone(&self.context);
        match step {
            Step::Preflight => {
                self.start(async move { StepOutput::Checked(check(&context).await.map(Box::new)) })
            }
            Step::FetchPlatform => self.start_fetches(),
            Step::FetchTarget => {
                let prefetch = self.prefetch.take();
                self.start(async move {
                    match prefetch {
                        Some(prefetch) => prefetch.await.unwrap_or_else(|error| {
                            StepOutput::Target(Err(Failure::new(
                                Reason::InternalError,
                                format!("the fetch broke off: {error}"),
                            )))
                        }),
                        None => StepOutput::Target(Err(missing_input("the fetch"))),
                    }
                });
            }
            Step::Branch => {
                let fetched = self.facts.target.clone();
                self.start(async move {
                    StepOutput::Branch(match fetched {
                        Some(fetched) => prepare_branch(&context, &fetched).await,
                        None => Err(missing_input("the fetch")),
                    })
                });
            }
            Step::Documents if context.task.kind == Kind::Docs => {
                let prepared = self.facts.prepared.clone();
                self.start(async move {
                    StepOutput::Planned(match prepared {
                        Some(prepared) => plan_documents(&context, &prepared).await.map(Box::new),
                        None => Err(missing_input("the branch")),
                    })
                });
            }
            Step::Documents => {
                let platform = self.facts.platform.clone();
                self.start(async move {
                    StepOutput::Documents(match platform {
                        Some(platform) => find_documents(&context, &platform).await.map(Box::new),
                        None => Err(missing_input("the fetch")),
                    })
                });
            }
            Step::Mcp => {
                let prepared = self.facts.prepared.clone();
                self.start(async move {
                    StepOutput::Tools(match prepared {
                        Some(prepared) => {
                            start_mcp_servers_and_setup(&context, &prepared).await.map(Box::new)
                        }
                        None => Err(missing_input("the branch")),
                    })
                });
            }
            Step::Commit => self.start_save(),
            Step::Policy => {
                let saved = self.ledger.saved.clone();
                let base = self.facts.prepared.as_ref().map(|prepared| prepared.base);
                self.start(async move {
                    StepOutput::Policy(match (saved, base) {
                        (Some(saved), Some(base)) => {
                            blocking(move || scan::scan(&context, base, &saved)).await
                        }
                        _ => Err(missing_input("the work was saved")),
                    })
                });
            }
            // These have effects of their own.
            Step::Agent | Step::Verify | Step::Push | Step::PullRequest | Step::Report => {}
        }
    }

    /// Both repositories are fetched at once; the code is taken in at its own step.
    fn start_fetches(&mut self) {
        let Some(checked) = &self.facts.checked else { return };
        let (platform_branch, base, branch) =
            (checked.platform_branch.clone(), checked.base.clone(), checked.branch.clone());
        let refs = checked.target.clone();
        let context = Arc::clone(&self.context);
        self.prefetch = Some(tokio::spawn(async move {
            StepOutput::Target(
                fetch_target(&context, &base, &branch, |branch| refs.branch(branch).is_some()).await,
            )
        }));
        let context = Arc::clone(&self.context);
        if context.task.kind == Kind::Docs {
            // It is the same repository: what was fetched is told when it is there.
            let url = context.task.platform.url.to_string();
            let oid = checked.target.branch(&checked.base).map(|oid| oid.to_string()).unwrap_or_default();
            let seen = Revision { url, branch: platform_branch, oid };
            self.start(async move { StepOutput::Platform(Ok(seen)) });
            return;
        }
        self.start(async move { StepOutput::Platform(fetch_platform(&context, &platform_branch).await) });
    }

    pub(super) fn start_verify(&mut self) {
        let context = Arc::clone(&self.context);
        let limit = seconds(context.task.limits.verify_minutes * 60.0);
        let Some(prepared) = &self.facts.prepared else { return };
        let surroundings = commands::CommandContext {
            supervisor: context.supervisor.clone(),
            environment: prepare_session::base_environment(&context),
            confinement: prepare_session::confinement(&context, None, None),
            directory: context.working_directory(&prepared.working_directory),
        };
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.results_tx.clone());
        tokio::spawn(async move {
            let journal = context.journal.clone();
            let done = |report: &CommandResult| log_command_result(&journal, report);
            let checking = run_commands(&context.task.verify, &surroundings, &context.redactor, limit, done);
            let checked = tokio::select! {
                checked = checking => checked.map_err(|error| failure(Reason::InternalError, &error)),
                () = cancel.cancelled() => Err(cancelled()),
            };
            // A check that was given up may have left something behind.
            crate::process::kill_descendants(&std::collections::BTreeSet::new()).await;
            drop(happened.send(StepOutput::Verified(checked)).await);
        });
    }

    fn start_save(&mut self) {
        let context = Arc::clone(&self.context);
        let title =
            self.facts.documents.as_ref().map(|documents| documents.entry.title.clone()).unwrap_or_default();
        let prepared = self.facts.prepared.clone();
        let written = self.facts.writing.as_ref().map(|writing| writing.branch.tip());
        self.start(async move {
            let Some(prepared) = prepared else { return StepOutput::Saved(Err(missing_input("the branch"))) };
            let limit = seconds(context.settings.publish_timeout_seconds);
            let saving = blocking(move || save(&context, &prepared, &title, written));
            let late =
                || Failure::new(Reason::IoError, "the work was not saved in time: the disk is too slow");
            StepOutput::Saved(tokio::time::timeout(limit, saving).await.unwrap_or_else(|_| Err(late())))
        });
    }

    pub(super) fn start_push(&mut self) {
        let limit = seconds(self.context.settings.publish_timeout_seconds);
        self.start_push_with(move |context, prepared, tip| async move {
            let late = || Failure::new(Reason::RemoteUnavailable, "the push was not finished in time");
            match tokio::time::timeout(
                limit,
                push_with_fallbacks(&context, &prepared, tip, PushTarget::Branch),
            )
            .await
            {
                Ok(home) => home,
                Err(_) => keep_in_workspace(&context, &prepared, tip, late()).await,
            }
        });
    }

    pub(super) fn start_keep_in_workspace(&mut self, why: Failure) {
        self.start_push_with(|context, prepared, tip| async move {
            keep_in_workspace(&context, &prepared, tip, why).await
        });
    }

    fn start_push_with<F>(
        &mut self,
        bring: impl FnOnce(Arc<Context>, PreparedBranch, Oid) -> F + Send + 'static,
    ) where
        F: Future<Output = PushResult> + Send + 'static,
    {
        let context = Arc::clone(&self.context);
        let prepared = self.facts.prepared.clone();
        let tip = self.ledger.saved.as_ref().map(|saved| saved.tip);
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.results_tx.clone());
        tokio::spawn(async move {
            let home = match (prepared, tip) {
                (Some(prepared), Some(tip)) => {
                    let bringing = bring(Arc::clone(&context), prepared.clone(), tip);
                    tokio::select! {
                        home = bringing => home,
                        () = cancel.cancelled() => keep_in_workspace(&context, &prepared, tip, cancelled()).await,
                    }
                }
                _ => {
                    PushResult { failure: Some(missing_input("the work was saved")), ..PushResult::default() }
                }
            };
            drop(happened.send(StepOutput::Home(home)).await);
        });
    }

    pub(super) fn start_pull_request(&mut self, mode: PullRequestMode) {
        let context = Arc::clone(&self.context);
        let crate::run::RunEnd::Outcome(end) = self.run.end() else { return };
        if self.ledger.work.branch.is_none() {
            // Nothing was pushed by this run; a pull request of an earlier one has the same branch.
            self.ledger.work.branch = self.facts.prepared.as_ref().map(|prepared| prepared.branch.clone());
        }
        let outcome = self.outcome(Step::PullRequest, &end);
        if self.ledger.work.location == WorkLocation::None {
            self.ledger.work.branch = None;
        }
        let documents = self.facts.documents.clone();
        let limit = seconds(self.context.settings.publish_timeout_seconds)
            .min(Duration::from_secs(PULL_REQUEST_TIMEOUT_SECONDS.into()));
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.results_tx.clone());
        tokio::spawn(async move {
            let publishing = pull_request::publish(&context, &outcome, documents.as_ref(), mode);
            let late = || Failure::new(Reason::PullRequestFailed, "the pull request was not opened in time");
            let published = tokio::select! {
                published = tokio::time::timeout(limit, publishing) => published.unwrap_or_else(|_| Err(late())),
                () = cancel.cancelled() => Err(cancelled()),
            };
            drop(happened.send(StepOutput::PullRequest(published)).await);
        });
    }

    /// Takes in what a task found and says what it means for the run.
    pub(super) fn apply_output(&mut self, happened: StepOutput) -> Option<RunEvent> {
        match happened {
            StepOutput::Checked(found) => self.take(Step::Preflight, found, |this, checked| {
                let task = &this.context.task;
                let what = match (task.kind, task.task_id) {
                    (Kind::Implementation, Some(id)) => format!("task {id}"),
                    (Kind::Docs, Some(id)) => format!("documents of task {id}"),
                    (Kind::Implementation | Kind::Docs, None) => "documents of all tasks".to_owned(),
                };
                let text = format!("{}: {what} of {} on `{}`", task.run, task.target.url, checked.base);
                this.context.journal.info(text);
                this.facts.checked = Some(*checked);
            }),
            StepOutput::Platform(found) => {
                self.take(Step::FetchPlatform, found, |this, platform| this.facts.platform = Some(platform))
            }
            StepOutput::Target(found) => self.take(Step::FetchTarget, found, |this, target| {
                if this.context.task.kind == Kind::Docs {
                    this.facts.platform = Some(target.base.clone());
                }
                this.facts.target = Some(target);
            }),
            StepOutput::Branch(found) => self.take(Step::Branch, found, |this, prepared| {
                for note in &prepared.notes {
                    this.context.journal.info(note.clone());
                }
                let directory = this.context.working_directory(&prepared.working_directory);
                this.context.journal.info(format!("`{}` in {}", prepared.branch, directory.display()));
                this.facts.prepared = Some(prepared);
            }),
            StepOutput::Documents(found) => {
                self.take(Step::Documents, found, |this, documents| this.facts.documents = Some(*documents))
            }
            StepOutput::Planned(found) => {
                self.take(Step::Documents, found, |this, planned| this.take_plan(planned.0, planned.1))
            }
            StepOutput::ItemEnded(index, conversed, end) => Some(self.item_ended(index, conversed, end)),
            StepOutput::Tools(found) => {
                self.take(Step::Mcp, found, |this, tools| this.facts.tools = Some(*tools))
            }
            StepOutput::Conversed(conversed) => Some(self.session_finished(conversed)),
            StepOutput::Verified(checked) => Some(self.verified(checked)),
            StepOutput::Saved(saved) => Some(self.saved(saved)),
            StepOutput::Policy(found) => self.take(Step::Policy, found, |_, ()| {}),
            StepOutput::Home(home) => Some(self.pushed(home)),
            StepOutput::PullRequest(found) => self.take(Step::PullRequest, found, |this, pull| {
                if let Some(pull) = &pull {
                    this.context.journal.info(format!("pull request {}", pull.url));
                }
                this.ledger.pull_request = pull;
            }),
        }
    }

    fn take<T>(
        &mut self,
        step: Step,
        found: Result<T, Failure>,
        keep: impl FnOnce(&mut Self, T),
    ) -> Option<RunEvent> {
        match found {
            Ok(found) => {
                keep(self, found);
                self.step_ended(step, None);
                Some(RunEvent::StepDone(step))
            }
            Err(failure) => {
                self.step_ended(step, Some(&failure.message));
                Some(RunEvent::StepFailed(step, failure))
            }
        }
    }

    fn verified(&mut self, checked: Result<commands::CommandsResult, Failure>) -> RunEvent {
        let verified = match checked {
            Ok(checked) => {
                let text = checked.failure_text();
                self.ledger.verification.status = match (&text, checked.reports.is_empty()) {
                    (Some(_), _) => VerificationStatus::Failed,
                    (None, true) => VerificationStatus::NotConfigured,
                    (None, false) => VerificationStatus::Passed,
                };
                self.ledger.verification.commands = checked.reports;
                text.map_or(VerifyResult::Passed, VerifyResult::Failed)
            }
            Err(failure) => VerifyResult::Error(failure),
        };
        let failed = match &verified {
            VerifyResult::Passed => None,
            VerifyResult::Failed(text) => text.lines().next().map(str::to_owned),
            VerifyResult::Error(failure) => Some(failure.message.clone()),
        };
        self.step_ended(Step::Verify, failed.as_deref());
        RunEvent::Verified(verified)
    }

    fn saved(&mut self, saved: Result<(SavedWork, u32), Failure>) -> RunEvent {
        match saved {
            Ok((saved, commits)) => {
                self.ledger.commits = commits;
                self.ledger.saved = Some(saved);
                self.step_ended(Step::Commit, None);
                RunEvent::Saved(commits)
            }
            Err(failure) => {
                // The last rung: the raw tree is left in place, and the next run saves it first.
                self.ledger.work = Work {
                    location: WorkLocation::Workspace,
                    branch: self.facts.prepared.as_ref().map(|prepared| prepared.branch.clone()),
                    oid: None,
                    path: Some(self.context.worktree().display().to_string()),
                };
                self.step_ended(Step::Commit, Some(&failure.message));
                RunEvent::StepFailed(Step::Commit, failure)
            }
        }
    }

    fn pushed(&mut self, home: PushResult) -> RunEvent {
        let PushResult { work, failure, notes } = home;
        self.ledger.work = work;
        self.ledger.notes.extend(notes);
        self.step_ended(Step::Push, failure.as_ref().map(|failure| failure.message.as_str()));
        RunEvent::Pushed(failure)
    }
}

/// Saves the work; says how many commits the base has not. `written` is the branch that a docs
/// run has made as it went.
fn save(
    context: &Context,
    prepared: &PreparedBranch,
    title: &str,
    written: Option<Oid>,
) -> Result<(SavedWork, u32), Failure> {
    let task = &context.task;
    let left = WorktreeBase { start: prepared.start, branch: prepared.branch.clone(), run: task.run.clone() };
    let saved = match written {
        Some(tip) => docs::collect::save(context, &left, tip)?,
        None => {
            let message = render_commit_message(&task.service, task.task_id, title, &task.run);
            save_tree(context, &left, &message)?
        }
    };
    let control = open(context, RepositoryRole::Target)?;
    let commits = control.ahead(prepared.base, saved.tip).map_err(|error| failure(error.reason(), &error))?;
    write_patch(context, prepared.base, saved.tip);
    let state = TreeState {
        run: task.run.clone(),
        status: WorktreeStatus::Clean,
        branch: prepared.branch.clone(),
        start: saved.tip.to_string(),
        base: prepared.base.to_string(),
    };
    write_tree_state(&context.tree_state(), &state)
        .map_err(|error| io_failure(&context.tree_state(), &error))?;
    Ok((saved, commits))
}

fn log_command_result(journal: &crate::record::EventLog, report: &CommandResult) {
    let CommandResult { command, exit_code, seconds, output } = report;
    if *exit_code == Some(0) {
        journal.log(Level::Info, "verify", format!("`{command}` passed in {seconds:.1} s"));
        return;
    }
    journal.log(Level::Warn, "verify", format!("`{command}` failed in {seconds:.1} s"));
    let last: Vec<&str> = output.lines().rev().filter(|line| !line.trim().is_empty()).take(12).collect();
    for line in last.into_iter().rev() {
        journal.log(Level::Info, "verify", format!("| {}", truncate(line, 200)));
    }
}

/// Writes everything that says how the run ended: all of it says the same.
pub(super) fn write_report(
    context: &Context,
    facts: &StepOutputs,
    ledger: &super::RunReport,
    outcome: &Outcome,
) {
    if let Some(prepared) = &facts.prepared {
        let attempt = LastAttempt {
            run: outcome.run.to_string(),
            branch: prepared.branch.clone(),
            session: ledger.sessions.last().cloned(),
            end: format!("{}: {}", outcome.reason, outcome.message),
            summary: outcome.verdict.as_ref().map(|verdict| verdict.summary.clone()).unwrap_or_default(),
        };
        if let Err(error) = write_last_attempt(&context.layout, &context.task.identity(), &attempt) {
            context.journal.warn(format!("the attempt could not be recorded: {error}"));
        }
    }
    let text = serde_json::to_vec_pretty(outcome).unwrap_or_default();
    let text = context.redactor.redact_bytes(&text).into_owned();
    if context.record.folder().is_dir()
        && let Err(error) = crate::record::file::write_atomically(&context.record.outcome(), &text)
    {
        context.journal.warn(format!("the outcome could not be written to the workspace: {error}"));
    }
    context.journal.outcome(outcome);
    crate::record::termination::write(&context.settings.termination_log, outcome, &context.redactor);
}
