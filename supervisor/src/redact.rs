//! Masks secrets where text enters: raw, base64, percent-encoded, JSON-escaped and
//! hexadecimal, across chunk borders too.
//!
//! Pure. Values shorter than 8 bytes are not masked: they would be found by chance.
//! A hit becomes `[redacted KIND]`.

mod encodings;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use secrecy::{ExposeSecret as _, SecretString};

pub use encodings::MIN_SECRET_BYTES;

/// From how many bytes of patterns on the slower, smaller automaton is used: the fast
/// one needs about 250 bytes of memory for each.
const LARGE: usize = 64 * 1024;

/// The secrets that must not be seen, each with a label that may.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    values: Vec<(String, SecretString)>,
}

impl Secrets {
    /// No secrets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value with its label, such as `github token`.
    #[must_use]
    pub fn with(mut self, kind: impl Into<String>, value: SecretString) -> Self {
        self.values.push((kind.into(), value));
        self
    }
}

/// Finds and masks secrets; clones share what is added later.
#[derive(Clone)]
pub struct Redactor {
    shared: Arc<RwLock<Shared>>,
}

/// Without the patterns, which are the secrets.
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
    /// A redactor of these secrets.
    #[must_use]
    pub fn new(secrets: Secrets) -> Self {
        let matcher = Arc::new(Matcher::new(&secrets));
        Self { shared: Arc::new(RwLock::new(Shared { secrets, matcher })) }
    }

    /// Masks one more value from now on, such as a token after its rotation.
    pub fn add(&self, kind: impl Into<String>, value: SecretString) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let known = |(_, known): &(String, SecretString)| known.expose_secret() == value.expose_secret();
        if shared.secrets.values.iter().any(known) {
            return;
        }
        shared.secrets.values.push((kind.into(), value));
        shared.matcher = Arc::new(Matcher::new(&shared.secrets));
    }

    /// The text without secrets.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.matcher().redact(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Every pattern is a whole UTF-8 text, so what is left of the text is too.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The bytes without secrets.
    #[must_use]
    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.matcher().redact(bytes)
    }

    /// The label of the first secret in these bytes.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let matcher = self.matcher();
        let found = matcher.automaton.as_ref()?.find(bytes)?;
        matcher.kinds.get(found.pattern().as_usize()).map(|kind| kind.to_string())
    }

    /// A redactor of one stream.
    #[must_use]
    pub fn stream(&self) -> StreamRedactor {
        StreamRedactor { redactor: self.clone(), pending: Vec::new() }
    }

    fn matcher(&self) -> Arc<Matcher> {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shared.matcher)
    }
}

/// Masks secrets in a stream that comes in chunks of any size.
///
/// It holds back only bytes that could be the beginning of a secret: at most one less
/// than the longest pattern has.
pub struct StreamRedactor {
    redactor: Redactor,
    pending: Vec<u8>,
}

/// Without the bytes that are held back, which may be the beginning of a secret.
impl std::fmt::Debug for StreamRedactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamRedactor").field("held", &self.pending.len()).finish_non_exhaustive()
    }
}

impl StreamRedactor {
    /// Takes a chunk and gives what is certain by now.
    pub fn push<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let matcher = self.redactor.matcher();
        if self.pending.is_empty() {
            let mut masked = Vec::new();
            let (begin, end) = matcher.mask_settled(chunk, &mut masked);
            self.pending.extend_from_slice(&chunk[end..]);
            if masked.is_empty() && begin == 0 {
                return Cow::Borrowed(&chunk[..end]);
            }
            masked.extend_from_slice(&chunk[begin..end]);
            return Cow::Owned(masked);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(chunk);
        let mut masked = Vec::with_capacity(joined.len());
        let (begin, end) = matcher.mask_settled(&joined, &mut masked);
        masked.extend_from_slice(&joined[begin..end]);
        joined.drain(..end);
        self.pending = joined;
        Cow::Owned(masked)
    }

