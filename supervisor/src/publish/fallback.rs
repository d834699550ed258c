//! Push fallbacks: where work goes when a push fails (pure).

use orchestrator_contract::Reason;

use crate::failure::Failure;

/// Location for the work, in order of preference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PushTarget {
    /// Branch of the task.
    Branch,
    /// New branch, because another user changed the branch of the task.
    SiblingBranch,
    /// Branch of the task, without the paths that the server rejects, which become a patch.
    WithoutRejectedPaths(Vec<String>),
    /// Ref and bundle in the workspace.
    Workspace,
}

/// Why a push failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PushFailure {
    /// The remote branch is not at the expected commit.
    NonFastForward,
    /// The server rejected the push, with this message.
    Rejected(String),
    /// Any other failure.
    Error(Failure),
}

impl PushFailure {
    /// Returns the failure for the outcome.
    #[must_use]
    pub fn failure(&self, branch: &str) -> Failure {
        match self {
            Self::NonFastForward => Failure::new(
                Reason::BranchDiverged,
                format!("another user updated, deleted or created `{branch}` during the run"),
            ),
            Self::Rejected(text) => Failure::new(
                Reason::PushRejected,
                format!("the server rejected the push to `{branch}`: {text}"),
            ),
            Self::Error(failure) => failure.clone(),
        }
    }
}

/// Returns the next location to try.
#[must_use]
pub fn next_target(target: &PushTarget, failure: &PushFailure) -> PushTarget {
    match (target, failure) {
        (PushTarget::Branch, PushFailure::NonFastForward) => PushTarget::SiblingBranch,
        (PushTarget::Branch, PushFailure::Rejected(text)) => {
            let paths = rejected_paths(text);
            if paths.is_empty() { PushTarget::Workspace } else { PushTarget::WithoutRejectedPaths(paths) }
        }
        (PushTarget::Branch, PushFailure::Error(_))
        | (PushTarget::SiblingBranch | PushTarget::WithoutRejectedPaths(_) | PushTarget::Workspace, _) => {
            PushTarget::Workspace
        }
    }
}

/// Returns the paths in a rejection, in the two formats of GitHub.
fn rejected_paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for line in text.lines() {
        // refusing to allow ... to create or update workflow `PATH` without `workflow` scope
        if let Some((_, rest)) = line.split_once("create or update workflow `")
            && let Some((path, _)) = rest.split_once('`')
        {
            paths.push(path.to_owned());
        }
        // error: File PATH is 123.00 MB; this exceeds GitHub's file size limit of 100.00 MB
        if line.contains("file size limit")
            && let Some((_, rest)) = line.split_once("File ")
            && let Some((path, _)) = rest.split_once(" is ")
        {
            paths.push(path.to_owned());
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_fast_forward_falls_back_to_sibling_branch() {
        assert_eq!(next_target(&PushTarget::Branch, &PushFailure::NonFastForward), PushTarget::SiblingBranch);
        assert_eq!(
            next_target(&PushTarget::SiblingBranch, &PushFailure::NonFastForward),
            PushTarget::Workspace
        );
    }

    #[test]
    fn rejected_paths_are_parsed_from_github_message() {
        let workflow = "refusing to allow a Personal Access Token to create or update workflow \
                        `.github/workflows/ci.yml` without `workflow` scope";
        let size = "remote: error: File data/big.bin is 150.00 MB; this exceeds GitHub's file size limit of 100.00 MB";
        let text = format!("{workflow}\n{size}");
        assert_eq!(
            next_target(&PushTarget::Branch, &PushFailure::Rejected(text)),
            PushTarget::WithoutRejectedPaths(vec![
                ".github/workflows/ci.yml".to_owned(),
                "data/big.bin".to_owned()
            ])
        );
        let hook = PushFailure::Rejected("pre-receive hook declined".to_owned());
        assert_eq!(next_target(&PushTarget::Branch, &hook), PushTarget::Workspace);
    }

    #[test]
    fn push_fallback_always_ends_in_workspace() {
        let failures = [
            PushFailure::NonFastForward,
            PushFailure::Rejected("create or update workflow `a`".to_owned()),
            PushFailure::Error(Failure::new(Reason::NetworkUnavailable, "")),
        ];
        for failure in &failures {
            let mut target = PushTarget::Branch;
            for _ in 0..3 {
                target = next_target(&target, failure);
            }
            assert_eq!(target, PushTarget::Workspace);
        }
    }
}
