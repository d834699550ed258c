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
        assert!(stream.held() < redactor.matcher().longest.max(1), "more is held back than is needed");
    }
    text.extend(stream.finish());
    text
}

#[test]
fn text_without_a_secret_is_passed_through_without_a_copy() {
    let redactor = redactor();
    assert!(matches!(redactor.redact("nothing to see"), Cow::Borrowed(_)));
    assert!(matches!(redactor.stream().push(b"nothing to see"), Cow::Borrowed(_)));
}

#[test]
fn a_secret_is_masked_by_its_label() {
    let text = format!("push with {TOKEN} failed, {TOKEN}");
    assert_eq!(redactor().redact(&text), "push with [redacted github token] failed, [redacted github token]");
}

#[test]
fn every_form_of_a_secret_is_found() {
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
fn basic_authentication_is_masked_as_a_whole() {
    let header = format!("Authorization: Basic {}", STANDARD.encode(format!("x-access-token:{TOKEN}")));
    assert_eq!(redactor().redact(&header), "Authorization: Basic [redacted github token]");
}

#[test]
fn a_long_secret_is_found_in_wrapped_base64() {
    let token = format!("github_pat_{}", "A1b2C3d4E5".repeat(8));
    let redactor = Redactor::new(Secrets::new().with("token", token.clone().into()));
    let encoded = STANDARD.encode(&token);
    for line in encoded.as_bytes().chunks(76) {
        assert!(redactor.find(line).is_some());
    }
}

#[test]
fn a_key_file_is_masked_line_by_line() {
    let line = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW";
    let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n-----END OPENSSH PRIVATE KEY-----\n");
    let redactor = Redactor::new(Secrets::new().with("ssh key", key.clone().into()));
    assert_eq!(redactor.redact(line), "[redacted ssh key]");
    assert!(!redactor.redact(&key).contains(line));
    assert!(!redactor.redact(&STANDARD.encode(&key)).contains(&STANDARD.encode(line)[4..60]));
}

#[test]
fn short_values_are_left_alone() {
    let redactor = Redactor::new(Secrets::new().with("pin", "1234567".into()).with("none", "".into()));
    assert_eq!(redactor.redact("1234567"), "1234567");
}

#[test]
fn a_secret_that_is_added_later_is_masked_by_every_clone_and_stream() {
    let redactor = redactor();
    let mut stream = redactor.clone().stream();
    assert_eq!(&*stream.push(b"rotated-value."), b"rotated-value.");
    redactor.add("new token", "rotated-value".into());
    assert_eq!(&*stream.push(b"a rotated-value."), b"a [redacted new token].");
}

#[test]
fn the_longer_of_two_secrets_with_the_same_beginning_is_masked() {
    let redactor =
        Redactor::new(Secrets::new().with("short", "abcdefgh".into()).with("long", "abcdefghijkl".into()));
    let chunks = [b"abcdefgh".to_vec(), b"ijkl abcdefgh".to_vec(), b"X".to_vec()];
    assert_eq!(whole(&redactor, &chunks), b"[redacted long] [redacted short]X");
}

#[test]
fn only_what_could_begin_a_secret_is_held_back() {
    let mut stream = redactor().stream();
    assert_eq!(&*stream.push(b"line\nghp_16C7"), b"line\n");
    assert_eq!(stream.held(), 8);
    assert_eq!(&*stream.push(b"!\n"), b"ghp_16C7!\n");
    assert_eq!(stream.held(), 0);
}

#[test]
fn bytes_that_are_no_text_are_passed_through() {
    let mut bytes = vec![0, 159, 146, 150];
    bytes.extend_from_slice(TOKEN.as_bytes());
    bytes.push(255);
    let masked = redactor().redact_bytes(&bytes).into_owned();
    assert_eq!(masked, [&[0, 159, 146, 150][..], b"[redacted github token]", &[255]].concat());
}

/// Pieces that make overlaps, near misses and hits likely.
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
    fn a_stream_gives_what_the_whole_would(
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
        let mut begin = 0;
        for border in borders {
            chunks.push(text[begin..border].to_vec());
            begin = border;
        }
        chunks.push(text[begin..].to_vec());
        prop_assert_eq!(whole(&redactor, &chunks), redactor.redact_bytes(&text).into_owned());
    }

    #[test]
    fn a_secret_inside_any_base64_is_found(before in ".{0,9}", after in ".{0,9}") {
        let redactor = redactor();
        let text = format!("{before}{TOKEN}{after}");
        prop_assert!(redactor.find(STANDARD.encode(&text).as_bytes()).is_some());
        prop_assert!(redactor.find(URL_SAFE_NO_PAD.encode(&text).as_bytes()).is_some());
    }
}
