//! Finds and redacts secrets in text, streams and objects: those of this run, and tokens of
//! well-known forms. Decodes what it is given, see [`scan`]. Pure.
//!
//! Values shorter than [`MIN_SECRET_BYTES`] are not redacted: they would match by chance.
//! A match becomes `[redacted KIND]`.

mod base64_runs;
mod encodings;
mod escapes;
mod hit;
mod matcher;
mod numbers;
mod packed;
mod scan;
mod secrets;
mod shapes;
mod stream;
mod wide;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use secrecy::SecretString;
use serde_json::Value;

pub use encodings::MIN_SECRET_BYTES;
pub use hit::{Hit, Scan, SecretKind};
pub use secrets::Secrets;

use matcher::Matcher;

/// Redacts secrets; clones share secrets that are added later.
#[derive(Clone)]
pub struct Redactor {
    shared: Arc<RwLock<Shared>>,
}

/// Omits the patterns, which contain the secrets.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
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
        if shared.secrets.add(kind.into(), value) {
            shared.matcher = Arc::new(Matcher::new(&shared.secrets));
        }
    }

    /// Scans bytes for secrets, encoded or not, and says what it cannot read.
    #[must_use]
    pub fn scan(&self, bytes: &[u8]) -> Scan {
        scan::scan(&self.matcher(), bytes, None)
    }

    /// Scans bytes like [`Self::scan`], but unpacks at most `extra` bytes beyond a multiple of them.
    #[must_use]
    pub fn scan_within(&self, bytes: &[u8], extra: u64) -> Scan {
        scan::scan(&self.matcher(), bytes, Some(extra))
    }

    /// Returns what a file is, by its name, if its content cannot be read.
    #[must_use]
    pub fn unreadable(path: &[u8]) -> Option<&'static str> {
        packed::opaque_name(path)
    }

    /// Returns the text with all secrets redacted.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Returns the bytes with all secrets redacted.
    #[must_use]
    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let hits = self.scan(bytes).hits;
        if hits.is_empty() { Cow::Borrowed(bytes) } else { Cow::Owned(hit::mask(bytes, hits)) }
    }

    /// Redacts all texts in a JSON value, keys too, so that the result is still JSON.
    pub fn redact_json(&self, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => {
                if let Cow::Owned(redacted) = self.redact(text) {
                    *text = redacted;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                for name in names {
                    if let Cow::Owned(redacted) = self.redact(&name)
                        && let Some(field) = fields.remove(&name)
                    {
                        fields.insert(redacted, field);
                    }
                }
                fields.values_mut().for_each(|field| self.redact_json(field));
            }
        }
    }

    /// Returns a JSON document with all secrets in its texts redacted.
    #[must_use]
    pub fn redact_document(&self, json: Vec<u8>) -> Vec<u8> {
        if self.scan(&json).hits.is_empty() {
            return json;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&json) else {
            return self.redact_bytes(&json).into_owned();
        };
        self.redact_json(&mut value);
        let is_indented = json.starts_with(b"{\n");
        let redacted =
            if is_indented { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
        redacted.unwrap_or_default()
    }

    /// Returns the label of a secret of this run in these bytes.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        self.scan(bytes).kinds().into_iter().find_map(|kind| match kind {
            SecretKind::Own(label) => Some(label.to_string()),
            SecretKind::Known(_) => None,
        })
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

/// Redacts secrets in a stream of lines that arrives in chunks of any size.
///
/// Buffers the last line until it is complete, and lines that the next one may continue.
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
    /// Adds a chunk and returns the lines that later chunks cannot change, redacted.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        // A chunk without a line feed completes nothing.
        self.pending.extend_from_slice(chunk);
        let settled = if chunk.contains(&b'\n') { stream::settled(&self.pending) } else { 0 };
        let mut redacted = Vec::new();
        if settled > 0 {
            let lines: Vec<u8> = self.pending.drain(..settled).collect();
            redacted = self.redact_lines(&lines);
        }
        if self.pending.len() > stream::MAX_PENDING {
            redacted.extend(self.push_part());
        }
        redacted
    }

    /// Redacts the start of a line that is too long to wait for.
    fn push_part(&mut self) -> Vec<u8> {
        let mut hits = self.redactor.scan(&self.pending).hits;
        let mut end = self.pending.len().saturating_sub(stream::KEPT);
        hits.sort_by_key(|hit| hit.range.start);
        hits.retain(|hit| {
            let is_before = hit.range.start < end;
            if is_before {
                end = end.max(hit.range.end);
            }
            is_before
        });
        let part: Vec<u8> = self.pending.drain(..end).collect();
        hit::mask(&part, hits)
    }

    /// Redacts complete lines. A line that is JSON stays JSON.
    fn redact_lines(&self, lines: &[u8]) -> Vec<u8> {
        if self.redactor.scan(lines).hits.is_empty() {
            return lines.to_vec();
        }
        let mut redacted = Vec::with_capacity(lines.len());
        let mut plain = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let value = if line.starts_with(b"{") { serde_json::from_slice(line).ok() } else { None };
            let Some(mut value) = value else {
                plain.extend_from_slice(line);
                continue;
            };
            redacted.extend_from_slice(&self.redactor.redact_bytes(&std::mem::take(&mut plain)));
            if self.redactor.scan(line).hits.is_empty() {
                redacted.extend_from_slice(line);
                continue;
            }
            self.redactor.redact_json(&mut value);
            let text = value.to_string().into_bytes();
            // Numbers can be a secret too; such a line is JSON no more.
            redacted.extend_from_slice(&self.redactor.redact_bytes(&text));
            redacted.extend(line.last().filter(|byte| **byte == b'\n'));
        }
        redacted.extend_from_slice(&self.redactor.redact_bytes(&plain));
        redacted
    }

    /// Returns the pending bytes at the end of the stream, redacted.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.redact_lines(&self.pending)
    }

    /// Returns the number of pending bytes.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests;
