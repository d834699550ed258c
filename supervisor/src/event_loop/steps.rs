//! Starts the work of each effect as a task.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::budget::PULL_REQUEST_TIMEOUT_SECONDS;
use orchestrator_contract::outcome::{CommandResult, Revision, WorkLocation};
use orchestrator_contract::{Kind, Level, Reason, Step};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::deadline::{Expired, await_step, blocking_within};
use super::outputs::{CommitInput, DocsRun, FetchInput, PushInput, StepOutput};
use super::{EventLoop, seconds};
use crate::agent::stream::truncate;
use crate::context::{Context, RepositoryRole};
use crate::docs::collect::{self, DocsBranch};
use crate::failure::Failure;
use crate::git::Oid;
use crate::publish::fallback::PushTarget;
use crate::publish::push::{PushResult, keep_in_workspace, push_with_fallbacks};
use crate::publish::save::{SavedWork, WorktreeBase, save_tree, write_patch};
use crate::publish::text::render_commit_message;
use crate::publish::{pull_request, scan};
use crate::run::{PullRequestMode, RunEnd};
use crate::workspace::branch::{PreparedBranch, prepare_branch};
use crate::workspace::export::{ExportInput, remove_stale};
use crate::workspace::fetch::{Fetched, blocking, fetch_platform, fetch_target, open};
use crate::workspace::preflight::check;
use crate::workspace::state::{TreeState, WorktreeStatus, recorded_setup, write_tree_state};
use crate::workspace::tools::{find_documents, plan_documents, start_mcp_servers_and_setup};
use crate::workspace::verify;

/// Maximum time of a pull request update, below the publish timeout's default.
const PULL_REQUEST_TIMEOUT: Duration = Duration::from_secs(PULL_REQUEST_TIMEOUT_SECONDS as u64);

/// Maximum output lines of a failed command to log.
const COMMAND_LOG_LINES: usize = 12;

/// Time that a stop now leaves for the commit, below the pod's time for the report.
const COMMIT_GRACE: Duration = Duration::from_secs(8);

/// Returns why the commit was left; the worktree keeps the work, and the next run commits it.
fn commit_expired(expired: Expired, stops_now: bool) -> Failure {
    match expired {
        Expired::TimedOut if !stops_now => {
            Failure::new(Reason::IoError, "committing the work timed out: slow disk")
        }
        Expired::TimedOut | Expired::Cancelled => {
            Failure::new(Reason::Stopped, "the stop request left no time to commit the work")
        }
    }
}

fn cancelled() -> Failure {
    Failure::new(Reason::Stopped, "the step was cancelled")
}

impl EventLoop {
    /// Starts a step with its input.
    ///
    /// [`RunMachine`](crate::run::RunMachine) starts a step only after the steps before it, so
    /// the input is there. A missing one is a bug, and fails the step as an internal error.
    pub(super) fn start_with<T>(
        &mut self,
        input: Option<T>,
        failed: impl FnOnce(Failure) -> StepOutput,
        start: impl FnOnce(&mut Self, T),
    ) {
        match input {
            Some(input) => start(self, input),
            None => {
                let message = format!("step `{}` started without its input", self.run.step());
                self.send_output(failed(Failure::new(Reason::InternalError, message)));
            }
        }
    }

    pub(super) fn send_output(&self, output: StepOutput) {
        let results_tx = self.results_tx.clone();
        tokio::spawn(async move { results_tx.send(output).await });
    }

    /// Spawns a step; a cancelled step sends no output.
    fn spawn_step<F>(&mut self, work: F)
    where
        F: Future<Output = StepOutput> + Send + 'static,
    {
        let (cancel, results_tx) = self.new_cancel();
        tokio::spawn(async move {
            tokio::select! {
                output = work => drop(results_tx.send(output).await),
                // The run machine already decided what follows the cancellation.
                () = cancel.cancelled() => {}
            }
        });
    }

    /// Returns the cancellation token of a new effect, and the channel for its output.
    fn new_cancel(&mut self) -> (CancellationToken, mpsc::Sender<StepOutput>) {
        self.cancel = CancellationToken::new();
        (self.cancel.clone(), self.results_tx.clone())
    }

