//! Facts that the outcome reports: usage, results of steps, notes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use orchestrator_contract::outcome::{
    DocsResult, McpServer, Outcome, PullRequest, Sandbox, SandboxKind, StepTiming, Usage, Verdict,
    Verification, VerificationStatus, Work,
};
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, Step, figures};

use super::outputs::{DocsRun, StepOutputs};
use crate::agent::exit::parse_verdict;
use crate::agent::gateway::budget::Spending;
use crate::agent::stream::{AgentResult, CliMessage, truncate};
use crate::context::Context;
use crate::docs::usage::DocsUsage;
use crate::failure::Failure;
use crate::publish::save::SavedWork;
use crate::publish::unsaved::UnsavedPaths;
use crate::record::file::write_atomically;
use crate::record::termination;
use crate::run::DocsSessionStatus;
use crate::sandbox;
use crate::site::Site;
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
/// Most turns that one result of the CLI may report.
const MAX_CLI_TURNS: u32 = 100_000;

/// Most models that the results of the CLI may report.
const MAX_CLI_MODELS: usize = 32;

/// Longest name of a model that the CLI may report, in characters.
const MAX_MODEL_CHARS: usize = 100;

/// Facts that the outcome reports, collected during the run.
#[derive(Debug)]
pub(super) struct RunReport {
    pub(super) started_at: Timestamp,
    /// What the gateways of the run counted.
    spending: Spending,
    /// What the CLI reported.
    cli_usage: Usage,
    /// Turns counted from messages; `cli_usage` counts them when a session ends.
    live_turns: u32,
    pub(super) activity: String,
    pub(super) activity_since: Timestamp,
    pub(super) sessions: Vec<String>,
    /// Whether the model API refuses to continue the last session.
    pub(super) refused_conversation: bool,
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
        let mut notes = match (&context.agent_site, context.sandbox.kind) {
            (Site::Machine { .. }, sandbox::Kind::Off) => context.sandbox.remarks.clone(),
            (Site::Machine { .. } | Site::Container(_), _) => Vec::new(),
        };
        for name in context.inherited.proxies_with_credentials() {
            notes.push(format!("{name} is passed to the agent without its user name and password"));
        }
        Self {
            started_at: now,
            spending: context.spending.clone(),
            cli_usage: Usage::default(),
            live_turns: 0,
            activity: String::new(),
            activity_since: now,
            sessions: Vec::new(),
            refused_conversation: false,
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
        for (model, used) in result.model_usage_since_last_result.iter().take(MAX_CLI_MODELS) {
            let name = truncate(model, MAX_MODEL_CHARS);
            if self.cli_usage.models.len() < MAX_CLI_MODELS || self.cli_usage.models.contains_key(&name) {
                used.add_to(self.cli_usage.models.entry(name).or_default());
            }
        }
        let cost: f64 = self.cli_usage.models.values().map(|model| model.cost_usd).sum();
        self.cli_usage.cost_usd = figures::round_usd(cost);
        self.cli_usage.turns = self.cli_usage.turns.saturating_add(result.num_turns.min(MAX_CLI_TURNS));
        self.denied_tools.extend(result.permission_denials.iter().map(|denial| denial.tool_name.clone()));
        if let Some(verdict) = parse_verdict(result) {
            self.verdict = Some(verdict);
        }
    }

    /// Returns the turns that count toward the limit: those of the gateway, if it is used.
    pub(super) fn turns_used(&self) -> u32 {
        if self.spending.is_used() { self.spending.usage().turns } else { self.cli_usage.turns }
    }

    /// Returns the turns so far, also of sessions that have not ended.
    pub(super) fn live_turns(&self) -> u32 {
        if self.spending.is_used() { self.spending.usage().turns } else { self.live_turns }
    }

    /// Returns the cost so far in US dollars.
    pub(super) fn cost_used(&self) -> f64 {
        if self.spending.is_used() { self.spending.usage().cost_usd } else { self.cli_usage.cost_usd }
    }

