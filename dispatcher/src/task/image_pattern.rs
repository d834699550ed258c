//! Patterns of container images that an operator allows.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::image::ImageReference;

/// A pattern of container images.
///
/// | pattern | matches |
/// |---|---|
/// | `ghcr.io/acme/*` | every image below `ghcr.io/acme/`, at any depth, with any tag or digest |
/// | `ghcr.io/acme/agent` | this image, with any tag or digest |
/// | `ghcr.io/acme/agent:1.4`, `ghcr.io/acme/agent@sha256:…` | exactly this reference |
///
/// `*` stands alone after the last slash. An image without a registry is one of `docker.io`, as for all
/// engines. A registry's port is part of its name.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct ImagePattern {
    text: String,
    kind: PatternKind,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum PatternKind {
    /// All repositories of a registry whose path starts with `path`: empty, or with a slash at its end.
    Below { registry: String, path: String },
    /// One repository.
    Repository { registry: String, path: String },
    /// One reference.
    Exact(Address),
}

/// The parts of an image reference, with the registry that an engine would add.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Address {
    registry: String,
    path: String,
    /// Tag and digest, with their separators.
    version: String,
}

/// The registry of images that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Where [`DEFAULT_REGISTRY`] keeps repositories without a namespace.
const DEFAULT_NAMESPACE: &str = "library/";

impl ImagePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns a message with valid examples.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        let parsed = match text.strip_suffix('*') {
            // The letter stands for any repository.
            Some(prefix) if prefix.ends_with('/') => {
                ImageReference::new(format!("{prefix}x")).ok().map(|any| {
                    let (registry, path) = split_registry(any.as_str());
                    PatternKind::Below { registry, path: path.strip_suffix('x').unwrap_or(path).to_owned() }
                })
            }
            Some(_) => None,
            None => ImageReference::new(&text).ok().map(|image| {
                let address = Address::of(&image);
                if address.version.is_empty() {
                    let Address { registry, path, version: _ } = address;
                    PatternKind::Repository { registry, path }
                } else {
                    PatternKind::Exact(address)
                }
            }),
        };
        match parsed {
            Some(kind) => Ok(Self { text, kind }),
            None => Err(format!(
                "invalid image pattern `{text}`: use a prefix such as `ghcr.io/acme/*`, or an image such as \
                 `ghcr.io/acme/agent`"
            )),
        }
    }

    /// Returns whether the pattern allows an image.
    #[must_use]
    pub fn matches(&self, image: &ImageReference) -> bool {
        let address = Address::of(image);
        match &self.kind {
            PatternKind::Below { registry, path } => {
                let below = address.path.strip_prefix(path.as_str());
                address.registry == *registry && below.is_some_and(|below| !below.is_empty())
            }
            PatternKind::Repository { registry, path } => {
                address.registry == *registry && address.path == *path
            }
            PatternKind::Exact(allowed) => address == *allowed,
        }
    }
}

impl Address {
    fn of(image: &ImageReference) -> Self {
        let (registry, rest) = split_registry(image.as_str());
        let name_end = rest.find([':', '@']).unwrap_or(rest.len());
        let (path, version) = rest.split_at(name_end);
        let namespace =
            if registry == DEFAULT_REGISTRY && !path.contains('/') { DEFAULT_NAMESPACE } else { "" };
        Self { path: format!("{namespace}{path}"), version: version.to_owned(), registry }
    }
}

/// Splits a valid reference into registry, in lower case, and the rest. As in
/// <https://github.com/distribution/reference>, the first component is a registry if it has a dot or a colon.
fn split_registry(reference: &str) -> (String, &str) {
    match reference.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (host.to_ascii_lowercase(), rest)
        }
        Some(_) | None => (DEFAULT_REGISTRY.to_owned(), reference),
    }
}

