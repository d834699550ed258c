//! Facts that the outcome reports: usage, results of steps, notes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use orchestrator_contract::outcome::{
    McpServer, Outcome, PullRequest, Sandbox, SandboxKind, StepTiming, Usage, Verdict, Verification, VerificationStatus, Work,
    WorkLocation,
};
use orchestrator_contract::{Kind, Reason, Step};

use super::outputs::StepOutputs;
use crate::agent::exit::parse_verdict;
use crate::agent::stream::{AgentResult, CliMessage};
use crate::context::Context;
use crate::docs::usage::DocsUsage;
use crate::failure::Failure;
use crate::publish::save::SavedWork;
use crate::publish::unsaved::UnsavedPaths;
use crate::record::file::write_atomically;
use crate::record::termination;
use crate::run::DocsSessionStatus;
use crate::sandbox::{self, SelectedSandbox};
use crate::workspace::documents::TaskDocuments;
use crate::workspace::reserve;
use crate::workspace::state::{LastAttempt, write_last_attempt};

/// Maximum unsaved paths to list in a note.
const MAX_UNSAVED_IN_NOTE: usize = 20;

/// Maximum unsaved paths to list in the message.
const MAX_UNSAVED_IN_MESSAGE: usize = 3;

/// Lists the paths that could not be saved, and says where they are.
fn unsaved_note(context: &Context, unsaved: &UnsavedPaths) -> Option<String> {
    let summary = unsaved.summary(MAX_UNSAVED_IN_NOTE)?;
    if !unsaved.has_content() {
        return Some(summary);
    }
    let (tree, aside) = (context.worktree(), context.layout.aside());
    let (tree, aside) = (tree.display(), aside.display());
    Some(format!("{summary}; they stay in `{tree}` until the next run of the service moves it to `{aside}`"))
}

/// Facts that the outcome reports, collected during the run.
#[derive(Debug)]
pub(super) struct RunReport {
    pub(super) started_at: Timestamp,
    pub(super) usage: Usage,
    /// Turns counted from messages; `usage` counts them when a session ends.
    pub(super) live_turns: u32,
    pub(super) activity: String,
    pub(super) activity_since: Timestamp,
    pub(super) sessions: Vec<String>,
    pub(super) denied_tools: BTreeSet<String>,
    pub(super) verdict: Option<Verdict>,
    pub(super) verification: Verification,
    pub(super) mcp_servers: Vec<McpServer>,
    pub(super) steps: Vec<StepTiming>,
    pub(super) commits: u32,
    pub(super) work: Work,
    pub(super) pull_request: Option<PullRequest>,
    pub(super) notes: Vec<String>,
    /// Usage by session of a docs run.
    pub(super) docs_usage: DocsUsage,
    /// Id of the last message by session.
    last_message: BTreeMap<usize, String>,
}

impl RunReport {
    pub(super) fn new(context: &Context) -> Self {
        let now = Timestamp::now();
        // A run without a sandbox must not look like one with it.
        let mut notes = match context.sandbox.kind {
            sandbox::Kind::Off => context.sandbox.remarks.clone(),
            sandbox::Kind::Namespaces | sandbox::Kind::Landlock => Vec::new(),
        };
        for name in context.inherited.proxies_with_credentials() {
            notes.push(format!("{name} is passed to the agent without its user name and password"));
        }
        Self {
            started_at: now,
            usage: Usage::default(),
            live_turns: 0,
            activity: String::new(),
            activity_since: now,
            sessions: Vec::new(),
            denied_tools: BTreeSet::new(),
            verdict: None,
            verification: Verification::default(),
            mcp_servers: Vec::new(),
            steps: Vec::new(),
            commits: 0,
            work: Work::default(),
            pull_request: None,
            notes,
            docs_usage: DocsUsage::default(),
            last_message: BTreeMap::new(),
        }
    }

    pub(super) fn set_activity(&mut self, activity: &str) {
        activity.clone_into(&mut self.activity);
        self.activity_since = Timestamp::now();
    }

    pub(super) fn record_step(&mut self, step: Step, seconds: f64, ok: bool) {
        self.steps.push(StepTiming { step, seconds, ok });
    }

