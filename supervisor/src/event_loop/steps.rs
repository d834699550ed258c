//! Starts the work of each effect and takes in what it found.

use std::sync::Arc;
use std::time::Duration;

use git2::Oid;
use orchestrator_contract::outcome::{
    CommandReport, Outcome, Place, PullRequest, Revision, VerificationStatus, Work,
};
use orchestrator_contract::{Kind, Level, Reason, Step};

use super::{Loop, seconds};
use crate::agent::conversation::Conversed;
use crate::agent::stream::shorten;
use crate::agent::work;
use crate::checks::{self, run_commands};
use crate::context::{Context, Facts, Side, Tools, failure, io_failure};
use crate::docs;
use crate::docs::account::Earlier;
use crate::docs::plan::Plan;
use crate::publish::home::{Home, bring_home, keep_home};
use crate::publish::ladder::Rung;
use crate::publish::save::{Left, Saved, save_tree, write_patch};
use crate::publish::text::render_commit_message;
use crate::publish::{pull_request, scan};
use crate::run::{Event, Failure, ItemEnd, PullRequestMode, Verified};
use crate::workspace::branch::{Prepared, prepare_branch};
use crate::workspace::check::{Checked, check};
use crate::workspace::documents::TaskDocuments;
use crate::workspace::fetch::{Fetched, blocking, fetch_platform, fetch_target, open};
use crate::workspace::state::{Content, LastAttempt, TreeState, write_last_attempt, write_tree_state};
use crate::workspace::tools::{find_documents, plan_documents, prepare_tools};

/// What a task found, or why it could not.
#[derive(Debug)]
pub(super) enum Happened {
    Checked(Result<Box<Checked>, Failure>),
    Platform(Result<Revision, Failure>),
    Target(Result<Fetched, Failure>),
    Branch(Result<Prepared, Failure>),
    Documents(Result<Box<TaskDocuments>, Failure>),
    Planned(Result<Box<(Plan, Earlier)>, Failure>),
    Tools(Result<Box<Tools>, Failure>),
    Conversed(Result<Box<Conversed>, Failure>),
    ItemEnded(usize, Option<Box<Conversed>>, ItemEnd),
    Verified(Result<checks::Checked, Failure>),
    Saved(Result<(Saved, u32), Failure>),
    Policy(Result<(), Failure>),
    Home(Home),
    PullRequest(Result<Option<PullRequest>, Failure>),
}

/// What a step's facts are missing if it is started out of order: a fault of ours, never of the user.
fn out_of_order(what: &str) -> Failure {
    Failure::new(Reason::Internal, format!("a step was started before {what}"))
}

fn given_up() -> Failure {
    Failure::new(Reason::Stopped, "it was given up")
}

