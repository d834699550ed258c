//! The rescue ladder: where the work goes when the branch does not take it. Pure.

use orchestrator_contract::Reason;

use crate::failure::Failure;

/// A place for the work, the best first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PushTarget {
    /// The task's branch.
    Branch,
    /// A branch of its own beside it, because somebody else moved ours.
    SiblingBranch,
    /// The task's branch without the paths that the server refuses; the rest as a patch.
    WithoutRefusedPaths(Vec<String>),
    /// A ref and a bundle in the workspace.
    Workspace,
}

/// Why a rung did not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PushFailure {
    /// The branch is not where it was.
    NonFastForward,
    /// The server refused, with this text.
    Rejected(String),
    /// It may not be pushed, or cannot be.
    Error(Failure),
}

impl PushFailure {
    /// The failure that the run ends with because of it.
    #[must_use]
    pub fn failure(&self, branch: &str) -> Failure {
        match self {
            Self::NonFastForward => Failure::new(
                Reason::BranchDiverged,
                format!("`{branch}` was moved, deleted or created by somebody else while the agent worked"),
            ),
            Self::Rejected(text) => Failure::new(
                Reason::PushRejected,
                format!("the server refused the push to `{branch}`: {text}"),
            ),
            Self::Error(failure) => failure.clone(),
        }
    }
}

/// The next place to try.
#[must_use]
pub fn next_target(rung: &PushTarget, trouble: &PushFailure) -> PushTarget {
    match (rung, trouble) {
        (PushTarget::Branch, PushFailure::NonFastForward) => PushTarget::SiblingBranch,
        (PushTarget::Branch, PushFailure::Rejected(text)) => {
            let paths = refused_paths(text);
            if paths.is_empty() { PushTarget::Workspace } else { PushTarget::WithoutRefusedPaths(paths) }
        }
        (PushTarget::Branch, PushFailure::Error(_))
        | (PushTarget::SiblingBranch | PushTarget::WithoutRefusedPaths(_) | PushTarget::Workspace, _) => {
            PushTarget::Workspace
        }
    }
}

/// The paths that a server's refusal names, in the two forms that GitHub uses.
fn refused_paths(text: &str) -> Vec<String> {
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
            PushTarget::WithoutRefusedPaths(vec![
                ".github/workflows/ci.yml".to_owned(),
                "data/big.bin".to_owned()
            ])
        );
        let hook = PushFailure::Rejected("pre-receive hook declined".to_owned());
        assert_eq!(next_target(&PushTarget::Branch, &hook), PushTarget::Workspace);
    }

    #[test]
    fn push_fallback_always_ends_in_workspace() {
        let troubles = [
            PushFailure::NonFastForward,
            PushFailure::Rejected("create or update workflow `a`".to_owned()),
            PushFailure::Error(Failure::new(Reason::NetworkUnavailable, "")),
        ];
        for trouble in &troubles {
            let mut rung = PushTarget::Branch;
            for _ in 0..3 {
                rung = next_target(&rung, trouble);
            }
            assert_eq!(rung, PushTarget::Workspace);
        }
    }
}