    pub(super) fn record_message(&mut self, index: usize, message: &CliMessage) {
        match message {
            CliMessage::Init(init) => self.add_session(&init.session_id),
            CliMessage::Answer(answer) if !answer.is_subagent => {
                // Each content block of a message is a line of its own.
                let last = self.last_message.entry(index).or_default();
                if answer.message_id != *last {
                    last.clone_from(&answer.message_id);
                    self.live_turns += 1;
                }
            }
            CliMessage::Denied(tool) => {
                self.denied_tools.insert(tool.clone());
            }
            CliMessage::Result(result) => {
                self.docs_usage.record(index, result);
                self.record_result(result);
            }
            CliMessage::Retry(_)
            | CliMessage::Answer(_)
            | CliMessage::ToolResult { .. }
            | CliMessage::Other
            | CliMessage::Unparsable => {}
        }
    }

    pub(super) fn add_session(&mut self, session: &str) {
        if !self.sessions.iter().any(|known| known == session) {
            self.sessions.push(session.to_owned());
        }
    }

    fn record_result(&mut self, result: &AgentResult) {
        for (model, used) in &result.model_usage_since_last_result {
            used.add_to(self.usage.models.entry(model.clone()).or_default());
        }
        self.usage.cost_usd = self.usage.models.values().map(|model| model.cost_usd).sum();
        self.usage.turns += result.num_turns;
        self.denied_tools.extend(result.permission_denials.iter().map(|denial| denial.tool_name.clone()));
        if let Some(verdict) = parse_verdict(result) {
            self.verdict = Some(verdict);
        }
    }

    /// Returns the outcome as if the run ended now with this failure or success.
    pub(super) fn outcome(
        &self,
        context: &Context,
        outputs: &StepOutputs,
        items: &[DocsSessionStatus],
        step: Step,
        end: &Failure,
    ) -> Outcome {
        let task = &context.task;
        let reason = end.reason;
        let documents = outputs.documents.as_ref();
        let docs = outputs.docs.as_ref();
        let mut docs_results =
            docs.map(|docs| self.docs_usage.results(&docs.plan, items, &docs.previous)).unwrap_or_default();
        let mut notes = self.notes.clone();
        notes.extend(docs.iter().flat_map(|docs| docs.plan.notes.iter().cloned()));
        if let Some(prepared) = &outputs.prepared {
            notes.extend(prepared.notes.iter().cloned());
        }
        let saved = outputs.saved.as_ref();
        notes.extend(saved.iter().flat_map(|saved| saved.notes.iter().cloned()));
        let mut verification = self.verification.clone();
        if task.verify.is_empty() && verification.status == VerificationStatus::NotRun {
            verification.status = VerificationStatus::NotConfigured;
        }
        let redact = |text: &str| context.redactor.redact(text).into_owned();
        for finding in docs_results.iter_mut().flat_map(|task| &mut task.findings) {
            *finding = redact(finding);
        }
        let title = match (task.task_id, docs_results.as_slice()) {
            (Some(_), [only]) => Some(only.title.clone()),
            _ => documents.map(|documents| documents.entry.title.clone()),
        };
        let mcp_servers =
            outputs.tools.as_ref().map_or_else(|| self.mcp_servers.clone(), |tools| tools.servers.clone());
        let step = self.steps.iter().rev().find(|step| !step.ok).map_or(step, |failed| failed.step);
        notes.extend(saved.and_then(|saved| unsaved_note(context, &saved.unsaved)));
        let message = redact(&self.message(task.kind, end, saved));
        Outcome {
            task_title: title,
            work: self.work.clone(),
            base: outputs.target.as_ref().map(|target| target.base.clone()),
            platform: outputs.platform.clone(),
            commits: self.commits,
            pull_request: self.pull_request.clone(),
            // In a docs run, each session has its own verdict.
            verdict: self.verdict.clone().filter(|_| task.kind == Kind::Implementation),
            verification,
            usage: self.usage.clone(),
            sessions: self.sessions.clone(),
            mcp_servers,
            sandbox: Some(describe_sandbox(&context.sandbox)),
            denied_tools: self.denied_tools.iter().cloned().collect(),
            document_sources: documents
                .map(TaskDocuments::report)
                .or_else(|| docs.map(|docs| docs.plan.report())),
            docs_results,
            other_authors: saved.map(|saved| saved.other_authors.clone()).unwrap_or_default(),
            notes: notes.iter().map(|note| redact(note)).collect(),
            steps: self.steps.clone(),
            ..Outcome::new(task, reason, step, message, self.started_at, Timestamp::now())
        }
    }