impl Loop {
    /// Runs `work` as a task that reports its end, unless it is cancelled.
    fn start<F>(&mut self, work: F)
    where
        F: Future<Output = Happened> + Send + 'static,
    {
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.happened.clone());
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
            Step::Check => self.start(async move { Happened::Checked(check(&context).await.map(Box::new)) }),
            Step::Platform => self.start_fetches(),
            Step::Target => {
                let prefetch = self.prefetch.take();
                self.start(async move {
                    match prefetch {
                        Some(prefetch) => prefetch.await.unwrap_or_else(|error| {
                            Happened::Target(Err(Failure::new(
                                Reason::Internal,
                                format!("the fetch broke off: {error}"),
                            )))
                        }),
                        None => Happened::Target(Err(out_of_order("the fetch"))),
                    }
                });
            }
            Step::Branch => {
                let fetched = self.facts.target.clone();
                self.start(async move {
                    Happened::Branch(match fetched {
                        Some(fetched) => prepare_branch(&context, &fetched).await,
                        None => Err(out_of_order("the fetch")),
                    })
                });
            }
            Step::Documents if context.task.kind == Kind::Docs => {
                let prepared = self.facts.prepared.clone();
                self.start(async move {
                    Happened::Planned(match prepared {
                        Some(prepared) => plan_documents(&context, &prepared).await.map(Box::new),
                        None => Err(out_of_order("the branch")),
                    })
                });
            }
            Step::Documents => {
                let platform = self.facts.platform.clone();
                self.start(async move {
                    Happened::Documents(match platform {
                        Some(platform) => find_documents(&context, &platform).await.map(Box::new),
                        None => Err(out_of_order("the fetch")),
                    })
                });
            }
            Step::Mcp => {
                let prepared = self.facts.prepared.clone();
                self.start(async move {
                    Happened::Tools(match prepared {
                        Some(prepared) => prepare_tools(&context, &prepared).await.map(Box::new),
                        None => Err(out_of_order("the branch")),
                    })
                });
            }
            Step::Save => self.start_save(),
            Step::Policy => {
                let saved = self.ledger.saved.clone();
                let base = self.facts.prepared.as_ref().map(|prepared| prepared.base);
                self.start(async move {
                    Happened::Policy(match (saved, base) {
                        (Some(saved), Some(base)) => {
                            blocking(move || scan::scan(&context, base, &saved)).await
                        }
                        _ => Err(out_of_order("the work was saved")),
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
            Happened::Target(
                fetch_target(&context, &base, &branch, |branch| refs.branch(branch).is_some()).await,
            )
        }));
        let context = Arc::clone(&self.context);
        if context.task.kind == Kind::Docs {
            // It is the same repository: what was fetched is told when it is there.
            let url = context.task.platform.url.to_string();
            let oid = checked.target.branch(&checked.base).map(|oid| oid.to_string()).unwrap_or_default();
            let seen = Revision { url, branch: platform_branch, oid };
            self.start(async move { Happened::Platform(Ok(seen)) });
            return;
        }
        self.start(async move { Happened::Platform(fetch_platform(&context, &platform_branch).await) });
    }

    pub(super) fn start_verify(&mut self) {
        let context = Arc::clone(&self.context);
        let limit = seconds(context.task.limits.verify_minutes * 60.0);
        let Some(prepared) = &self.facts.prepared else { return };
        let surroundings = checks::Surroundings {
            supervisor: context.supervisor.clone(),
            environment: work::bare_environment(&context),
            confinement: work::confinement(&context, None, None),
            directory: context.working_directory(&prepared.working_directory),
        };
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.happened.clone());
        tokio::spawn(async move {
            let journal = context.journal.clone();
            let done = |report: &CommandReport| tell_check(&journal, report);
            let checking = run_commands(&context.task.verify, &surroundings, &context.redactor, limit, done);
            let checked = tokio::select! {
                checked = checking => checked.map_err(|error| failure(Reason::Internal, &error)),
                () = cancel.cancelled() => Err(given_up()),
            };
            // A check that was given up may have left something behind.
            crate::process::end_all(&std::collections::BTreeSet::new()).await;
            drop(happened.send(Happened::Verified(checked)).await);
        });
    }

    fn start_save(&mut self) {
        let context = Arc::clone(&self.context);
        let title =
            self.facts.documents.as_ref().map(|documents| documents.entry.title.clone()).unwrap_or_default();
        let prepared = self.facts.prepared.clone();
        let written = self.facts.writing.as_ref().map(|writing| writing.branch.tip());
        self.start(async move {
            let Some(prepared) = prepared else { return Happened::Saved(Err(out_of_order("the branch"))) };
            let limit = seconds(context.settings.publish_seconds);
            let saving = blocking(move || save(&context, &prepared, &title, written));
            let late =
                || Failure::new(Reason::InputOutput, "the work was not saved in time: the disk is too slow");
            Happened::Saved(tokio::time::timeout(limit, saving).await.unwrap_or_else(|_| Err(late())))
        });
    }

    pub(super) fn start_push(&mut self) {
        let limit = seconds(self.context.settings.publish_seconds);
        self.start_home(move |context, prepared, tip| async move {
            let late = || Failure::new(Reason::RemoteUnavailable, "the push was not finished in time");
            match tokio::time::timeout(limit, bring_home(&context, &prepared, tip, Rung::Branch)).await {
                Ok(home) => home,
                Err(_) => keep_home(&context, &prepared, tip, late()).await,
            }
        });
    }

    pub(super) fn start_keep(&mut self, why: Failure) {
        self.start_home(
            |context, prepared, tip| async move { keep_home(&context, &prepared, tip, why).await },
        );
    }

