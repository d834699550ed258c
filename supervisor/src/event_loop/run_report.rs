//! What the run has used and found out, as the outcome will tell it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use orchestrator_contract::outcome::{
    McpServer, Outcome, PullRequest, StepTiming, Usage, Verdict, Verification, VerificationStatus, Work,
    WorkLocation,
};
use orchestrator_contract::{Kind, Reason, Step};

use crate::agent::exit::parse_verdict;
use crate::agent::stream::{AgentResult, CliMessage};
use crate::context::{Context, StepOutputs};
use crate::docs::usage::DocsUsage;
use crate::process::landlock_available;
use crate::run::{DocsSessionStatus, Failure};

/// What the run has used and found out.
#[derive(Debug)]
pub(super) struct RunReport {
    pub(super) started_at: Timestamp,
    pub(super) usage: Usage,
    /// The turn that the agent is in.
    pub(super) turn: u32,
    pub(super) doing: String,
    pub(super) since: Timestamp,
    pub(super) sessions: Vec<String>,
    pub(super) denied_tools: BTreeSet<String>,
    pub(super) verdict: Option<Verdict>,
    pub(super) verification: Verification,
    pub(super) mcp_servers: Vec<McpServer>,
    pub(super) steps: Vec<StepTiming>,
    pub(super) commits: u32,
    pub(super) saved: Option<crate::publish::save::SavedWork>,
    pub(super) work: Work,
    pub(super) pull_request: Option<PullRequest>,
    pub(super) notes: Vec<String>,
    /// What the conversations of a docs run used.
    pub(super) account: DocsUsage,
    /// The last message of each conversation.
    last_message: BTreeMap<usize, String>,
}

impl RunReport {
    pub(super) fn new(context: &Context) -> Self {
        let now = Timestamp::now();
        let mut notes = Vec::new();
        if context.settings.sandbox == crate::config::Sandbox::Off {
            notes.push("the sandbox was switched off".to_owned());
        } else if !landlock_available() {
            notes.push("the kernel has no Landlock: the agent was not confined".to_owned());
        }
        Self {
            started_at: now,
            usage: Usage::default(),
            turn: 0,
            doing: String::new(),
            since: now,
            sessions: Vec::new(),
            denied_tools: BTreeSet::new(),
            verdict: None,
            verification: Verification::default(),
            mcp_servers: Vec::new(),
            steps: Vec::new(),
            commits: 0,
            saved: None,
            work: Work::default(),
            pull_request: None,
            notes,
            account: DocsUsage::default(),
            last_message: BTreeMap::new(),
        }
    }

    pub(super) fn set_activity(&mut self, what: &str) {
        what.clone_into(&mut self.doing);
        self.since = Timestamp::now();
    }

    pub(super) fn step(&mut self, step: Step, seconds: f64, ok: bool) {
        self.steps.push(StepTiming { step, seconds, ok });
    }