    pub(super) fn start_step(&mut self, step: Step) {
        let outputs = &mut self.outputs;
        match (step, self.context.task.kind) {
            (Step::Preflight, _) => self.start_preflight(),
            (Step::FetchPlatform, _) => {
                let input = outputs.fetch_input();
                self.start_with(input, |f| StepOutput::Platform(Err(f)), Self::start_fetches);
            }
            (Step::FetchTarget, _) => {
                let prefetch = outputs.prefetch.take();
                self.start_with(prefetch, |f| StepOutput::Target(Err(f)), Self::await_prefetch);
            }
            (Step::Branch, _) => {
                let fetched = outputs.target.clone();
                self.start_with(fetched, |f| StepOutput::Branch(Err(f)), Self::start_branch);
            }
            (Step::Documents, Kind::Docs) => {
                let prepared = outputs.prepared.clone();
                self.start_with(prepared, |f| StepOutput::DocsPlanned(Err(f)), Self::start_docs_plan);
            }
            (Step::Documents, Kind::Implementation) => {
                let platform = outputs.platform.clone();
                self.start_with(platform, |f| StepOutput::Documents(Err(f)), Self::start_documents);
            }
            (Step::Mcp, _) => {
                let prepared = outputs.prepared.clone();
                self.start_with(prepared, |f| StepOutput::Tools(Err(f)), Self::start_tools);
            }
            (Step::Commit, _) => {
                let input = outputs.commit_input();
                self.start_with(input, |f| StepOutput::Saved(Err(f)), Self::start_commit);
            }
            (Step::Policy, _) => {
                let input = outputs.policy_input();
                self.start_with(input, |f| StepOutput::Policy(Err(f)), Self::start_policy);
            }
            // These have effects of their own.
            (Step::Agent | Step::Verify | Step::Push | Step::PullRequest | Step::Report, _) => {}
        }
    }

    fn start_preflight(&mut self) {
        let context = Arc::clone(&self.context);
        self.spawn_step(async move { StepOutput::Preflight(check(&context).await.map(Box::new)) });
    }

    /// Fetches both repositories concurrently; `fetch_target` awaits the second one.
    fn start_fetches(&mut self, input: FetchInput) {
        let FetchInput { platform_branch, base, branch, refs } = input;
        let seen = refs.branch(&base).map(|oid| oid.to_string()).unwrap_or_default();
        let context = Arc::clone(&self.context);
        self.outputs.prefetch = Some(tokio::spawn(async move {
            fetch_target(&context, &base, &branch, |branch| refs.branch(branch).is_some()).await
        }));
        let context = Arc::clone(&self.context);
        match context.task.kind {
            Kind::Implementation => self.spawn_step(async move {
                StepOutput::Platform(fetch_platform(&context, &platform_branch).await)
            }),
            // The target is the platform repository; its fetch replaces this revision.
            Kind::Docs => {
                let url = context.task.platform.url.to_string();
                let revision = Revision { url, branch: platform_branch, oid: seen };
                self.spawn_step(async move { StepOutput::Platform(Ok(revision)) });
            }
        }
    }

    fn await_prefetch(&mut self, prefetch: JoinHandle<Result<Fetched, Failure>>) {
        self.spawn_step(async move {
            StepOutput::Target(prefetch.await.unwrap_or_else(|error| {
                Err(Failure::new(Reason::InternalError, format!("the fetch task failed: {error}")))
            }))
        });
    }

    fn start_branch(&mut self, fetched: Fetched) {
        let context = Arc::clone(&self.context);
        self.spawn_step(
            async move { StepOutput::Branch(prepare_branch(&context, &fetched).await.map(Box::new)) },
        );
    }

    fn start_documents(&mut self, platform: Revision) {
        let context = Arc::clone(&self.context);
        self.spawn_step(async move {
            StepOutput::Documents(find_documents(&context, &platform).await.map(Box::new))
        });
    }

    fn start_docs_plan(&mut self, prepared: PreparedBranch) {
        let context = Arc::clone(&self.context);
        self.spawn_step(async move {
            let planned = plan_documents(&context, &prepared).await;
            StepOutput::DocsPlanned(planned.map(|(plan, previous)| {
                let branch = DocsBranch::new(&prepared.branch, prepared.start);
                Box::new(DocsRun { plan: Arc::new(plan), previous, branch })
            }))
        });
    }

    fn start_tools(&mut self, prepared: PreparedBranch) {
        let context = Arc::clone(&self.context);
        self.spawn_step(async move {
            StepOutput::Tools(start_mcp_servers_and_setup(&context, &prepared).await.map(Box::new))
        });
    }

