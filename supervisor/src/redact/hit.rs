//! What the scanner finds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Kind of a secret.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SecretKind {
    /// Secret of this run, by its label.
    Own(Arc<str>),
    /// Token of a well-known form, by its name.
    Known(&'static str),
}

impl SecretKind {
    /// Returns the label, such as `github token`.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Own(label) => label,
            Self::Known(name) => name,
        }
    }
}

/// A secret in some bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hit {
    /// Bytes that hold the secret, encoded or not.
    pub range: Range<usize>,
    pub kind: SecretKind,
}

/// Result of a scan.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Secrets, in no particular order; ranges can overlap.
    pub hits: Vec<Hit>,
    /// What could not be decided, such as `xz data`.
    pub unread: BTreeSet<&'static str>,
    /// Bytes that were decoded or unpacked.
    pub decoded: u64,
}

impl Scan {
    /// Returns the kinds of the secrets, each once; those of this run first.
    #[must_use]
    pub fn kinds(&self) -> BTreeSet<SecretKind> {
        self.hits.iter().map(|hit| hit.kind.clone()).collect()
    }
}

/// Replaces the bytes of all hits by `[redacted KIND]`, where hits that overlap count as one.
///
/// The kind is that of the longest of them, of one of this run's secrets if there is one.
pub(super) fn mask(bytes: &[u8], mut hits: Vec<Hit>) -> Vec<u8> {
    hits.sort_by_key(|hit| (hit.range.start, hit.range.end));
    let mut masked = Vec::with_capacity(bytes.len());
    let mut end = 0;
    let mut rest = hits.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut range = first.range.clone();
        let mut best = first;
        while let Some(next) = rest.next_if(|next| next.range.start < range.end) {
            range.end = range.end.max(next.range.end);
            let rank = |hit: &Hit| (matches!(hit.kind, SecretKind::Own(_)), hit.range.len());
            if rank(&next) > rank(&best) {
                best = next;
            }
        }
        masked.extend_from_slice(&bytes[end..range.start]);
        masked.extend_from_slice(format!("[redacted {}]", best.kind.label()).as_bytes());
        end = range.end;
    }
    masked.extend_from_slice(&bytes[end..]);
    masked
}