    /// Returns the outcome's message: the cause, the location of the work, and the hint.
    fn message(&self, kind: Kind, end: &Failure, saved: Option<&SavedWork>) -> String {
        let unsaved = saved.and_then(|saved| saved.unsaved.summary(MAX_UNSAVED_IN_MESSAGE));
        let unsaved = unsaved.map(|unsaved| format!("; {unsaved}")).unwrap_or_default();
        let cause = match (end.reason, &self.pull_request) {
            (Reason::Completed, Some(pull)) if pull.created => format!("pull request {} is open", pull.url),
            (Reason::Completed, Some(pull)) => format!("pull request {} is updated", pull.url),
            (Reason::Completed, None) => {
                let branch = self.work.branch.as_deref().unwrap_or_default();
                return format!(
                    "the work is on `{branch}`{unsaved}; no pull request was opened, open one where it is hosted."
                );
            }
            (Reason::AlreadyDone, _) if kind == Kind::Docs => {
                return "every task has its documents; use force to write them again.".to_owned();
            }
            (Reason::AlreadyDone, _) => "the agent found nothing to do".to_owned(),
            (_, _) => end.message.trim_end_matches('.').replace('\n', " "),
        };
        let location = match (self.work.location, &self.work.branch) {
            _ if end.reason == Reason::Completed => String::new(),
            (WorkLocation::Remote, Some(branch)) => format!("; the work is on `{branch}`"),
            (WorkLocation::Workspace, _) => {
                let path = self.work.path.as_deref().unwrap_or_default();
                format!("; the work is kept in the workspace ({path})")
            }
            (WorkLocation::Remote | WorkLocation::None, _) => String::new(),
        };
        format!("{cause}{location}{unsaved}. {}", end.reason.hint())
    }

    /// Saves the attempt, so that a retry finds its session even after a crash.
    pub(super) fn save_attempt(&self, context: &Context, outputs: &StepOutputs, end: &str, summary: &str) {
        let Some(prepared) = &outputs.prepared else { return };
        let attempt = LastAttempt {
            run: context.task.run.to_string(),
            branch: prepared.branch.clone(),
            session: self.sessions.last().cloned(),
            end: end.to_owned(),
            summary: summary.to_owned(),
        };
        if let Err(error) = write_last_attempt(&context.layout, &context.task.identity(), &attempt) {
            context.journal.warn(format!("cannot save the attempt: {error}"));
        }
    }

    /// Writes the attempt, the outcome file, the outcome event and the termination message.
    pub(super) fn write(&self, context: &Context, outputs: &StepOutputs, outcome: &Outcome) {
        if outputs.preflight.is_some() {
            // The workspace is ours, and nothing after this needs the space.
            let _ = reserve::release(&context.layout);
        }
        let summary = outcome.verdict.as_ref().map(|verdict| verdict.summary.as_str()).unwrap_or_default();
        let end = format!("{}: {}", outcome.reason, outcome.message);
        self.save_attempt(context, outputs, &end, summary);
        let text = serde_json::to_vec_pretty(outcome).unwrap_or_default();
        let text = context.redactor.redact_bytes(&text).into_owned();
        if context.record.folder().is_dir()
            && let Err(error) = write_atomically(&context.record.outcome(), &text)
        {
            context.journal.warn(format!("cannot write the outcome to the workspace: {error}"));
        }
        context.journal.outcome(outcome);
        termination::write(&context.settings.termination_log, outcome, &context.redactor);
    }
}

fn describe_sandbox(selected: &SelectedSandbox) -> Sandbox {
    let kind = match selected.kind {
        sandbox::Kind::Namespaces => SandboxKind::Namespaces,
        sandbox::Kind::Landlock => SandboxKind::Landlock,
        sandbox::Kind::Off => SandboxKind::Off,
    };
    Sandbox { kind, remarks: selected.remarks.clone() }
}
