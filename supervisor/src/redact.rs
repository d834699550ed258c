//! Redacts secrets in text and streams: raw, base64, percent-encoded, JSON-escaped and
//! hexadecimal, also across chunk borders. Pure.
//!
//! Values shorter than [`MIN_SECRET_BYTES`] are not redacted: they would match by chance.
//! A match becomes `[redacted KIND]`.

mod encodings;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use secrecy::{ExposeSecret as _, SecretString};

pub use encodings::MIN_SECRET_BYTES;

/// Maximum total size of patterns for a DFA, which needs about 250 bytes of memory per byte.
const DFA_MAX_PATTERN_BYTES: usize = 64 * 1024;

/// The secrets to redact, each with a label that may be shown.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    values: Vec<(String, SecretString)>,
}

impl Secrets {
    /// Creates an empty set of secrets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret with its label, such as `github token`.
    #[must_use]
    pub fn with(mut self, kind: impl Into<String>, value: SecretString) -> Self {
        self.values.push((kind.into(), value));
        self
    }
}

/// Redacts secrets; clones share secrets that are added later.
#[derive(Clone)]
pub struct Redactor {
    shared: Arc<RwLock<Shared>>,
}

/// Omits the patterns, which contain the secrets.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("kinds", &self.matcher().kinds.len()).finish_non_exhaustive()
    }
}

struct Shared {
    secrets: Secrets,
    matcher: Arc<Matcher>,
}

impl Redactor {
    /// Creates a redactor of these secrets.
    #[must_use]
    pub fn new(secrets: Secrets) -> Self {
        let matcher = Arc::new(Matcher::new(&secrets));
        Self { shared: Arc::new(RwLock::new(Shared { secrets, matcher })) }
    }

    /// Adds a secret, such as a token after its rotation.
    pub fn add(&self, kind: impl Into<String>, value: SecretString) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(_, known): &(String, SecretString)| known.expose_secret() == value.expose_secret();
        if shared.secrets.values.iter().any(is_same) {
            return;
        }
        shared.secrets.values.push((kind.into(), value));
        shared.matcher = Arc::new(Matcher::new(&shared.secrets));
    }

    /// Returns the text with all secrets redacted.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.matcher().redact(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Patterns are valid UTF-8, so the rest of the text is too.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Returns the bytes with all secrets redacted.
    #[must_use]
    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.matcher().redact(bytes)
    }

    /// Returns the label of the first secret in these bytes.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let matcher = self.matcher();
        let found = matcher.automaton.as_ref()?.find(bytes)?;
        matcher.kinds.get(found.pattern().as_usize()).map(|kind| kind.to_string())
    }

    /// Creates a redactor for one stream.
    #[must_use]
    pub fn stream(&self) -> StreamRedactor {
        StreamRedactor { redactor: self.clone(), pending: Vec::new() }
    }

    fn matcher(&self) -> Arc<Matcher> {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shared.matcher)
    }
}

/// Redacts secrets in a stream that arrives in chunks of any size.
///
/// Buffers only bytes that could be the start of a secret: fewer than the longest
/// pattern has.
pub struct StreamRedactor {
    redactor: Redactor,
    pending: Vec<u8>,
}

/// Omits the pending bytes, which may be the start of a secret.
impl std::fmt::Debug for StreamRedactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamRedactor").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl StreamRedactor {
    /// Adds a chunk and returns the bytes that later chunks cannot change, redacted.
    pub fn push<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let matcher = self.redactor.matcher();
        if self.pending.is_empty() {
            let mut masked = Vec::new();
            let (start, end) = matcher.mask_settled(chunk, &mut masked);
            self.pending.extend_from_slice(&chunk[end..]);
            if masked.is_empty() && start == 0 {
                return Cow::Borrowed(&chunk[..end]);
            }
            masked.extend_from_slice(&chunk[start..end]);
            return Cow::Owned(masked);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(chunk);
        let mut masked = Vec::with_capacity(joined.len());
        let (start, end) = matcher.mask_settled(&joined, &mut masked);
        masked.extend_from_slice(&joined[start..end]);
        joined.drain(..end);
        self.pending = joined;
        Cow::Owned(masked)
    }

    /// Returns the pending bytes at the end of the stream, redacted.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.redactor.matcher().redact(&self.pending).into_owned()
    }

    /// Returns the number of pending bytes.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }
}