    pub(super) fn start_verify(&mut self) {
        let input = self.outputs.verify_input();
        self.start_with(input, |f| StepOutput::Verified(Err(f)), Self::verify);
    }

    fn verify(&mut self, input: ExportInput) {
        let context = Arc::clone(&self.context);
        let (cancel, results_tx) = self.new_cancel();
        tokio::spawn(async move {
            let journal = context.journal.clone();
            let on_done = |result: &CommandResult| log_command_result(&journal, result);
            let result = tokio::select! {
                result = verify::verify(&context, input, on_done) => result,
                () = cancel.cancelled() => Err(cancelled()),
            };
            // A cancelled command may leave processes behind.
            context.verify_site.kill_all().await;
            if cancel.is_cancelled() {
                // A stop does not wait for it; the next run removes the rest.
                tokio::task::spawn_blocking(move || remove_stale(&context, &context.verify_site));
            }
            drop(results_tx.send(StepOutput::Verified(result)).await);
        });
    }

    fn start_commit(&mut self, input: CommitInput) {
        let context = Arc::clone(&self.context);
        let limit = seconds(context.settings.publish_timeout_seconds);
        // A stop now that arrived before this step leaves it as much time as one that arrives later.
        let stops_now = self.run.stops_now();
        let limit = if stops_now { limit.min(COMMIT_GRACE) } else { limit };
        let (cancel, results_tx) = self.new_cancel();
        tokio::spawn(async move {
            let commit = blocking(move || commit(&context, &input));
            let result = await_step(commit, limit, &cancel, COMMIT_GRACE).await;
            let result = result.unwrap_or_else(|expired| Err(commit_expired(expired, stops_now)));
            drop(results_tx.send(StepOutput::Saved(result)).await);
        });
    }

    fn start_policy(&mut self, (base, saved): (Oid, SavedWork)) {
        let context = Arc::clone(&self.context);
        self.spawn_step(async move {
            let limit = seconds(context.settings.publish_timeout_seconds);
            let scan = blocking_within(limit, move |cancel| scan::scan(&context, base, &saved, cancel));
            let timed_out = || Failure::new(Reason::IoError, "checking the commits timed out: too much data");
            StepOutput::Policy(scan.await.unwrap_or_else(|| Err(timed_out())))
        });
    }

    pub(super) fn start_push(&mut self) {
        let limit = seconds(self.context.settings.publish_timeout_seconds);
        self.start_push_with(move |context, PushInput { prepared, tip, verified }| async move {
            if let Err(failure) = check_verified(tip, verified) {
                return keep_in_workspace(&context, &prepared, tip, failure).await;
            }
            let timed_out = || Failure::new(Reason::RemoteUnavailable, "the push timed out");
            let push = push_with_fallbacks(&context, &prepared, tip, PushTarget::Branch);
            match tokio::time::timeout(limit, push).await {
                Ok(result) => result,
                Err(_) => keep_in_workspace(&context, &prepared, tip, timed_out()).await,
            }
        });
    }

    pub(super) fn start_keep_in_workspace(&mut self, failure: Failure) {
        self.start_push_with(|context, PushInput { prepared, tip, verified: _ }| async move {
            keep_in_workspace(&context, &prepared, tip, failure).await
        });
    }

