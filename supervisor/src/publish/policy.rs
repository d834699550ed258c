//! Push policy (pure): rejects secrets in new commits, and changes of protected paths.
//!
//! A finding names path or commit and kind, never the secret. The caller passes only new objects: a
//! secret that the base already has is not reported.

mod shapes;

use orchestrator_contract::Reason;

use super::patterns::{InvalidPattern, Patterns};
use crate::redact::Redactor;

/// New commit.
#[derive(Clone, Copy, Debug)]
pub struct ScannedCommit<'a> {
    /// Object id in hexadecimal.
    pub oid: &'a str,
    /// Complete message.
    pub message: &'a [u8],
    /// Name and email address of the author.
    pub author: (&'a [u8], &'a [u8]),
    /// Name and email address of the committer.
    pub committer: (&'a [u8], &'a [u8]),
}

/// New blob.
#[derive(Clone, Copy, Debug)]
pub struct ScannedBlob<'a> {
    /// One of its paths.
    pub path: &'a [u8],
    /// Content.
    pub data: &'a [u8],
}

/// Violation of the policy.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    pub location: FindingLocation,
    pub kind: FindingKind,
}

/// Location of a finding.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingLocation {
    /// File, by its redacted path.
    File(String),
    /// File name, redacted.
    Path(String),
    /// Message of a commit.
    Message(String),
    /// Author of a commit.
    Author(String),
    /// Committer of a commit.
    Committer(String),
}

/// Kind of a finding.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingKind {
    /// Secret, by its kind.
    Secret(String),
    /// Change of a protected path, by the pattern.
    Protected(String),
}

impl Finding {
    /// Returns the reason for a run that this finding ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.kind {
            FindingKind::Secret(_) => Reason::SecretInCommit,
            FindingKind::Protected(_) => Reason::ProtectedPath,
        }
    }
}

impl std::fmt::Display for FindingLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |oid: &str| oid.chars().take(12).collect::<String>();
        match self {
            Self::File(path) => write!(f, "in `{path}`"),
            Self::Path(path) => write!(f, "in the file name `{path}`"),
            Self::Message(oid) => write!(f, "in the message of commit {}", short(oid)),
            Self::Author(oid) => write!(f, "in the author of commit {}", short(oid)),
            Self::Committer(oid) => write!(f, "in the committer of commit {}", short(oid)),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.kind, &self.location) {
            (FindingKind::Secret(kind), location) => write!(f, "{kind} {location}"),
            (FindingKind::Protected(pattern), FindingLocation::File(path) | FindingLocation::Path(path)) => {
                write!(f, "change of `{path}`, protected by `{pattern}`")
            }
            (FindingKind::Protected(pattern), location) => {
                write!(f, "change {location}, protected by `{pattern}`")
            }
        }
    }
}

/// Returns the reason and the message for findings, or `None` if there are none.
///
/// A secret takes precedence over a protected path. The message names at most ten findings.
#[must_use]
pub fn policy_failure(findings: &[Finding]) -> Option<(Reason, String)> {
    let is_secret = |finding: &&Finding| finding.reason() == Reason::SecretInCommit;
    let worst = findings.iter().find(is_secret).or_else(|| findings.first())?;
    let mut named: Vec<String> = findings.iter().map(Finding::to_string).collect();
    named.sort();
    named.dedup();
    let more = named.len().saturating_sub(10);
    named.truncate(10);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    Some((worst.reason(), format!("push rejected by policy: {}{more}", named.join(", "))))
}

/// Push policy of a run.
#[derive(Clone, Debug)]
pub struct Policy {
    redactor: Redactor,
    protected: Patterns,
}

impl Policy {
    /// Creates a policy for the secrets of `redactor` and the protected paths.
    ///
    /// # Errors
    /// Returns an error if a pattern is invalid.
    pub fn new(redactor: Redactor, protected_paths: &[String]) -> Result<Self, InvalidPattern> {
        let protected = Patterns::new(protected_paths.iter().map(String::as_str))?;
        Ok(Self { redactor, protected })
    }

    /// Checks message, author and committer of a new commit.
    #[must_use]
    pub fn check_commit(&self, commit: &ScannedCommit<'_>) -> Vec<Finding> {
        let ScannedCommit { oid, message, author, committer } = commit;
        let join = |(name, address): &(&[u8], &[u8])| [*name, *address].join(&b'\n');
        let oid = || (*oid).to_owned();
        let mut findings = self.secrets(message, || FindingLocation::Message(oid()));
        findings.extend(self.secrets(&join(author), || FindingLocation::Author(oid())));
        findings.extend(self.secrets(&join(committer), || FindingLocation::Committer(oid())));
        findings
    }

    /// Checks the content of a new blob.
    #[must_use]
    pub fn check_blob(&self, blob: &ScannedBlob<'_>) -> Vec<Finding> {
        self.secrets(blob.data, || FindingLocation::File(self.redacted_path(blob.path)))
    }

    /// Checks a path that the branch adds, changes or removes.
    #[must_use]
    pub fn check_path(&self, path: &[u8]) -> Vec<Finding> {
        let mut findings = self.secrets(path, || FindingLocation::Path(self.redacted_path(path)));
        findings.extend(self.protected.matching(path).map(|pattern| Finding {
            location: FindingLocation::File(self.redacted_path(path)),
            kind: FindingKind::Protected(pattern.to_owned()),
        }));
        findings
    }

    fn secrets(&self, bytes: &[u8], location: impl Fn() -> FindingLocation) -> Vec<Finding> {
        let run_secret = self.redactor.find(bytes).map(|kind| format!("{kind} of this run"));
        let kinds = run_secret.into_iter().chain(shapes::find(bytes).into_iter().map(str::to_owned));
        kinds.map(|kind| Finding { location: location(), kind: FindingKind::Secret(kind) }).collect()
    }

    /// Returns a path for display: in one line, without secrets.
    fn redacted_path(&self, path: &[u8]) -> String {
        let text = String::from_utf8_lossy(path);
        let masked = shapes::mask(&self.redactor.redact(&text));
        masked.escape_debug().to_string()
    }
}

#[cfg(test)]
mod tests;