    pub(super) fn record_message(&mut self, index: usize, said: &CliMessage) {
        match said {
            CliMessage::Init(init) => {
                if !self.sessions.contains(&init.session_id) {
                    self.sessions.push(init.session_id.clone());
                }
            }
            CliMessage::Answer(answer) if !answer.is_subagent => {
                // Parts of one message come as lines of their own.
                let last = self.last_message.entry(index).or_default();
                if answer.message_id != *last {
                    last.clone_from(&answer.message_id);
                    self.turn += 1;
                }
            }
            CliMessage::Denied(tool) => {
                self.denied_tools.insert(tool.clone());
            }
            CliMessage::Result(result) => {
                self.account.record(index, result);
                self.record_result(result);
            }
            CliMessage::Retry(_)
            | CliMessage::Answer(_)
            | CliMessage::ToolResult { .. }
            | CliMessage::Other
            | CliMessage::Unparseable => {}
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

    /// The outcome as it would be if the run ended now, for this reason.
    pub(super) fn outcome(
        &self,
        context: &Context,
        facts: &StepOutputs,
        items: &[DocsSessionStatus],
        step: Step,
        end: &Failure,
    ) -> Outcome {
        let task = &context.task;
        let reason = end.reason;
        let documents = facts.documents.as_ref();
        let writing = facts.writing.as_ref();
        let mut documented = writing
            .map(|writing| self.account.documented(&writing.plan, items, &writing.earlier))
            .unwrap_or_default();
        let mut notes = self.notes.clone();
        notes.extend(writing.iter().flat_map(|writing| writing.plan.notes.iter().cloned()));
        if let Some(prepared) = &facts.prepared {
            notes.extend(prepared.notes.iter().cloned());
        }
        let saved = self.saved.as_ref();
        notes.extend(saved.iter().flat_map(|saved| saved.notes.iter().cloned()));
        let mut verification = self.verification.clone();
        if task.verify.is_empty() && verification.status == VerificationStatus::NotRun {
            verification.status = VerificationStatus::NotConfigured;
        }
        let redact = |text: &str| context.redactor.redact(text).into_owned();
        for finding in documented.iter_mut().flat_map(|task| &mut task.findings) {
            *finding = redact(finding);
        }
        let title = match (task.task_id, documented.as_slice()) {
            (Some(_), [only]) => Some(only.title.clone()),
            _ => documents.map(|documents| documents.entry.title.clone()),
        };
        let mcp_servers =
            facts.tools.as_ref().map_or_else(|| self.mcp_servers.clone(), |tools| tools.servers.clone());
        let step = self.steps.iter().rev().find(|step| !step.ok).map_or(step, |failed| failed.step);
        let message = redact(&self.message(task.kind, end));
        Outcome {
            task_title: title,
            work: self.work.clone(),
            base: facts.target.as_ref().map(|target| target.base.clone()),
            platform: facts.platform.clone(),
            commits: self.commits,
            pull_request: self.pull_request.clone(),
            // Each conversation of a docs run has one of its own.
            verdict: self.verdict.clone().filter(|_| task.kind == Kind::Implementation),
            verification,
            usage: self.usage.clone(),
            sessions: self.sessions.clone(),
            mcp_servers,
            denied_tools: self.denied_tools.iter().cloned().collect(),
            document_sources: documents
                .map(crate::workspace::documents::TaskDocuments::report)
                .or_else(|| writing.map(|writing| writing.plan.report())),
            docs_results: documented,
            other_authors: saved.map(|saved| saved.other_authors.clone()).unwrap_or_default(),
            notes: notes.iter().map(|note| redact(note)).collect(),
            steps: self.steps.clone(),
            ..Outcome::new(task, reason, step, message, self.started_at, Timestamp::now())
        }
    }

    /// One line: cause and next step.
    fn message(&self, kind: Kind, end: &Failure) -> String {
        let cause = match (end.reason, &self.pull_request) {
            (Reason::Completed, Some(pull)) if pull.created => format!("pull request {} is open", pull.url),
            (Reason::Completed, Some(pull)) => format!("pull request {} is updated", pull.url),
            (Reason::Completed, None) => {
                let branch = self.work.branch.as_deref().unwrap_or_default();
                return format!(
                    "the work is on `{branch}`; no pull request was opened, open one where it is hosted."
                );
            }
            (Reason::AlreadyDone, _) if kind == Kind::Docs => {
                return "every task has its documents; give force to write them again.".to_owned();
            }
            (Reason::AlreadyDone, _) => "the agent found nothing to do".to_owned(),
            (_, _) => end.message.trim_end_matches('.').replace('\n', " "),
        };
        let place = match (self.work.location, &self.work.branch) {
            _ if end.reason == Reason::Completed => String::new(),
            (WorkLocation::Remote, Some(branch)) => format!("; the work is on `{branch}`"),
            (WorkLocation::Workspace, _) => {
                let path = self.work.path.as_deref().unwrap_or_default();
                format!("; the work is kept in the workspace ({path})")
            }
            (WorkLocation::Remote | WorkLocation::None, _) => String::new(),
        };
        format!("{cause}{place}. {}", end.reason.hint())
    }
}
