//! Applies the output of each step and returns the event for the run machine.

use orchestrator_contract::outcome::{Verification, VerificationStatus, Work, WorkLocation};
use orchestrator_contract::{Kind, Step};

use super::EventLoop;
use super::outputs::StepOutput;
use crate::failure::Failure;
use crate::publish::push::PushResult;
use crate::publish::save::SavedWork;
use crate::run::{RunEvent, VerifyResult};
use crate::workspace::preflight::Preflight;
use crate::workspace::verify::VerifiedCommit;

impl EventLoop {
    /// Records the output of a step and returns what it means for the run.
    pub(super) fn apply_output(&mut self, output: StepOutput) -> Option<RunEvent> {
        Some(match output {
            StepOutput::Preflight(result) => self.complete(Step::Preflight, result, |this, preflight| {
                this.log_run(&preflight);
                this.outputs.preflight = Some(*preflight);
            }),
            StepOutput::Platform(result) => self.complete(Step::FetchPlatform, result, |this, platform| {
                this.outputs.platform = Some(platform);
            }),
            StepOutput::Target(result) => self.complete(Step::FetchTarget, result, |this, target| {
                if this.context.task.kind == Kind::Docs {
                    this.outputs.platform = Some(target.base.clone());
                }
                this.outputs.target = Some(target);
            }),
            StepOutput::Branch(result) => self.complete(Step::Branch, result, |this, prepared| {
                for note in &prepared.notes {
                    this.context.journal.info(note.clone());
                }
                let directory = this.context.working_directory(&prepared.working_directory.path);
                let place = match this.context.task.kind {
                    Kind::Implementation => {
                        prepared.working_directory.describe(&this.context.task.target.url)
                    }
                    Kind::Docs => "with the documents".to_owned(),
                };
                let text = format!("`{}`, to work {place} ({})", prepared.branch, directory.display());
                this.context.journal.info(text);
                this.outputs.prepared = Some(*prepared);
            }),
            StepOutput::Documents(result) => self.complete(Step::Documents, result, |this, documents| {
                for note in &documents.notes {
                    this.context.journal.warn(note.clone());
                }
                this.outputs.documents = Some(*documents);
            }),
            StepOutput::DocsPlanned(Ok(docs)) => {
                let batch = self.set_docs(*docs);
                self.step_ended(Step::Documents, None);
                RunEvent::DocsPlanned(batch)
            }
            StepOutput::DocsPlanned(Err(failure)) => self.fail_step(Step::Documents, failure),
            StepOutput::Tools(result) => self.complete(Step::Mcp, result, |this, tools| {
                this.outputs.tools = Some(*tools);
            }),
            StepOutput::AgentEnded(result) => self.agent_ended(result),
            StepOutput::DocsSessionEnded(index, exit, result) => self.docs_session_ended(index, exit, result),
            StepOutput::Verified(result) => self.verified(result),
            StepOutput::Saved(result) => self.saved(result),
            StepOutput::Policy(result) => self.complete(Step::Policy, result, |this, notes| {
                this.report.notes.extend(notes);
            }),
            StepOutput::Pushed(result) => self.pushed(result),
            StepOutput::PullRequest(result) => self.complete(Step::PullRequest, result, |this, pull| {
                if let Some(pull) = &pull {
                    this.context.journal.info(format!("pull request {}", pull.url));
                }
                this.report.pull_request = pull;
            }),
        })
    }

    /// Ends a step: records its output, or fails it.
    fn complete<T>(
        &mut self,
        step: Step,
        result: Result<T, Failure>,
        record: impl FnOnce(&mut Self, T),
    ) -> RunEvent {
        match result {
            Ok(output) => {
                record(self, output);
                self.step_ended(step, None);
                RunEvent::StepDone(step)
            }
            Err(failure) => self.fail_step(step, failure),
        }
    }

    fn fail_step(&mut self, step: Step, failure: Failure) -> RunEvent {
        self.step_ended(step, Some(&failure.message));
        RunEvent::StepFailed(step, failure)
    }

    fn log_run(&self, preflight: &Preflight) {
        let task = &self.context.task;
        let subject = match (task.kind, task.task_id) {
            (Kind::Implementation, Some(id)) => format!("task {id}"),
            (Kind::Docs, Some(id)) => format!("documents of task {id}"),
            (Kind::Implementation | Kind::Docs, None) => "documents of all tasks".to_owned(),
        };
        let text = format!("{}: {subject} of {} on `{}`", task.run, task.target.url, preflight.base);
        self.context.journal.info(text);
    }

    fn verified(&mut self, result: Result<VerifiedCommit, Failure>) -> RunEvent {
        let verified = match result {
            Ok(VerifiedCommit { commit, results, kept, notes }) => {
                let failure = results.failure_text();
                let status = match (&failure, results.reports.is_empty()) {
                    (Some(_), _) => VerificationStatus::Failed,
                    (None, true) => VerificationStatus::NotConfigured,
                    (None, false) => VerificationStatus::Passed,
                };
                self.outputs.verified = commit;
                let commit = commit.map(|commit| commit.to_string());
                self.report.verification = Verification { status, commit, commands: results.reports, kept };
                self.report.notes.extend(notes);
                failure.map_or(VerifyResult::Passed, VerifyResult::Failed)
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

    fn saved(&mut self, result: Result<(SavedWork, u32), Failure>) -> RunEvent {
        match result {
            Ok((saved, commits)) => {
                self.report.commits = commits;
                self.outputs.saved = Some(saved);
                // The result of an earlier commit says nothing about this one.
                self.outputs.verified = None;
                self.report.verification = Verification::default();
                self.step_ended(Step::Commit, None);
                RunEvent::Saved(commits)
            }
            Err(failure) => {
                // The uncommitted worktree stays in place; the next run commits it first.
                self.report.work = Work {
                    location: WorkLocation::Workspace,
                    branch: self.outputs.prepared.as_ref().map(|prepared| prepared.branch.clone()),
                    oid: None,
                    path: Some(self.context.worktree().display().to_string()),
                };
                self.fail_step(Step::Commit, failure)
            }
        }
    }

    fn pushed(&mut self, result: PushResult) -> RunEvent {
        let PushResult { work, failure, notes } = result;
        self.report.work = work;
        self.report.notes.extend(notes);
        self.step_ended(Step::Push, failure.as_ref().map(|failure| failure.message.as_str()));
        RunEvent::Pushed(failure)
    }
}
