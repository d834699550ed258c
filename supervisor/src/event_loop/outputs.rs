//! Outputs of completed steps, and the values that later steps receive from them.

use std::sync::Arc;

use orchestrator_contract::TaskId;
use orchestrator_contract::outcome::{PullRequest, Revision};
use tokio::task::JoinHandle;

use crate::agent::prepare_session::{AgentTools, SessionInput};
use crate::agent::session::SessionExit;
use crate::docs::collect::DocsBranch;
use crate::docs::plan::Plan;
use crate::docs::session::DocsSessionInput;
use crate::docs::usage::PreviousDocs;
use crate::failure::Failure;
use crate::git::{Oid, RemoteRefs};
use crate::publish::push::PushResult;
use crate::publish::save::SavedWork;
use crate::run::DocsSessionResult;
use crate::workspace::branch::PreparedBranch;
use crate::workspace::documents::TaskDocuments;
use crate::workspace::export::ExportInput;
use crate::workspace::fetch::Fetched;
use crate::workspace::preflight::Preflight;
use crate::workspace::verify::VerifiedCommit;

/// Output of a spawned step.
#[derive(Debug)]
pub(super) enum StepOutput {
    Preflight(Result<Box<Preflight>, Failure>),
    Platform(Result<Revision, Failure>),
    Target(Result<Fetched, Failure>),
    Branch(Result<Box<PreparedBranch>, Failure>),
    Documents(Result<Box<TaskDocuments>, Failure>),
    DocsPlanned(Result<Box<DocsRun>, Failure>),
    Tools(Result<Box<AgentTools>, Failure>),
    AgentEnded(Result<Box<SessionExit>, Failure>),
    /// A docs session ended, with its exit if it started, and its documents were reviewed.
    DocsSessionEnded(usize, Option<Box<SessionExit>>, DocsSessionResult),
    Verified(Result<VerifiedCommit, Failure>),
    /// The committed work, with the number of commits that are not in the base.
    Saved(Result<(SavedWork, u32), Failure>),
    Policy(Result<Vec<String>, Failure>),
    Pushed(PushResult),
    PullRequest(Result<Option<PullRequest>, Failure>),
}

/// Outputs of the completed steps. Steps never see it: each receives the values that it reads.
#[derive(Debug, Default)]
pub(super) struct StepOutputs {
    /// Holds the workspace lock until the run ends.
    pub(super) preflight: Option<Preflight>,
    /// Fetch of the target, which runs while the platform is fetched.
    pub(super) prefetch: Option<JoinHandle<Result<Fetched, Failure>>>,
    pub(super) platform: Option<Revision>,
    pub(super) target: Option<Fetched>,
    pub(super) prepared: Option<PreparedBranch>,
    /// Documents of the task; none in a docs run.
    pub(super) documents: Option<TaskDocuments>,
    /// Documents to write; only in a docs run.
    pub(super) docs: Option<DocsRun>,
    pub(super) tools: Option<AgentTools>,
    pub(super) saved: Option<SavedWork>,
    /// Commit that was verified since the last save.
    pub(super) verified: Option<Oid>,
}

/// Plan and progress of a docs run.
#[derive(Clone, Debug)]
pub(super) struct DocsRun {
    pub(super) plan: Arc<Plan>,
    /// Results of the earlier attempt.
    pub(super) previous: PreviousDocs,
    pub(super) branch: DocsBranch,
}

/// Values that the fetches receive.
#[derive(Debug)]
pub(super) struct FetchInput {
    pub(super) platform_branch: String,
    pub(super) base: String,
    pub(super) branch: String,
    /// Branches of the target on the remote.
    pub(super) refs: RemoteRefs,
}

/// Values that the commit receives.
#[derive(Debug)]
pub(super) struct CommitInput {
    pub(super) prepared: PreparedBranch,
    /// Title of the task; empty in a docs run.
    pub(super) title: String,
    /// Tip of the branch that a docs run committed to task by task.
    pub(super) docs_tip: Option<Oid>,
}

/// Values that a push receives.
#[derive(Debug)]
pub(super) struct PushInput {
    pub(super) prepared: PreparedBranch,
    pub(super) tip: Oid,
    /// Commit that was verified; only this one may be pushed then.
    pub(super) verified: Option<Oid>,
}

impl StepOutputs {
    pub(super) fn fetch_input(&self) -> Option<FetchInput> {
        let preflight = self.preflight.as_ref()?;
        Some(FetchInput {
            platform_branch: preflight.platform_branch.clone(),
            base: preflight.base.clone(),
            branch: preflight.branch.clone(),
            refs: preflight.target.clone(),
        })
    }

    pub(super) fn session_input(&self, task: Option<TaskId>) -> Option<SessionInput<'_>> {
        Some(SessionInput {
            task: task?,
            preflight: self.preflight.as_ref()?,
            base: &self.target.as_ref()?.base.branch,
            prepared: self.prepared.as_ref()?,
            documents: self.documents.as_ref()?,
            tools: self.tools.as_ref()?,
        })
    }

    pub(super) fn docs_session_input(&self, index: usize) -> Option<DocsSessionInput<'_>> {
        let plan = &self.docs.as_ref()?.plan;
        Some(DocsSessionInput {
            preflight: self.preflight.as_ref()?,
            tools: self.tools.as_ref()?,
            task: plan.pending().nth(index)?,
            plan,
        })
    }

    pub(super) fn commit_input(&self) -> Option<CommitInput> {
        let documents = self.documents.as_ref();
        Some(CommitInput {
            prepared: self.prepared.clone()?,
            title: documents.map(|documents| documents.entry.title.clone()).unwrap_or_default(),
            docs_tip: self.docs.as_ref().map(|docs| docs.branch.tip()),
        })
    }

    /// Returns the saved commit, to verify it.
    pub(super) fn verify_input(&self) -> Option<ExportInput> {
        let prepared = self.prepared.as_ref()?;
        Some(ExportInput {
            commit: self.saved.as_ref()?.tip,
            branch: prepared.branch.clone(),
            working_directory: prepared.working_directory.path.clone(),
        })
    }

    /// Returns the base and the committed work to check against the policy.
    pub(super) fn policy_input(&self) -> Option<(Oid, SavedWork)> {
        Some((self.prepared.as_ref()?.base, self.saved.clone()?))
    }

    pub(super) fn push_input(&self) -> Option<PushInput> {
        let (prepared, tip) = (self.prepared.clone()?, self.saved.as_ref()?.tip);
        Some(PushInput { prepared, tip, verified: self.verified })
    }
}
