//! Scans bytes for secrets, also in everything that they decode or unpack to.
//!
//! Decodes what tools produce, in any combination up to [`MAX_DEPTH`]: base64, hexadecimal, dumps,
//! lists of numbers, escape sequences, wide characters, gzip, zlib and zip. Says what it cannot read.

use std::collections::BTreeSet;
use std::ops::Range;

use super::hit::{Hit, Scan};
use super::matcher::{Found, Matcher};
use super::packed::{self, Format};
use super::{base64_runs, escapes, numbers, wide};

/// Maximum levels of encoding.
const MAX_DEPTH: usize = 8;

/// Bytes that are decoded for each byte of input, at most, and in addition.
const DECODED_PER_BYTE: u64 = 32;
const DECODED_EXTRA: u64 = 128 * 1024 * 1024;

/// Minimum bytes to scan; shorter texts hold no secret.
const MIN_BYTES: usize = 8;

const TOO_MUCH: &str = "more data than is unpacked";
const TOO_DEEP: &str = "data that is encoded too many times";
const CUT: &str = "large packed data inside packed data";

/// Scans bytes; `extra` limits the bytes that are unpacked beyond a multiple of the input.
pub(super) fn scan(matcher: &Matcher, bytes: &[u8], extra: Option<u64>) -> Scan {
    let allowed = (bytes.len() as u64).saturating_mul(DECODED_PER_BYTE);
    let allowed = allowed.saturating_add(extra.unwrap_or(DECODED_EXTRA).min(DECODED_EXTRA));
    let mut scanner = Scanner { matcher, left: allowed, unread: BTreeSet::new(), is_cut: false };
    let hits = scanner.layer(bytes, 0);
    Scan { hits, unread: scanner.unread, decoded: allowed - scanner.left }
}

struct Scanner<'m> {
    matcher: &'m Matcher,
    /// Bytes that may still be decoded.
    left: u64,
    unread: BTreeSet<&'static str>,
    /// Whether the current bytes are a window, so that packed data in them can be cut.
    is_cut: bool,
}

impl Scanner<'_> {
    /// Returns the secrets in one layer and in those below it, by their ranges in this layer.
    fn layer(&mut self, bytes: &[u8], depth: usize) -> Vec<Hit> {
        let mut hits = Vec::new();
        if bytes.len() < MIN_BYTES {
            return hits;
        }
        self.unread.extend(packed::opaque(bytes));
        let mut starts = Vec::new();
        self.matcher.find(bytes, |found| match found {
            Found::Secret(hit) => hits.push(hit),
            Found::Packed(format, at) => starts.push((format, at)),
        });
        self.matcher.find_split(bytes, |hit| hits.push(hit));
        self.unpack(bytes, depth, &starts, &mut hits);
        for decoder in [
            base64_runs::decode,
            numbers::hexadecimal,
            numbers::dumps,
            numbers::decimal,
            wide::decode as fn(&[u8], &mut dyn FnMut(Range<usize>, &[u8])),
        ] {
            decoder(bytes, &mut |range, decoded| self.encoded(range, decoded, depth, &mut hits));
        }
        escapes::decode(bytes, self.matcher.longest(), &mut |part| {
            if self.may_decode(part.text.len(), depth) {
                let inner = self.layer(&part.text, depth + 1);
                hits.extend(inner.into_iter().map(|hit| Hit { range: part.source(&hit.range), ..hit }));
            }
        });
        hits
    }

    /// Scans what a range decodes to; a secret in it is reported for the whole range.
    fn encoded(&mut self, range: Range<usize>, decoded: &[u8], depth: usize, hits: &mut Vec<Hit>) {
        if !self.may_decode(decoded.len(), depth) {
            return;
        }
        let kinds: BTreeSet<_> = self.layer(decoded, depth + 1).into_iter().map(|hit| hit.kind).collect();
        hits.extend(kinds.into_iter().map(|kind| Hit { range: range.clone(), kind }));
    }

    fn unpack(&mut self, bytes: &[u8], depth: usize, starts: &[(Format, usize)], hits: &mut Vec<Hit>) {
        let mut done = 0;
        for (format, at) in starts {
            if *at < done {
                continue;
            }
            let Some(rest) = bytes.get(*at..) else { continue };
            let mut kinds = BTreeSet::new();
            let outer_is_cut = self.is_cut;
            let unpacked = packed::unpack(*format, rest, &mut |window, more| {
                if !self.may_decode(window.len(), depth) {
                    return false;
                }
                self.is_cut = outer_is_cut || more;
                kinds.extend(self.layer(window, depth + 1).into_iter().map(|hit| hit.kind));
                true
            });
            self.is_cut = outer_is_cut;
            self.unread.extend(unpacked.unread);
            if unpacked.complete && unpacked.read > 0 {
                done = at + unpacked.read;
            } else if outer_is_cut && unpacked.read == rest.len() {
                self.unread.insert(CUT);
            }
            let end = bytes.len().min(at + unpacked.read.max(1));
            hits.extend(kinds.into_iter().map(|kind| Hit { range: *at..end, kind }));
        }
    }

    /// Returns whether so many bytes may be decoded to the next layer.
    fn may_decode(&mut self, length: usize, depth: usize) -> bool {
        if depth >= MAX_DEPTH {
            self.unread.insert(TOO_DEEP);
            return false;
        }
        match self.left.checked_sub(length as u64) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.unread.insert(TOO_MUCH);
                false
            }
        }
    }
}