    /// Gives what was held back, at the end of the stream.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.redactor.matcher().redact(&self.pending).into_owned()
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pending.len()
    }
}

/// An automaton over every form of every secret.
struct Matcher {
    /// None where there is nothing to look for.
    automaton: Option<AhoCorasick>,
    /// Sorted, to find those that begin with the end of a chunk.
    patterns: Vec<String>,
    kinds: Vec<Arc<str>>,
    longest: usize,
    /// Which two bytes patterns begin with, by [`pair`]: most of a text is ruled out by it.
    beginnings: Box<[bool]>,
}

/// The index of two bytes among all pairs.
fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

impl Matcher {
    fn new(secrets: &Secrets) -> Self {
        let mut forms: Vec<(String, Arc<str>)> = Vec::new();
        for (kind, value) in &secrets.values {
            let kind: Arc<str> = kind.as_str().into();
            let found = encodings::encoded_forms(value.expose_secret());
            forms.extend(found.into_iter().map(|form| (form, Arc::clone(&kind))));
        }
        // Stable: of two secrets with the same form the first one names it.
        forms.sort_by(|one, other| one.0.cmp(&other.0));
        forms.dedup_by(|later, earlier| later.0 == earlier.0);
        let (patterns, kinds): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        let total: usize = patterns.iter().map(String::len).sum();
        let kind = (total <= LARGE).then_some(AhoCorasickKind::DFA);
        let automaton = (!patterns.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(kind)
                .build(&patterns)
                .expect("the forms of a few secrets are far fewer than an automaton can hold")
        });
        let mut beginnings = vec![false; 1 << 16].into_boxed_slice();
        for pattern in &patterns {
            if let [first, second, ..] = pattern.as_bytes() {
                beginnings[pair(*first, *second)] = true;
            }
        }
        Self { automaton, patterns, kinds, longest, beginnings }
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

    /// Masks what later bytes cannot change. Returns where the rest begins that is yet to
    /// be copied, and where it ends because of bytes that must be held back.
    fn mask_settled(&self, bytes: &[u8], masked: &mut Vec<u8>) -> (usize, usize) {
        let limit = self.first_partial_match(bytes, 0);
        let begin = self.mask(bytes, limit, masked, |from| self.first_partial_match(bytes, from));
        (begin, if begin > limit { self.first_partial_match(bytes, begin) } else { limit })
    }

    /// Copies with masks up to the last hit that begins before `limit`; returns its end.
    fn mask(
        &self,
        bytes: &[u8],
        mut limit: usize,
        masked: &mut Vec<u8>,
        limit_from: impl Fn(usize) -> usize,
    ) -> usize {
        let mut end = 0;
        let Some(automaton) = &self.automaton else { return end };
        for hit in automaton.find_iter(bytes) {
            if hit.start() >= limit {
                break;
            }
            masked.extend_from_slice(&bytes[end..hit.start()]);
            let kind = self.kinds.get(hit.pattern().as_usize()).map_or("", |kind| kind);
            masked.extend_from_slice(format!("[redacted {kind}]").as_bytes());
            end = hit.end();
            if end > limit {
                limit = limit_from(end);
            }
        }
        end
    }

    /// Where, from `from` on, the first pattern begins that the bytes end within.
    fn first_partial_match(&self, bytes: &[u8], from: usize) -> usize {
        let tail = (bytes.len() + 1).saturating_sub(self.longest).max(from);
        let is_beginning = |start: &usize| {
            let tail = &bytes[*start..];
            if let [first, second, ..] = tail
                && !self.beginnings[pair(*first, *second)]
            {
                return false;
            }
            let index = self.patterns.partition_point(|pattern| pattern.as_bytes() <= tail);
            self.patterns.get(index).is_some_and(|pattern| pattern.as_bytes().starts_with(tail))
        };
        (tail..bytes.len()).find(is_beginning).unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests;
