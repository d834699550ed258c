//! Push policy (pure): rejects secrets in new commits, and changes of protected paths.
//!
//! A finding names path or commit and kind, never the secret. The caller passes only new objects: a
//! secret that the base already has is not reported.

use std::collections::BTreeSet;

use orchestrator_contract::{Reason, bounds, protected};

use super::patterns::{InvalidPattern, Patterns};
use crate::redact::{Redactor, Scan, SecretKind};

/// New commit.
#[derive(Clone, Copy, Debug)]
pub struct ScannedCommit<'a> {
    /// Object id in hexadecimal.
    pub oid: &'a str,
    /// Complete header, including unknown fields.
    pub header: &'a [u8],
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
    /// Header of a commit, beside author and committer.
    Header(String),
}

/// Kind of a finding.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingKind {
    /// Secret, by its kind.
    Secret(String),
    /// Change of a protected path, by the pattern.
    Protected(String),
    /// Change of a path that is protected by default, by the pattern.
    ProtectedByDefault(&'static str),
}

/// Result of the check of a blob.
#[derive(Clone, Debug, Default)]
pub struct CheckedBlob {
    pub findings: Vec<Finding>,
    /// The blob, by its redacted path, and what in it could not be read.
    pub unread: Option<String>,
    /// Bytes that were decoded or unpacked.
    pub decoded: u64,
}

impl Finding {
    /// Returns the reason for a run that this finding ends.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.kind {
            FindingKind::Secret(_) => Reason::SecretInCommit,
            FindingKind::Protected(_) | FindingKind::ProtectedByDefault(_) => Reason::ProtectedPath,
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
            Self::Header(oid) => write!(f, "in the header of commit {}", short(oid)),
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
            (FindingKind::ProtectedByDefault(pattern), location) => write!(
                f,
                "change {location}, protected by default because it can run with secrets of the CI \
                 (to allow it: protected_paths_allow = [\"{pattern}\"])"
            ),
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
    protected_by_default: Patterns,
}

impl Policy {
    /// Creates a policy for the secrets of `redactor` and the protected paths: those that are given,
    /// and those that are protected by default, without the allowed ones.
    ///
    /// # Errors
    /// Returns an error if a pattern is invalid.
    pub fn new(
        redactor: Redactor,
        protected_paths: &[String],
        allowed: &[String],
    ) -> Result<Self, InvalidPattern> {
        let protected = Patterns::new(protected_paths.iter().map(String::as_str))?;
        let exceptions: Vec<String> = allowed.iter().map(|pattern| format!("!{pattern}")).collect();
        let defaults = protected::DEFAULT_PATHS.into_iter().chain(exceptions.iter().map(String::as_str));
        Ok(Self { redactor, protected, protected_by_default: Patterns::new(defaults)? })
    }

    /// Checks header, message, author and committer of a new commit.
    #[must_use]
    pub fn check_commit(&self, commit: &ScannedCommit<'_>) -> Vec<Finding> {
        let ScannedCommit { oid, header, message, author, committer } = commit;
        let join = |(name, address): &(&[u8], &[u8])| [*name, *address].join(&b'\n');
        let oid = || (*oid).to_owned();
        let mut findings = self.secrets(message, || FindingLocation::Message(oid()));
        let mut named = self.secrets(&join(author), || FindingLocation::Author(oid()));
        named.extend(self.secrets(&join(committer), || FindingLocation::Committer(oid())));
        let kinds: BTreeSet<FindingKind> = named.iter().map(|finding| finding.kind.clone()).collect();
        let of_header = self.secrets(header, || FindingLocation::Header(oid()));
        findings.extend(named);
        findings.extend(of_header.into_iter().filter(|finding| !kinds.contains(&finding.kind)));
        findings
    }

    /// Checks the content of a new blob.
    #[must_use]
    pub fn check_blob(&self, blob: &ScannedBlob<'_>) -> Vec<Finding> {
        self.inspect_blob(blob, u64::MAX).findings
    }

    /// Checks the content of a new blob, and says what could not be read.
    ///
    /// Unpacks at most `extra` bytes beyond a multiple of its size.
    #[must_use]
    pub fn inspect_blob(&self, blob: &ScannedBlob<'_>, extra: u64) -> CheckedBlob {
        let scan = self.redactor.scan_within(blob.data, extra);
        let what: Vec<&str> = scan.unread.iter().copied().chain(Redactor::unreadable(blob.path)).collect();
        let unread = (!what.is_empty() && !blob.data.is_empty())
            .then(|| format!("`{}` ({})", self.redacted_path(blob.path), what.join(", ")));
        let findings = to_findings(&scan, || FindingLocation::File(self.redacted_path(blob.path)));
        CheckedBlob { findings, unread, decoded: scan.decoded }
    }

    /// Checks a path that the branch adds, changes or removes.
    #[must_use]
    pub fn check_path(&self, path: &[u8]) -> Vec<Finding> {
        let mut findings = self.check_name(path);
        let file = || FindingLocation::File(self.redacted_path(path));
        let kind = match self.protected.matching(path).or_else(|| self.protected.matching_folded(path)) {
            Some(pattern) => Some(FindingKind::Protected(pattern.to_owned())),
            None => protected::DEFAULT_PATHS
                .into_iter()
                .find(|pattern| self.protected_by_default.matching_folded(path) == Some(*pattern))
                .map(FindingKind::ProtectedByDefault),
        };
        findings.extend(kind.map(|kind| Finding { location: file(), kind }));
        findings
    }

    /// Checks whether a path contains a secret.
    #[must_use]
    pub fn check_name(&self, path: &[u8]) -> Vec<Finding> {
        self.secrets(path, || FindingLocation::Path(self.redacted_path(path)))
    }

    fn secrets(&self, bytes: &[u8], location: impl Fn() -> FindingLocation) -> Vec<Finding> {
        to_findings(&self.redactor.scan(bytes), location)
    }

    /// Returns a path for display: in one line, without secrets.
    fn redacted_path(&self, path: &[u8]) -> String {
        let text = String::from_utf8_lossy(path);
        let text = self.redactor.redact(&text);
        bounds::truncate(&text, bounds::PATH).escape_debug().to_string()
    }
}

fn to_findings(scan: &Scan, location: impl Fn() -> FindingLocation) -> Vec<Finding> {
    let name = |kind: &SecretKind| match kind {
        SecretKind::Own(label) => format!("{label} of this run"),
        SecretKind::Known(name) => (*name).to_owned(),
    };
    let kinds = scan.kinds();
    kinds.iter().map(|kind| Finding { location: location(), kind: FindingKind::Secret(name(kind)) }).collect()
}

#[cfg(test)]
mod tests;
