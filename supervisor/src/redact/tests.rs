use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
const ODD: &str = "p&ss \"wörd\"/with\\ödd+=chars";

fn redactor() -> Redactor {
    Redactor::new(Secrets::new().with("github token", TOKEN.into()).with("password", ODD.into()))
}

fn whole(redactor: &Redactor, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut text = Vec::new();
    for chunk in chunks {
        text.extend_from_slice(&stream.push(chunk));
        assert!(stream.pending_len() < redactor.matcher().longest.max(1), "too many bytes are pending");
    }
    text.extend(stream.finish());
    text
}

#[test]
fn text_without_secret_is_not_copied() {
    let redactor = redactor();
    assert!(matches!(redactor.redact("nothing to see"), Cow::Borrowed(_)));
    assert!(matches!(redactor.stream().push(b"nothing to see"), Cow::Borrowed(_)));
}

#[test]
fn secret_is_masked_with_its_label() {
    let text = format!("push with {TOKEN} failed, {TOKEN}");
    assert_eq!(redactor().redact(&text), "push with [redacted github token] failed, [redacted github token]");
}

#[test]
fn encoded_forms_of_secret_are_found() {
    let redactor = redactor();
    for value in [TOKEN, ODD] {
        let json = serde_json::Value::from(value).to_string();
        let forms = [
            value.to_owned(),
            json.clone(),
            serde_json::Value::from(json.as_str()).to_string(),
            STANDARD.encode(value),
            URL_SAFE_NO_PAD.encode(value),
            STANDARD.encode(format!("{value}\n")),
            STANDARD.encode(format!("x-access-token:{value}")),
            value.bytes().map(|byte| format!("{byte:02x}")).collect(),
            value.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ];
        for form in forms {
            assert!(redactor.find(form.as_bytes()).is_some(), "{form}");
            assert!(!redactor.redact(&form).contains(value), "{form}");
        }
    }
    let encoded = "p%26ss%20%22w%C3%B6rd%22%2Fwith%5C%C3%B6dd%2B%3Dchars";
    assert_eq!(redactor.redact(encoded), "[redacted password]");
    assert_eq!(redactor.redact(&encoded.to_lowercase()), "[redacted password]");
    assert_eq!(redactor.redact(&encoded.replace("%20", "+")), "[redacted password]");
}

#[test]
fn basic_auth_header_is_masked_entirely() {
    let header = format!("Authorization: Basic {}", STANDARD.encode(format!("x-access-token:{TOKEN}")));
    assert_eq!(redactor().redact(&header), "Authorization: Basic [redacted github token]");
}

#[test]
fn long_secret_in_wrapped_base64_is_found() {
    let token = format!("github_pat_{}", "A1b2C3d4E5".repeat(8));
    let redactor = Redactor::new(Secrets::new().with("token", token.clone().into()));
    let encoded = STANDARD.encode(&token);
    for line in encoded.as_bytes().chunks(76) {
        assert!(redactor.find(line).is_some());
    }
}

#[test]
fn key_file_is_masked_per_line() {
    let line = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW";
    let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n-----END OPENSSH PRIVATE KEY-----\n");
    let redactor = Redactor::new(Secrets::new().with("ssh key", key.clone().into()));
    assert_eq!(redactor.redact(line), "[redacted ssh key]");
    assert!(!redactor.redact(&key).contains(line));
    assert!(!redactor.redact(&STANDARD.encode(&key)).contains(&STANDARD.encode(line)[4..60]));
}

#[test]
fn short_secret_is_not_masked() {
    let redactor = Redactor::new(Secrets::new().with("pin", "1234567".into()).with("none", "".into()));
    assert_eq!(redactor.redact("1234567"), "1234567");
}

#[test]
fn secret_added_later_is_masked_by_existing_streams() {
    let redactor = redactor();
    let mut stream = redactor.clone().stream();
    assert_eq!(&*stream.push(b"rotated-value."), b"rotated-value.");
    redactor.add("new token", "rotated-value".into());
    assert_eq!(&*stream.push(b"a rotated-value."), b"a [redacted new token].");
}

#[test]
fn longest_of_secrets_with_common_prefix_is_masked() {
    let redactor =
        Redactor::new(Secrets::new().with("short", "abcdefgh".into()).with("long", "abcdefghijkl".into()));
    let chunks = [b"abcdefgh".to_vec(), b"ijkl abcdefgh".to_vec(), b"X".to_vec()];
    assert_eq!(whole(&redactor, &chunks), b"[redacted long] [redacted short]X");
}

#[test]
fn stream_buffers_only_possible_secret_prefix() {
    let mut stream = redactor().stream();
    assert_eq!(&*stream.push(b"line\nghp_16C7"), b"line\n");
    assert_eq!(stream.pending_len(), 8);
    assert_eq!(&*stream.push(b"!\n"), b"ghp_16C7!\n");
    assert_eq!(stream.pending_len(), 0);
}

#[test]
fn non_utf8_bytes_pass_through_unchanged() {
    let mut bytes = vec![0, 159, 146, 150];
    bytes.extend_from_slice(TOKEN.as_bytes());
    bytes.push(255);
    let masked = redactor().redact_bytes(&bytes).into_owned();
    assert_eq!(masked, [&[0, 159, 146, 150][..], b"[redacted github token]", &[255]].concat());
}

/// Generates pieces that make overlaps, near misses and matches likely.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("abcdefgh".to_owned()),
        Just("abcdefghij".to_owned()),
        Just("abcdabcd".to_owned()),
        Just("cdabcdefg".to_owned()),
        Just(STANDARD.encode("abcdefghij")),
        "[a-j]{0,6}",
        ".{0,4}",
    ]
}

proptest! {
    #[test]
    fn stream_redaction_equals_whole_redaction(
        pieces in prop::collection::vec(piece(), 0..12),
        borders in prop::collection::vec(0usize..200, 0..12),
    ) {
        let secrets = Secrets::new()
            .with("one", "abcdefgh".into())
            .with("two", "abcdefghijab".into())
            .with("three", "cdabcdabcd".into());
        let redactor = Redactor::new(secrets);
        let text = pieces.concat().into_bytes();
        let mut borders: Vec<usize> = borders.into_iter().filter(|border| *border < text.len()).collect();
        borders.sort_unstable();
        let mut chunks = Vec::new();
        let mut start = 0;
        for border in borders {
            chunks.push(text[start..border].to_vec());
            start = border;
        }
        chunks.push(text[start..].to_vec());
        prop_assert_eq!(whole(&redactor, &chunks), redactor.redact_bytes(&text).into_owned());
    }

    #[test]
    fn secret_at_any_base64_offset_is_found(before in ".{0,9}", after in ".{0,9}") {
        let redactor = redactor();
        let text = format!("{before}{TOKEN}{after}");
        prop_assert!(redactor.find(STANDARD.encode(&text).as_bytes()).is_some());
        prop_assert!(redactor.find(URL_SAFE_NO_PAD.encode(&text).as_bytes()).is_some());
    }
}
