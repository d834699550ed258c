//! The rescue ladder: where the work goes when the branch does not take it. Pure.

use orchestrator_contract::Reason;

use crate::run::Failure;

/// A place for the work, the best first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rung {
    /// The task's branch.
    Branch,
    /// A branch of its own beside it, because somebody else moved ours.
    Sibling,
    /// The task's branch without the paths that the server refuses; the rest as a patch.
    WithoutRefused(Vec<String>),
    /// A ref and a bundle in the workspace.
    Workspace,
}

/// Why a rung did not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// The branch is not where it was.
    Moved,
    /// The server refused, with this text.
    Rejected(String),
    /// It may not be pushed, or cannot be.
    Failed(Failure),
}

impl Trouble {
    /// The failure that the run ends with because of it.
    #[must_use]
    pub fn failure(&self, branch: &str) -> Failure {
        match self {
            Self::Moved => Failure::new(
                Reason::BranchDiverged,
                format!("`{branch}` was moved, deleted or created by somebody else while the agent worked"),
            ),
            Self::Rejected(text) => Failure::new(
                Reason::PushRejected,
                format!("the server refused the push to `{branch}`: {text}"),
            ),
            Self::Failed(failure) => failure.clone(),
        }
    }
}

/// The next place to try.
#[must_use]
pub fn next_rung(rung: &Rung, trouble: &Trouble) -> Rung {
    match (rung, trouble) {
        (Rung::Branch, Trouble::Moved) => Rung::Sibling,
        (Rung::Branch, Trouble::Rejected(text)) => {
            let paths = refused_paths(text);
            if paths.is_empty() { Rung::Workspace } else { Rung::WithoutRefused(paths) }
        }
        (Rung::Branch, Trouble::Failed(_))
        | (Rung::Sibling | Rung::WithoutRefused(_) | Rung::Workspace, _) => Rung::Workspace,
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
    fn somebody_elses_move_leads_to_a_branch_of_our_own_never_to_a_force() {
        assert_eq!(next_rung(&Rung::Branch, &Trouble::Moved), Rung::Sibling);
        assert_eq!(next_rung(&Rung::Sibling, &Trouble::Moved), Rung::Workspace);
    }

    #[test]
    fn refused_paths_are_read_from_githubs_texts() {
        let workflow = "refusing to allow a Personal Access Token to create or update workflow \
                        `.github/workflows/ci.yml` without `workflow` scope";
        let size = "remote: error: File data/big.bin is 150.00 MB; this exceeds GitHub's file size limit of 100.00 MB";
        let text = format!("{workflow}\n{size}");
        assert_eq!(
            next_rung(&Rung::Branch, &Trouble::Rejected(text)),
            Rung::WithoutRefused(vec![".github/workflows/ci.yml".to_owned(), "data/big.bin".to_owned()])
        );
        let hook = Trouble::Rejected("pre-receive hook declined".to_owned());
        assert_eq!(next_rung(&Rung::Branch, &hook), Rung::Workspace);
    }

    #[test]
    fn every_ladder_ends_in_the_workspace() {
        let troubles = [
            Trouble::Moved,
            Trouble::Rejected("create or update workflow `a`".to_owned()),
            Trouble::Failed(Failure::new(Reason::NetworkUnavailable, "")),
        ];
        for trouble in &troubles {
            let mut rung = Rung::Branch;
            for _ in 0..3 {
                rung = next_rung(&rung, trouble);
            }
            assert_eq!(rung, Rung::Workspace);
        }
    }
}
