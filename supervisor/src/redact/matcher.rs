//! Finds secrets, tokens and packed data in bytes, without decoding them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use secrecy::ExposeSecret as _;

use super::base64_runs::is_operator;
use super::encodings;
use super::hit::{Hit, SecretKind};
use super::packed::{Format, MAGICS};
use super::secrets::Secrets;
use super::shapes;

/// Maximum total size of patterns for a DFA, which needs about 250 bytes of memory per byte.
const DFA_MAX_PATTERN_BYTES: usize = 64 * 1024;

/// Bytes of text whose letters and digits are joined at a time, see [`Matcher::find_split`].
const WINDOW_BYTES: usize = 256 * 1024;

/// Bytes that two such windows have in common: the longest secret with what splits it.
const OVERLAP_BYTES: usize = 16 * 1024;

/// What [`Matcher::find`] finds.
pub(super) enum Found {
    Secret(Hit),
    /// Possible start of packed data.
    Packed(Format, usize),
}

enum Pattern {
    Own(Arc<str>),
    /// Start of a token of a well-known form, by its index.
    Shape(usize),
    Packed(Format),
}

/// Matches every encoded form of every secret, tokens and packed data.
pub(super) struct Matcher {
    automaton: AhoCorasick,
    patterns: Vec<Pattern>,
    /// Matches letters and digits of secrets, `None` without secrets.
    split: Option<(AhoCorasick, Vec<Arc<str>>)>,
    /// Length of the longest form of a secret, in bytes.
    longest: usize,
}

impl Matcher {
    pub(super) fn new(secrets: &Secrets) -> Self {
        let mut own: BTreeMap<Vec<u8>, Arc<str>> = BTreeMap::new();
        let mut split: BTreeMap<Vec<u8>, Arc<str>> = BTreeMap::new();
        for (kind, value) in secrets.iter() {
            let kind: Arc<str> = kind.into();
            // If two secrets have the same form, the label of the first is used.
            for form in encodings::encoded_forms(value.expose_secret()) {
                own.entry(form.into_bytes()).or_insert_with(|| Arc::clone(&kind));
            }
            for form in encodings::split_forms(value.expose_secret()) {
                let form = form.bytes().filter_map(letter).collect();
                split.entry(form).or_insert_with(|| Arc::clone(&kind));
            }
        }
        let longest = own.keys().map(Vec::len).max().unwrap_or_default();
        let mut texts: Vec<Vec<u8>> = Vec::new();
        let mut patterns = Vec::new();
        for (form, kind) in own {
            texts.push(form);
            patterns.push(Pattern::Own(kind));
        }
        for (index, start) in shapes::starts() {
            texts.push(start.as_bytes().to_vec());
            patterns.push(Pattern::Shape(index));
        }
        for (format, magic) in MAGICS {
            texts.push(magic.to_vec());
            patterns.push(Pattern::Packed(format));
        }
        let split = (!split.is_empty()).then(|| {
            let (texts, kinds): (Vec<_>, Vec<_>) = split.into_iter().unzip();
            (automaton(&texts), kinds)
        });
        Self { automaton: automaton(&texts), patterns, split, longest }
    }

    /// Returns the length of the longest form of a secret, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `on_found` for each secret, token and possible start of packed data.
    pub(super) fn find(&self, bytes: &[u8], mut on_found: impl FnMut(Found)) {
        for found in self.automaton.find_overlapping_iter(bytes) {
            match self.patterns.get(found.pattern().as_usize()) {
                Some(Pattern::Own(kind)) => {
                    let kind = SecretKind::Own(Arc::clone(kind));
                    on_found(Found::Secret(Hit { range: found.range(), kind }));
                }
                Some(Pattern::Shape(index)) => {
                    if let Some((kind, range)) = shapes::token_at(*index, bytes, found.start()) {
                        on_found(Found::Secret(Hit { range, kind: SecretKind::Known(kind) }));
                    }
                }
                Some(Pattern::Packed(format)) => on_found(Found::Packed(*format, found.start())),
                None => {}
            }
        }
    }

    /// Calls `on_found` for each secret that is split by spaces, quotes, line breaks and the like.
    ///
    /// Only letters and digits count, and the characters of base64.
    pub(super) fn find_split(&self, bytes: &[u8], mut on_found: impl FnMut(Hit)) {
        let Some((automaton, kinds)) = &self.split else { return };
        let mut joined = Vec::with_capacity(bytes.len().min(WINDOW_BYTES + OVERLAP_BYTES));
        let mut start = 0;
        while start < bytes.len() {
            let end = bytes.len().min(start + WINDOW_BYTES + OVERLAP_BYTES);
            let window = &bytes[start..end];
            joined.clear();
            joined.extend(letters(window).map(|(_, letter)| letter));
            let mut places: Vec<usize> = Vec::new();
            for found in automaton.find_overlapping_iter(&joined) {
                if places.is_empty() {
                    places = letters(window).map(|(at, _)| at).collect();
                }
                let place = |index: usize| places.get(index).copied().unwrap_or(window.len());
                let Some(kind) = kinds.get(found.pattern().as_usize()) else { continue };
                let range = start + place(found.start())..start + place(found.end() - 1) + 1;
                on_found(Hit { range, kind: SecretKind::Own(Arc::clone(kind)) });
            }
            if end == bytes.len() {
                break;
            }
            start += WINDOW_BYTES;
        }
    }
}

/// Returns the letters of a text with their places.
fn letters(window: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let is_letter = |(at, byte): (usize, &u8)| {
        Some((at, letter(*byte)?)).filter(|(at, letter)| *letter != b'+' || !is_operator(window, *at))
    };
    window.iter().enumerate().filter_map(is_letter)
}

/// Returns a letter, digit or character of base64, the same for both alphabets.
fn letter(byte: u8) -> Option<u8> {
    let letter = LETTERS[usize::from(byte)];
    (letter != 0).then_some(letter)
}

/// Letter of each byte, 0 for the others.
const LETTERS: [u8; 256] = {
    let mut letters = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            letters[byte] = byte as u8;
        }
        byte += 1;
    }
    letters[b'+' as usize] = b'+';
    letters[b'-' as usize] = b'+';
    letters[b'/' as usize] = b'/';
    letters[b'_' as usize] = b'/';
    letters
};

fn automaton(patterns: &[Vec<u8>]) -> AhoCorasick {
    let total: usize = patterns.iter().map(Vec::len).sum();
    let kind = (total <= DFA_MAX_PATTERN_BYTES).then_some(AhoCorasickKind::DFA);
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(kind)
        .build(patterns)
        .expect("a few secrets have far fewer patterns than the automaton limit")
}