    /// Starts a push; when cancelled, the work stays in the workspace.
    fn start_push_with<F>(&mut self, push: impl FnOnce(Arc<Context>, PushInput) -> F + Send + 'static)
    where
        F: Future<Output = PushResult> + Send + 'static,
    {
        let failed =
            |failure| StepOutput::Pushed(PushResult { failure: Some(failure), ..PushResult::default() });
        self.start_with(self.outputs.push_input(), failed, |this, input| {
            let context = Arc::clone(&this.context);
            let (cancel, results_tx) = this.new_cancel();
            tokio::spawn(async move {
                let (prepared, tip) = (input.prepared.clone(), input.tip);
                let result = tokio::select! {
                    result = push(Arc::clone(&context), input) => result,
                    () = cancel.cancelled() => keep_in_workspace(&context, &prepared, tip, cancelled()).await,
                };
                drop(results_tx.send(StepOutput::Pushed(result)).await);
            });
        });
    }

    pub(super) fn start_pull_request(&mut self, mode: PullRequestMode) {
        let context = Arc::clone(&self.context);
        let RunEnd::Outcome(end) = self.run.end() else { return };
        if self.report.work.branch.is_none() {
            // Without a push in this run, a pull request of an earlier one has the same branch.
            self.report.work.branch = self.outputs.prepared.as_ref().map(|prepared| prepared.branch.clone());
        }
        let outcome = self.outcome(Step::PullRequest, &end);
        if self.report.work.location == WorkLocation::None {
            self.report.work.branch = None;
        }
        let documents = self.outputs.documents.clone();
        let limit = seconds(self.context.settings.publish_timeout_seconds).min(PULL_REQUEST_TIMEOUT);
        let (cancel, results_tx) = self.new_cancel();
        tokio::spawn(async move {
            let publish = pull_request::publish(&context, &outcome, documents.as_ref(), mode);
            let timed_out = || Failure::new(Reason::PullRequestFailed, "the pull request timed out");
            let result = tokio::select! {
                result = tokio::time::timeout(limit, publish) => result.unwrap_or_else(|_| Err(timed_out())),
                () = cancel.cancelled() => Err(cancelled()),
            };
            drop(results_tx.send(StepOutput::PullRequest(result)).await);
        });
    }
}

/// Returns an error if a commit other than the verified one would be pushed.
fn check_verified(tip: Oid, verified: Option<Oid>) -> Result<(), Failure> {
    match verified.filter(|verified| *verified != tip) {
        Some(verified) => {
            let message = format!("the commit to push is {tip}, but {verified} was verified");
            Err(Failure::new(Reason::InternalError, message))
        }
        None => Ok(()),
    }
}

/// Commits the work; returns it with the number of commits that are not in the base.
fn commit(context: &Context, input: &CommitInput) -> Result<(SavedWork, u32), Failure> {
    let CommitInput { prepared, title, docs_tip } = input;
    let task = &context.task;
    let base = WorktreeBase {
        start: prepared.start,
        branch: prepared.branch.clone(),
        run: task.run.clone(),
        setup: recorded_setup(&context.tree_state()),
    };
    let saved = match docs_tip {
        Some(tip) => collect::save(context, &base, *tip)?,
        None => {
            let title = context.redactor.redact(title);
            let message = render_commit_message(&task.service, task.task_id, &title, &task.run);
            save_tree(context, &base, &message)?
        }
    };
    let control = open(context, RepositoryRole::Target)?;
    let commits = control
        .ahead(prepared.base, saved.tip)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    write_patch(context, prepared.base, saved.tip);
    let state = TreeState {
        run: task.run.clone(),
        status: if saved.unsaved.has_content() { WorktreeStatus::PartlySaved } else { WorktreeStatus::Clean },
        branch: prepared.branch.clone(),
        start: saved.tip.to_string(),
        base: prepared.base.to_string(),
        // A second commit has to leave it out as well.
        setup: base.setup.map(|setup| setup.to_string()),
    };
    write_tree_state(&context.tree_state(), &state)
        .map_err(|error| Failure::io(&context.tree_state(), &error))?;
    Ok((saved, commits))
}

/// Logs a verify command; of a failed one, also the end of its output.
fn log_command_result(journal: &crate::record::EventLog, result: &CommandResult) {
    let CommandResult { command, exit_code, seconds, output } = result;
    if *exit_code == Some(0) {
        journal.log(Level::Info, "verify", format!("`{command}` passed in {seconds:.1} s"));
        return;
    }
    journal.log(Level::Warn, "verify", format!("`{command}` failed in {seconds:.1} s"));
    let lines = output.lines().rev().filter(|line| !line.trim().is_empty());
    let tail: Vec<&str> = lines.take(COMMAND_LOG_LINES).collect();
    for line in tail.into_iter().rev() {
        journal.log(Level::Info, "verify", format!("| {}", truncate(line, 200)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verified_commit_may_be_pushed() {
        let oid = |digit: &str| Oid::from_str(&digit.repeat(40)).unwrap();
        assert!(check_verified(oid("1"), None).is_ok());
        assert!(check_verified(oid("1"), Some(oid("1"))).is_ok());
        assert_eq!(check_verified(oid("1"), Some(oid("2"))).unwrap_err().reason, Reason::InternalError);
    }
}
