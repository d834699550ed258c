//! Container image references.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A reference to a container image, such as `ghcr.io/myorg/agent:1.4` or
/// `agent@sha256:…`.
///
/// The grammar is that of <https://github.com/distribution/reference>. Only the syntax is
/// checked; the backend finds out whether the image exists.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageReference(String);

/// Error for an invalid image reference.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid image reference `{0}`: {1}")]
pub struct InvalidImage(String, &'static str);

/// Maximum length of the repository name, without tag and digest.
const NAME_MAX: usize = 255;
/// Maximum length of a tag.
const TAG_MAX: usize = 128;

impl ImageReference {
    /// Parses a reference.
    ///
    /// # Errors
    /// Returns an error that names the invalid part.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidImage> {
        let text = text.into();
        match parse_reference(&text) {
            Ok(()) => Ok(Self(text)),
            Err(why) => Err(InvalidImage(text, why)),
        }
    }

    /// Returns the reference as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ImageReference {
    type Error = InvalidImage;

    fn try_from(text: String) -> Result<Self, InvalidImage> {
        Self::new(text)
    }
}

impl From<ImageReference> for String {
    fn from(image: ImageReference) -> Self {
        image.0
    }
}

impl std::str::FromStr for ImageReference {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_reference(text: &str) -> Result<(), &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon after the last slash starts a tag, one before it a port.
    let path_at = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[path_at..].split_once(':') {
        Some((last, tag)) => (&rest[..path_at + last.len()], Some(tag)),
        None => (rest, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("the digest must be `sha256:` and 64 lowercase hexadecimal digits");
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "the tag must have at most 128 letters, digits, `_`, `.` and `-`, and not start with `.` or `-`",
        );
    }
    if name.is_empty() || name.len() > NAME_MAX {
        return Err("the name must have 1 to 255 characters");
    }
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            if !is_host(host) {
                return Err("the registry host is invalid");
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("names must have lowercase letters and digits, separated by `.`, `_`, `__` or `-`")
    }
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= TAG_MAX
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_host(host: &str) -> bool {
    let (host, port) = host.split_once(':').unwrap_or((host, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.parse::<u16>().is_ok()
}

/// Returns whether a component is lowercase letters and digits with single separators.
fn is_path_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_with_words = component.starts_with(word) && component.ends_with(word);
    let separator = |text: &&str| {
        text.is_empty() || matches!(*text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-')
    };
    ends_with_words && component.split(word).all(|text| separator(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_reference_validation_matches_registries() {
        let digest = format!("agent@sha256:{}", "0a".repeat(32));
        for text in [
            "agent",
            "agent:1.4",
            "library/agent",
            "ghcr.io/myorg/agent:latest",
            "localhost:5000/a__b/c.d_e--f:V1_x",
            "registry.example.com:443/agent",
            &digest,
        ] {
            assert_eq!(ImageReference::new(text).map(|image| image.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "Agent",
            "a b",
            "agent:",
            "agent:.x",
            "agent@sha256:0a",
            "a//b",
            "/agent",
            "a.-b",
            "-rm",
            "https://x/y",
            "ghcr.io:x/agent",
            "agent:1:2",
            "a___b",
            "..",
            "agent\n",
            "$(id)",
        ] {
            assert!(ImageReference::new(text).is_err(), "{text:?}");
        }
    }
}