/// Matches every encoded form of every secret.
struct Matcher {
    /// `None` if there are no patterns.
    automaton: Option<AhoCorasick>,
    /// Sorted, to find those that start with the end of a chunk.
    patterns: Vec<String>,
    kinds: Vec<Arc<str>>,
    longest: usize,
    /// Whether a pattern starts with two bytes, by [`pair_index`]; a filter that rules out most text.
    first_pairs: Box<[bool]>,
}

/// Returns the index of two bytes among all pairs.
fn pair_index(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

impl Matcher {
    fn new(secrets: &Secrets) -> Self {
        let mut forms: Vec<(String, Arc<str>)> = Vec::new();
        for (kind, value) in &secrets.values {
            let kind: Arc<str> = kind.as_str().into();
            let encoded = encodings::encoded_forms(value.expose_secret());
            forms.extend(encoded.into_iter().map(|form| (form, Arc::clone(&kind))));
        }
        // A stable sort: if two secrets have the same form, the label of the first is used.
        forms.sort_by(|one, other| one.0.cmp(&other.0));
        forms.dedup_by(|later, earlier| later.0 == earlier.0);
        let (patterns, kinds): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        let total: usize = patterns.iter().map(String::len).sum();
        let kind = (total <= DFA_MAX_PATTERN_BYTES).then_some(AhoCorasickKind::DFA);
        let automaton = (!patterns.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(kind)
                .build(&patterns)
                .expect("a few secrets have far fewer patterns than the automaton limit")
        });
        let mut first_pairs = vec![false; 1 << 16].into_boxed_slice();
        for pattern in &patterns {
            if let [first, second, ..] = pattern.as_bytes() {
                first_pairs[pair_index(*first, *second)] = true;
            }
        }
        Self { automaton, patterns, kinds, longest, first_pairs }
    }

    fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut masked = Vec::new();
        let end = self.mask(bytes, bytes.len(), &mut masked, |_| bytes.len());
        if masked.is_empty() && end == 0 {
            return Cow::Borrowed(bytes);
        }
        masked.extend_from_slice(&bytes[end..]);
        Cow::Owned(masked)
    }

    /// Masks the bytes that later bytes cannot change.
    ///
    /// Returns the start of the bytes that are still to be copied, and the start of the bytes
    /// that must stay pending.
    fn mask_settled(&self, bytes: &[u8], masked: &mut Vec<u8>) -> (usize, usize) {
        let limit = self.first_partial_match(bytes, 0);
        let start = self.mask(bytes, limit, masked, |from| self.first_partial_match(bytes, from));
        (start, if start > limit { self.first_partial_match(bytes, start) } else { limit })
    }

    /// Copies up to the last match that starts before `limit`, masked; returns its end.
    fn mask(
        &self,
        bytes: &[u8],
        mut limit: usize,
        masked: &mut Vec<u8>,
        limit_from: impl Fn(usize) -> usize,
    ) -> usize {
        let mut end = 0;
        let Some(automaton) = &self.automaton else { return end };
        for found in automaton.find_iter(bytes) {
            if found.start() >= limit {
                break;
            }
            masked.extend_from_slice(&bytes[end..found.start()]);
            let kind = self.kinds.get(found.pattern().as_usize()).map_or("", |kind| kind);
            masked.extend_from_slice(format!("[redacted {kind}]").as_bytes());
            end = found.end();
            if end > limit {
                limit = limit_from(end);
            }
        }
        end
    }

    /// Returns the start of the first pattern at or after `from` that the bytes contain only in part.
    fn first_partial_match(&self, bytes: &[u8], from: usize) -> usize {
        let tail = (bytes.len() + 1).saturating_sub(self.longest).max(from);
        let is_prefix = |start: &usize| {
            let tail = &bytes[*start..];
            if let [first, second, ..] = tail
                && !self.first_pairs[pair_index(*first, *second)]
            {
                return false;
            }
            let index = self.patterns.partition_point(|pattern| pattern.as_bytes() <= tail);
            self.patterns.get(index).is_some_and(|pattern| pattern.as_bytes().starts_with(tail))
        };
        (tail..bytes.len()).find(is_prefix).unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests;
