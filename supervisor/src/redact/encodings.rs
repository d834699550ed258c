//! The encoded forms of a secret.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Minimum length of a secret to redact; shorter ones would match unrelated text by chance.
pub const MIN_SECRET_BYTES: usize = 8;

/// Minimum length of a form of a secret that other characters may split.
const MIN_SPLIT_BYTES: usize = 10;

/// Minimum length of a line of a multi-line secret to redact.
const MIN_LINE_BYTES: usize = 16;

/// Line lengths of wrapped base64: base64(1) and PEM.
const BASE64_WRAP_COLUMNS: [usize; 2] = [76, 64];

/// Characters that percent-encoders keep beside letters and digits: RFC 3986 unreserved,
/// `encodeURIComponent`, `encodeURI`.
const UNESCAPED: [&[u8]; 3] = [b"-_.~", b"-_.~!*'()", b"-_.~!*'();,/?:@&=+$#"];

/// Returns every encoded form of a secret; empty if the secret is too short.
///
/// A multi-line secret, such as a key file, is matched line by line, because most output
/// is processed in lines. PEM boundaries (`-----BEGIN ...`) are not secret.
pub(super) fn encoded_forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    for line in secret_lines(value) {
        add_forms(&mut forms, line);
    }
    forms
}

/// Returns the forms of a secret that are found even if other characters split them.
///
/// Each is at least [`MIN_SPLIT_BYTES`] long, so that text does not match by chance.
pub(super) fn split_forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    for line in secret_lines(value) {
        let letters =
            line.bytes().filter(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte)).count();
        // What remains of other secrets is too little to recognize them.
        if letters * 4 >= line.len() * 3 && letters >= MIN_SPLIT_BYTES {
            forms.insert(line.to_owned());
        }
        add_base64_within(&mut forms, line.as_bytes());
        add_base32_within(&mut forms, line.as_bytes());
    }
    forms.retain(|form| form.len() >= MIN_SPLIT_BYTES);
    forms
}

/// Returns the lines of a secret that are secret; none if it is too short.
fn secret_lines(value: &str) -> Vec<&str> {
    let value = value.trim();
    if value.contains('\n') {
        let lines = value.lines().map(str::trim);
        return lines.filter(|line| line.len() >= MIN_LINE_BYTES && !line.starts_with("-----")).collect();
    }
    if value.len() < MIN_SECRET_BYTES { Vec::new() } else { vec![value] }
}

/// Adds the base32 forms of the value within a longer text, for its five offsets.
fn add_base32_within(forms: &mut BTreeSet<String>, value: &[u8]) {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    for offset in 0..5 {
        let bits = (offset * 8..(offset + value.len()) * 8)
            .map(|bit| value.get(bit / 8 - offset).is_some_and(|byte| byte >> (7 - bit % 8) & 1 == 1));
        // Characters at the borders also encode bits of adjacent bytes.
        let skipped = (5 - offset * 8 % 5) % 5;
        let bits: Vec<bool> = bits.skip(skipped).collect();
        let characters = bits.chunks_exact(5).map(|five| {
            let index = five.iter().fold(0, |index, bit| index << 1 | usize::from(*bit));
            char::from(ALPHABET[index])
        });
        let upper: String = characters.collect();
        forms.insert(upper.to_lowercase());
        forms.insert(upper);
    }
}

fn add_forms(forms: &mut BTreeSet<String>, value: &str) {
    forms.insert(value.to_owned());
    add_base64(forms, value.as_bytes());
    for user in ["x-access-token", "oauth2"] {
        add_whole_base64(forms, format!("{user}:{value}").as_bytes());
    }
    for unescaped in UNESCAPED {
        forms.insert(percent_encoded(value, unescaped, "0123456789ABCDEF"));
        forms.insert(percent_encoded(value, unescaped, "0123456789abcdef"));
    }
    forms.insert(percent_encoded(value, UNESCAPED[0], "0123456789ABCDEF").replace("%20", "+"));
    add_json(forms, value);
    forms.insert(value.bytes().map(|byte| format!("{byte:02x}")).collect());
    forms.insert(value.bytes().map(|byte| format!("{byte:02X}")).collect());
}

/// Adds the base64 forms of the value alone and within a longer text.
///
/// Base64 encodes groups of three bytes, so the value can start at three offsets.
fn add_base64(forms: &mut BTreeSet<String>, value: &[u8]) {
    add_whole_base64(forms, value);
    add_base64_within(forms, value);
}

fn add_base64_within(forms: &mut BTreeSet<String>, value: &[u8]) {
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for offset in 0..3 {
            let mut text = vec![0; offset];
            text.extend_from_slice(value);
            let encoded = engine.encode(&text);
            // Characters at the borders also encode bits of adjacent bytes.
            let start = (offset * 8).div_ceil(6);
            let end = text.len() * 8 / 6;
            if let Some(core) = encoded.get(start..end) {
                forms.insert(core.to_owned());
            }
        }
    }
}

fn add_whole_base64(forms: &mut BTreeSet<String>, value: &[u8]) {
    for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        let encoded = engine.encode(value);
        for width in BASE64_WRAP_COLUMNS {
            let mut rest = encoded.as_str();
            while rest.len() > width && width >= MIN_LINE_BYTES {
                let (line, next) = rest.split_at(width);
                forms.insert(line.to_owned());
                rest = next;
            }
            if rest.len() >= MIN_LINE_BYTES {
                forms.insert(rest.to_owned());
            }
        }
        forms.insert(encoded);
    }
}

fn percent_encoded(value: &str, unescaped: &[u8], digits: &str) -> String {
    let digit = |index: u8| digits.as_bytes().get(usize::from(index)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_ascii_alphanumeric()
            || (character.is_ascii() && unescaped.contains(&(character as u8)))
        {
            text.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}

/// Adds the JSON-escaped forms of different encoders, and the same escaped twice.
fn add_json(forms: &mut BTreeSet<String>, value: &str) {
    let plain = json_escaped(value);
    let ascii = ascii_only(&plain);
    for form in [plain.replace('/', "\\/"), ascii.replace('/', "\\/"), plain, ascii] {
        forms.insert(json_escaped(&form));
        forms.insert(form);
    }
}

fn json_escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

fn ascii_only(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            escaped.extend(units.into_iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}
