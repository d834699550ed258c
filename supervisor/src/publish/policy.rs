//! What may not be pushed: secrets anywhere in new commits, and protected paths.
//!
//! Pure. A finding names path or commit and kind, never the value. The caller passes
//! only what is new: a secret that the base already had is not the agent's doing.

mod shapes;

use orchestrator_contract::Reason;

use super::patterns::{InvalidPattern, Patterns};
use crate::redact::Redactor;

/// A new commit.
#[derive(Clone, Copy, Debug)]
pub struct ScannedCommit<'a> {
    /// Its oid in hexadecimal.
    pub oid: &'a str,
    /// Its whole message.
    pub message: &'a [u8],
    /// Name and address of the author.
    pub author: (&'a [u8], &'a [u8]),
    /// Name and address of the committer.
    pub committer: (&'a [u8], &'a [u8]),
}

/// A new blob.
#[derive(Clone, Copy, Debug)]
pub struct ScannedBlob<'a> {
    /// A path that it has.
    pub path: &'a [u8],
    /// Its content.
    pub data: &'a [u8],
}

/// Something that may not be pushed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// Where it is.
    pub place: FindingLocation,
    /// What it is.
    pub kind: FindingKind,
}

/// Where a finding is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingLocation {
    /// In a file of this path, itself free of secrets.
    File(String),
    /// In the name of this path, where the secret is masked.
    Path(String),
    /// In the message of this commit.
    Message(String),
    /// In the author of this commit.
    Author(String),
    /// In the committer of this commit.
    Committer(String),
}

/// What was found.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingKind {
    /// A secret of this kind.
    Secret(String),
    /// A change of a path that this pattern protects.
    Protected(String),
}

impl Finding {
    /// Why the run ends.
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
        match (&self.kind, &self.place) {
            (FindingKind::Secret(kind), place) => write!(f, "{kind} {place}"),
            (FindingKind::Protected(pattern), FindingLocation::File(path) | FindingLocation::Path(path)) => {
                write!(f, "change of `{path}`, which `{pattern}` protects")
            }
            (FindingKind::Protected(pattern), place) => write!(f, "change {place} of `{pattern}`"),
        }
    }
}

/// The reason and the message of a refusal; none if there are no findings.
///
/// A secret outweighs a protected path. At most ten findings are named.
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
    Some((worst.reason(), format!("the push is refused: {}{more}", named.join(", "))))
}

/// What may not be pushed.
#[derive(Clone, Debug)]
pub struct Policy {
    redactor: Redactor,
    protected: Patterns,
}

impl Policy {
    /// A policy that knows our own secrets and the protected paths.
    ///
    /// # Errors
    /// A pattern is no gitignore pattern.
    pub fn new(redactor: Redactor, protected_paths: &[String]) -> Result<Self, InvalidPattern> {
        let protected = Patterns::new(protected_paths.iter().map(String::as_str))?;
        Ok(Self { redactor, protected })
    }

    /// What is wrong with a new commit's own texts.
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

    /// What is wrong with the content of a new blob.
    #[must_use]
    pub fn check_blob(&self, blob: &ScannedBlob<'_>) -> Vec<Finding> {
        self.secrets(blob.data, || FindingLocation::File(self.redacted_path(blob.path)))
    }

    /// What is wrong with a path that a new commit adds, changes or removes.
    #[must_use]
    pub fn check_path(&self, path: &[u8]) -> Vec<Finding> {
        let mut findings = self.secrets(path, || FindingLocation::Path(self.redacted_path(path)));
        findings.extend(self.protected.matching(path).map(|pattern| Finding {
            place: FindingLocation::File(self.redacted_path(path)),
            kind: FindingKind::Protected(pattern.to_owned()),
        }));
        findings
    }

    fn secrets(&self, bytes: &[u8], place: impl Fn() -> FindingLocation) -> Vec<Finding> {
        let own = self.redactor.find(bytes).map(|kind| format!("our own {kind}"));
        let found = own.into_iter().chain(shapes::find(bytes).into_iter().map(str::to_owned));
        found.map(|kind| Finding { place: place(), kind: FindingKind::Secret(kind) }).collect()
    }

    /// A path as it may be shown: in one line, without secrets.
    fn redacted_path(&self, path: &[u8]) -> String {
        let text = String::from_utf8_lossy(path);
        let masked = shapes::mask(&self.redactor.redact(&text));
        masked.escape_debug().to_string()
    }
}

#[cfg(test)]
mod tests;