    fn start_home<F>(&mut self, bring: impl FnOnce(Arc<Context>, Prepared, Oid) -> F + Send + 'static)
    where
        F: Future<Output = Home> + Send + 'static,
    {
        let context = Arc::clone(&self.context);
        let prepared = self.facts.prepared.clone();
        let tip = self.ledger.saved.as_ref().map(|saved| saved.tip);
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.happened.clone());
        tokio::spawn(async move {
            let home = match (prepared, tip) {
                (Some(prepared), Some(tip)) => {
                    let bringing = bring(Arc::clone(&context), prepared.clone(), tip);
                    tokio::select! {
                        home = bringing => home,
                        () = cancel.cancelled() => keep_home(&context, &prepared, tip, given_up()).await,
                    }
                }
                _ => Home { failure: Some(out_of_order("the work was saved")), ..Home::default() },
            };
            drop(happened.send(Happened::Home(home)).await);
        });
    }

    pub(super) fn start_pull_request(&mut self, mode: PullRequestMode) {
        let context = Arc::clone(&self.context);
        let crate::run::End::Ended(end) = self.run.end() else { return };
        if self.ledger.work.branch.is_none() {
            // Nothing was pushed by this run; a pull request of an earlier one has the same branch.
            self.ledger.work.branch = self.facts.prepared.as_ref().map(|prepared| prepared.branch.clone());
        }
        let outcome = self.outcome(Step::PullRequest, &end);
        if self.ledger.work.place == Place::None {
            self.ledger.work.branch = None;
        }
        let documents = self.facts.documents.clone();
        let limit = seconds(self.context.settings.publish_seconds).min(Duration::from_secs(240));
        self.cancel = tokio_util::sync::CancellationToken::new();
        let (cancel, happened) = (self.cancel.clone(), self.happened.clone());
        tokio::spawn(async move {
            let publishing = pull_request::publish(&context, &outcome, documents.as_ref(), mode);
            let late = || Failure::new(Reason::PullRequestFailed, "the pull request was not opened in time");
            let published = tokio::select! {
                published = tokio::time::timeout(limit, publishing) => published.unwrap_or_else(|_| Err(late())),
                () = cancel.cancelled() => Err(given_up()),
            };
            drop(happened.send(Happened::PullRequest(published)).await);
        });
    }