impl TryFrom<String> for ImagePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(text)
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
    const OTHER_DIGEST: &str = "sha256:0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

    #[track_caller]
    fn check(pattern: &str, allowed: &[&str], refused: &[&str]) {
        let parsed = ImagePattern::new(pattern).unwrap();
        assert_eq!(parsed.to_string(), pattern);
        let expand = |image: &str| image.replace("DIGEST", DIGEST).replace("OTHER", OTHER_DIGEST);
        for image in allowed {
            assert!(parsed.matches(&ImageReference::new(expand(image)).unwrap()), "{pattern} {image}");
        }
        for image in refused {
            assert!(!parsed.matches(&ImageReference::new(expand(image)).unwrap()), "{pattern} {image}");
        }
    }

    #[test]
    fn prefix_allows_only_images_below() {
        check(
            "ghcr.io/acme/*",
            &[
                "ghcr.io/acme/agent",
                "ghcr.io/acme/agent:1.4",
                "ghcr.io/acme/agent@DIGEST",
                "ghcr.io/acme/agent:1.4@DIGEST",
                "ghcr.io/acme/team/agent",
                "GHCR.io/acme/agent",
            ],
            &[
                "ghcr.io/acme",
                "ghcr.io/acme-evil/agent",
                "ghcr.io/acme2/agent",
                "ghcr.io/acme_evil/agent",
                "ghcr.io/acme.evil/agent",
                "ghcr.io/evil/acme/agent",
                "ghcr.io/evil/agent",
                "ghcr.io:443/acme/agent",
                "ghcr.io.evil.com/acme/agent",
                "evil.com/ghcr.io/acme/agent",
                "evilghcr.io/acme/agent",
                "docker.io/acme/agent",
                "acme/agent",
                "acme/agent:ghcr.io",
                "localhost/acme/agent",
                "localhost:5000/ghcr.io/acme/agent",
            ],
        );
        check(
            "registry.example.com:5000/*",
            &["registry.example.com:5000/agent:1", "registry.example.com:5000/a/b/c"],
            &["registry.example.com/agent", "registry.example.com:5001/agent", "agent"],
        );
        check("ghcr.io/*", &["ghcr.io/any/agent"], &["ghcr.io.evil.com/x", "docker.io/library/ghcr.io"]);
        check("localhost:5000/a/*", &["localhost:5000/a/b"], &["localhost:5000/ab/c", "localhost/a/b"]);
    }

    #[test]
    fn image_without_registry_is_of_docker_hub() {
        check(
            "acme/*",
            &["acme/agent", "docker.io/acme/agent:1"],
            &["ghcr.io/acme/agent", "agent", "acme", "localhost/acme/agent"],
        );
        check("library/*", &["ubuntu", "docker.io/ubuntu", "library/ubuntu:24.04"], &["acme/ubuntu"]);
        check("docker.io/*", &["ubuntu", "acme/agent"], &["index.docker.io/acme/agent", "ghcr.io/x"]);
        check("ubuntu", &["docker.io/library/ubuntu:24.04", "ubuntu"], &["ubuntu2", "acme/ubuntu"]);
        check("ubuntu:24.04", &["docker.io/library/ubuntu:24.04"], &["ubuntu", "ubuntu:24.10"]);
    }

    #[test]
    fn repository_allows_any_version_and_version_only_itself() {
        check(
            "ghcr.io/acme/agent",
            &["ghcr.io/acme/agent", "ghcr.io/acme/agent:evil", "ghcr.io/acme/agent@DIGEST"],
            &["ghcr.io/acme/agent2", "ghcr.io/acme/agent/x", "ghcr.io/acme/xagent", "ghcr.io/acme"],
        );
        check(
            "ghcr.io/acme/agent:1.4",
            &["ghcr.io/acme/agent:1.4"],
            // The digest decides what is pulled, whatever the tag.
            &[
                "ghcr.io/acme/agent",
                "ghcr.io/acme/agent:1.40",
                "ghcr.io/acme/agent:1.4@DIGEST",
                "ghcr.io/acme/agent@DIGEST",
            ],
        );
        check(
            &format!("ghcr.io/acme/agent@{DIGEST}"),
            &["ghcr.io/acme/agent@DIGEST"],
            &[
                "ghcr.io/acme/agent@OTHER",
                "ghcr.io/acme/agent:1.4@DIGEST",
                "ghcr.io/acme/agent",
                "ghcr.io/evil@DIGEST",
            ],
        );
    }

    #[test]
    fn ambiguous_image_pattern_is_rejected() {
        for text in [
            "",
            "*",
            "/*",
            "**",
            "ghcr.io/*/agent",
            "ghcr.io/acme*",
            "ghcr.io/acme/a*",
            "*.io/acme",
            "*/acme/*",
            "ghcr.io/acme/**",
            "ghcr.io/acme/*:1",
            "ghcr.io/acme/*@sha256:0a",
            "ghcr.io/acme:1/*",
            "ghcr.io//*",
            "ghcr.io/acme//*",
            "ghcr.io/../*",
            "ghcr.io/acme/../*",
            "https://ghcr.io/acme/*",
            "ghcr.io/Acme/*",
            "ghcr.io/acme /*",
            " ghcr.io/acme/*",
            "ghcr.io/acme/*\n",
            "ghcr.io:x/acme/*",
            "user@ghcr.io/acme/*",
            "ghcr.io/acme?/*",
            "^ghcr.io/.*$",
        ] {
            let error = ImagePattern::new(text).unwrap_err();
            assert!(error.contains("ghcr.io/acme/*"), "{text:?}: {error}");
        }
    }
}
