//! The `checkout` command: the branch of a run in the open clone.

use orchestrator_contract::outcome::WorkLocation;
use orchestrator_contract::{BranchName, RepositoryUrl, RunName};
use serde::Serialize;

use super::dispatcher::Dispatcher;
use crate::error::Error;
use crate::folder::{PushedBranch, RunBranch};
use crate::task::advice::Advice;
use crate::task::status::Status;
use crate::task::text::sanitize;

/// A branch that was checked out.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CheckedOut {
    pub run: RunName,
    /// Branch of the clone.
    pub branch: String,
    /// Root of the clone.
    pub folder: String,
    /// Whether files of git-lfs have no content yet.
    pub uses_lfs: bool,
}

impl Dispatcher {
    /// Checks out the pushed branch of a run in the open clone, as a branch of its own.
    ///
    /// # Errors
    /// Returns an error if the run has pushed nothing, or the clone cannot check it out; it is then unchanged.
    pub async fn check_out(&self, run: &RunName) -> Result<CheckedOut, Error> {
        let status = self.status_of(self.run(run).await?).await?;
        let branch = pushed_branch(&status)?;
        let folder = &self.config.folder;
        let Some(checkout) = folder.checkout() else {
            return Err(Error::invalid_request(format!("{} is not in a git clone", folder.path.display()))
                .with_hint("Run the command in a clone of the run's repository."));
        };
        let RunBranch { name, uses_lfs } = checkout.check_out_run(&self.config.environment, &branch).await?;
        let folder = checkout.root.display().to_string();
        Ok(CheckedOut { run: run.clone(), branch: name, folder, uses_lfs })
    }
}

/// Returns whether the work of a run is on its remote.
#[must_use]
pub fn is_pushed(status: &Status) -> bool {
    let is_remote = status.work.as_ref().is_some_and(|work| work.location == WorkLocation::Remote);
    status.phase.is_final() && is_remote
}

/// Creates the error for an active run without saved work.
pub(super) fn not_saved(run: &RunName) -> Error {
    Error::invalid_request(format!("`{run}` has not saved its work yet"))
        .with_hint(Advice::Follow(run.clone()))
}

fn pushed_branch(status: &Status) -> Result<PushedBranch, Error> {
    let run = &status.run;
    let not_pushed = |why: String| Error::invalid_request(why).with_hint(Advice::ShowStatus(run.clone()));
    if !status.phase.is_final() {
        return Err(not_saved(run));
    }
    let work = status.work.as_ref().filter(|work| work.location == WorkLocation::Remote);
    let Some(work) = work else {
        return Err(not_pushed(format!("the work of `{run}` is not on the remote")));
    };
    let name = work.branch.as_deref().or(status.branch.as_deref()).unwrap_or_default();
    let name = BranchName::new(name)
        .map_err(|error| not_pushed(format!("`{run}` has no usable branch `{}`: {error}", sanitize(name))))?;
    let repository = RepositoryUrl::new(status.repository.clone())
        .map_err(|error| not_pushed(format!("`{run}` has no usable repository: {error}")))?;
    let is_oid =
        |oid: &&String| matches!(oid.len(), 40 | 64) && oid.bytes().all(|byte| byte.is_ascii_hexdigit());
    let oid = work.oid.as_ref().filter(is_oid).cloned();
    let oid = oid.ok_or_else(|| not_pushed(format!("the commit that `{run}` pushed is not recorded")))?;
    Ok(PushedBranch { run: run.clone(), repository, name, oid })
}