    /// Takes in what a task found and says what it means for the run.
    pub(super) fn learn(&mut self, happened: Happened) -> Option<Event> {
        match happened {
            Happened::Checked(found) => self.take(Step::Check, found, |this, checked| {
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
            Happened::Platform(found) => {
                self.take(Step::Platform, found, |this, platform| this.facts.platform = Some(platform))
            }
            Happened::Target(found) => self.take(Step::Target, found, |this, target| {
                if this.context.task.kind == Kind::Docs {
                    this.facts.platform = Some(target.base.clone());
                }
                this.facts.target = Some(target);
            }),
            Happened::Branch(found) => self.take(Step::Branch, found, |this, prepared| {
                for note in &prepared.notes {
                    this.context.journal.info(note.clone());
                }
                let directory = this.context.working_directory(&prepared.working_directory);
                this.context.journal.info(format!("`{}` in {}", prepared.branch, directory.display()));
                this.facts.prepared = Some(prepared);
            }),
            Happened::Documents(found) => {
                self.take(Step::Documents, found, |this, documents| this.facts.documents = Some(*documents))
            }
            Happened::Planned(found) => {
                self.take(Step::Documents, found, |this, planned| this.take_plan(planned.0, planned.1))
            }
            Happened::ItemEnded(index, conversed, end) => Some(self.item_ended(index, conversed, end)),
            Happened::Tools(found) => {
                self.take(Step::Mcp, found, |this, tools| this.facts.tools = Some(*tools))
            }
            Happened::Conversed(conversed) => Some(self.conversed(conversed)),
            Happened::Verified(checked) => Some(self.verified(checked)),
            Happened::Saved(saved) => Some(self.saved(saved)),
            Happened::Policy(found) => self.take(Step::Policy, found, |_, ()| {}),
            Happened::Home(home) => Some(self.home(home)),
            Happened::PullRequest(found) => self.take(Step::PullRequest, found, |this, pull| {
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
    ) -> Option<Event> {
        match found {
            Ok(found) => {
                keep(self, found);
                self.step_ended(step, None);
                Some(Event::StepDone(step))
            }
            Err(failure) => {
                self.step_ended(step, Some(&failure.message));
                Some(Event::StepFailed(step, failure))
            }
        }
    }

    fn verified(&mut self, checked: Result<checks::Checked, Failure>) -> Event {
        let verified = match checked {
            Ok(checked) => {
                let text = checked.failure_text();
                self.ledger.verification.status = match (&text, checked.reports.is_empty()) {
                    (Some(_), _) => VerificationStatus::Failed,
                    (None, true) => VerificationStatus::NotConfigured,
                    (None, false) => VerificationStatus::Passed,
                };
                self.ledger.verification.commands = checked.reports;
                text.map_or(Verified::Passed, Verified::Failed)
            }
            Err(failure) => Verified::Broken(failure),
        };
        let failed = match &verified {
            Verified::Passed => None,
            Verified::Failed(text) => text.lines().next().map(str::to_owned),
            Verified::Broken(failure) => Some(failure.message.clone()),
        };
        self.step_ended(Step::Verify, failed.as_deref());
        Event::Verified(verified)
    }

    fn saved(&mut self, saved: Result<(Saved, u32), Failure>) -> Event {
        match saved {
            Ok((saved, commits)) => {
                self.ledger.commits = commits;
                self.ledger.saved = Some(saved);
                self.step_ended(Step::Save, None);
                Event::Saved(commits)
            }
            Err(failure) => {
                // The last rung: the raw tree is left in place, and the next run saves it first.
                self.ledger.work = Work {
                    place: Place::Workspace,
                    branch: self.facts.prepared.as_ref().map(|prepared| prepared.branch.clone()),
                    oid: None,
                    path: Some(self.context.worktree().display().to_string()),
                };
                self.step_ended(Step::Save, Some(&failure.message));
                Event::StepFailed(Step::Save, failure)
            }
        }
    }

    fn home(&mut self, home: Home) -> Event {
        let Home { work, failure, notes } = home;
        self.ledger.work = work;
        self.ledger.notes.extend(notes);
        self.step_ended(Step::Push, failure.as_ref().map(|failure| failure.message.as_str()));
        Event::Pushed(failure)
    }
}

/// Saves the work; says how many commits the base has not. `written` is the branch that a docs
/// run has made as it went.
fn save(
    context: &Context,
    prepared: &Prepared,
    title: &str,
    written: Option<Oid>,
) -> Result<(Saved, u32), Failure> {
    let task = &context.task;
    let left = Left { start: prepared.start, branch: prepared.branch.clone(), run: task.run.clone() };
    let saved = match written {
        Some(tip) => docs::take::save(context, &left, tip)?,
        None => {
            let message = render_commit_message(&task.service, task.task_id, title, &task.run);
            save_tree(context, &left, &message)?
        }
    };
    let control = open(context, Side::Target)?;
    let commits = control.ahead(prepared.base, saved.tip).map_err(|error| failure(error.reason(), &error))?;
    write_patch(context, prepared.base, saved.tip);
    let state = TreeState {
        run: task.run.clone(),
        content: Content::Saved,
        branch: prepared.branch.clone(),
        start: saved.tip.to_string(),
        base: prepared.base.to_string(),
    };
    write_tree_state(&context.tree_state(), &state)
        .map_err(|error| io_failure(&context.tree_state(), &error))?;
    Ok((saved, commits))
}

fn tell_check(journal: &crate::record::Journal, report: &CommandReport) {
    let CommandReport { command, exit_code, seconds, output } = report;
    if *exit_code == Some(0) {
        journal.log(Level::Info, "verify", format!("`{command}` passed in {seconds:.1} s"));
        return;
    }
    journal.log(Level::Warn, "verify", format!("`{command}` failed in {seconds:.1} s"));
    let last: Vec<&str> = output.lines().rev().filter(|line| !line.trim().is_empty()).take(12).collect();
    for line in last.into_iter().rev() {
        journal.log(Level::Info, "verify", format!("| {}", shorten(line, 200)));
    }
}

/// Writes everything that says how the run ended: all of it says the same.
pub(super) fn write_report(context: &Context, facts: &Facts, ledger: &super::Ledger, outcome: &Outcome) {
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