    /// Returns the usage of the run, with what the CLI reported beside it.
    fn usage(&self) -> Usage {
        if !self.spending.is_used() {
            // The CLI reports its turns at the end of a session only.
            let turns = self.cli_usage.turns.max(self.live_turns);
            return Usage { turns, ..self.cli_usage.clone() };
        }
        let has_reported = self.cli_usage.turns > 0 || !self.cli_usage.models.is_empty();
        Usage {
            cli_turns: has_reported.then_some(self.cli_usage.turns),
            cli_cost_usd: has_reported.then_some(self.cli_usage.cost_usd),
            ..self.spending.usage()
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
        let mut docs_results = docs.map(|docs| self.docs_results(docs, items)).unwrap_or_default();
        let mut notes = self.notes.clone();
        notes.extend(self.spending.remarks());
        if let Some(prepared) = &outputs.prepared {
            notes.extend(prepared.notes.iter().cloned());
        }
        let saved = outputs.saved.as_ref();
        notes.extend(saved.iter().flat_map(|saved| saved.notes.iter().cloned()));
        let (verification, not_published) = published_verification(&self.verification, &self.work);
        notes.extend(not_published);
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
        // Last: what a stranger wrote must not displace what is known about the work.
        notes.extend(documents.iter().flat_map(|documents| documents.notes.iter().cloned()));
        notes.extend(docs.iter().flat_map(|docs| docs.plan.notes.iter().cloned()));
        let message = redact(&self.message(task.kind, end, saved));
        let mut outcome = Outcome {
            task_title: title,
            work: self.work.clone(),
            base: outputs.target.as_ref().map(|target| target.base.clone()),
            platform: outputs.platform.clone(),
            working_directory: outputs
                .prepared
                .as_ref()
                .filter(|_| task.kind == Kind::Implementation)
                .map(|prepared| prepared.working_directory.shown().to_owned()),
            commits: self.commits,
            pull_request: self.pull_request.clone(),
            // In a docs run, each session has its own verdict.
            verdict: self.verdict.clone().filter(|_| task.kind == Kind::Implementation),
            verification: if task.verify.is_empty() { not_configured() } else { verification },
            usage: self.usage(),
            sessions: self.sessions.clone(),
            mcp_servers,
            sandbox: Some(describe_sandbox(context)),
            denied_tools: self.denied_tools.iter().cloned().collect(),
            document_sources: documents
                .map(TaskDocuments::report)
                .or_else(|| docs.map(|docs| docs.plan.report())),
            docs_results,
            other_authors: saved.map(|saved| saved.other_authors.clone()).unwrap_or_default(),
            notes: notes.iter().map(|note| redact(note)).collect(),
            steps: self.steps.clone(),
            ..Outcome::new(task, reason, step, message, self.started_at, Timestamp::now())
        };
        outcome.bound();
        outcome
    }

    /// Returns the result of each task of a docs run.
    fn docs_results(&self, docs: &DocsRun, items: &[DocsSessionStatus]) -> Vec<DocsResult> {
        let spent = |session: &str| {
            let spent = self.spending.conversation(session);
            self.spending.is_used().then_some((spent.turns, spent.cost_usd))
        };
        self.docs_usage.results(&docs.plan, items, &docs.previous, &spent)
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
        let location = if end.reason == Reason::Completed { String::new() } else { self.work.describe() };
        format!("{cause}{location}{unsaved}. {}", end.reason.hint())
    }

    /// Saves the attempt, so that a retry finds its session even after a crash.
    pub(super) fn save_attempt(&self, context: &Context, outputs: &StepOutputs, end: &str, summary: &str) {
        let Some(prepared) = &outputs.prepared else { return };
        let own = LastAttempt {
            run: context.task.run.to_string(),
            branch: prepared.branch.clone(),
            session: self.sessions.last().filter(|_| !self.refused_conversation).cloned(),
            refused: self.refused_conversation,
            end: end.to_owned(),
            summary: summary.to_owned(),
        };
        // A retry that ends before its agent leaves the conversation of the attempt before it.
        let attempt = match &prepared.last {
            Some(earlier) if self.sessions.is_empty() && context.task.mode == Mode::Retry => {
                own.continuing(earlier)
            }
            Some(_) | None => own,
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
        let text = context.redactor.redact_document(text);
        if context.record.folder().is_dir()
            && let Err(error) = write_atomically(&context.record.outcome(), &text)
        {
            context.journal.warn(format!("cannot write the outcome to the workspace: {error}"));
        }
        context.journal.outcome(outcome);
        termination::write(&context.settings.termination_log, outcome, &context.redactor);
    }
}

fn describe_sandbox(context: &Context) -> Sandbox {
    let selected = &context.sandbox;
    if let Site::Container(_) = &context.agent_site {
        let remarks = match context.task.kind {
            Kind::Docs => vec!["the conversations of a docs run share one container".to_owned()],
            Kind::Implementation => Vec::new(),
        };
        return Sandbox { kind: SandboxKind::Container, remarks };
    }
    let kind = match selected.kind {
        sandbox::Kind::Namespaces => SandboxKind::Namespaces,
        sandbox::Kind::Landlock => SandboxKind::Landlock,
        sandbox::Kind::Off => SandboxKind::Off,
    };
    Sandbox { kind, remarks: selected.remarks.clone() }
}

fn not_configured() -> Verification {
    Verification { status: VerificationStatus::NotConfigured, ..Verification::default() }
}

/// Returns the verification of the published commit, and a note if another commit passed.
///
/// A push without paths that the server rejects publishes a commit that was never verified.
fn published_verification(verification: &Verification, work: &Work) -> (Verification, Option<String>) {
    let is_other = work.oid.is_some() && work.oid != verification.commit;
    if verification.status != VerificationStatus::Passed || !is_other {
        return (verification.clone(), None);
    }
    let (verified, published) =
        (verification.commit.as_deref().unwrap_or_default(), work.oid.as_deref().unwrap_or_default());
    let note = format!("the verify commands succeeded on {verified}, but the work is {published}");
    (Verification { status: VerificationStatus::NotRun, ..verification.clone() }, Some(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_verification_is_for_published_commit() {
        let verification = Verification {
            status: VerificationStatus::Passed,
            commit: Some("1".repeat(40)),
            ..Verification::default()
        };
        let work = |oid: Option<&str>| Work { oid: oid.map(|digit| digit.repeat(40)), ..Work::default() };
        for (oid, status, noted) in [
            (Some("1"), VerificationStatus::Passed, false),
            (None, VerificationStatus::Passed, false),
            (Some("2"), VerificationStatus::NotRun, true),
        ] {
            let (published, note) = published_verification(&verification, &work(oid));
            assert_eq!((published.status, note.is_some()), (status, noted), "{oid:?}");
        }
    }
}
