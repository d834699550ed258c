//! How runs in containers are run.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::task::image::ImageReference;

/// How runs in containers of docker or podman are run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSettings {
    /// The engine's socket, as `unix:///path`: `DOCKER_HOST` if not given, else the first of the usual
    /// ones that is there.
    pub host: Option<String>,
    /// The image of services that name none: `orchestrator/agent` of this version if not given.
    pub image: Option<ImageReference>,
    /// The memory of one run, such as `512m` or `4g`: `4g` if not given.
    pub memory: Option<Memory>,
    /// The processors of one run, such as `1.5`: all if not given.
    pub cpus: Option<Cpus>,
    /// The processes of one run: 1024 if not given.
    pub pids: Option<u32>,
    /// The network of runs: the engine's default if not given; `host` for the machine's own.
    pub network: Option<NetworkName>,
    /// Who runs are in their containers, as `UID:GID`: `10001:0`, the image's own, if not given.
    pub user: Option<User>,
}

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Memory(u64);

/// The least that is taken: the supervisor and the Claude Code CLI alone need that much.
const MEMORY_MIN: u64 = 256 << 20;

impl Memory {
    /// What a run gets if nobody says otherwise: a build of a middling project fits.
    pub const DEFAULT: Self = Self(4 << 30);

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
        match units.into_iter().find(|(unit, _)| self.0.is_multiple_of(*unit)) {
            Some((unit, letter)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Memory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no amount of memory: give a number with `m` or `g`, such as `4g`");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1 << 10,
            "m" | "mb" => 1 << 20,
            "g" | "gb" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes =
            number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(wrong)?;
        if bytes < MEMORY_MIN {
            return Err(format!("`{text}` is too little memory for a run: give 256m or more"));
        }
        Ok(Self(bytes))
    }
}

/// A share of the machine's processors.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(try_from = "f64")]
#[schemars(with = "f64")]
pub struct Cpus(f64);

impl Cpus {
    /// How many.
    #[must_use]
    pub fn number(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Cpus {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        if (0.01..=4096.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("{number} is no number of processors"))
        }
    }
}

/// The name of a container network.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct NetworkName(String);

impl NetworkName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NetworkName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        // `container:` would share another container's network, and with it its loopback.
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no name of a network"))
        }
    }
}

/// A user and a group by their numbers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl User {
    /// The user of the agent image.
    pub const DEFAULT: Self = Self { uid: 10001, gid: 0 };
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl TryFrom<String> for User {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number =
            |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let user =
            text.split_once(':').and_then(|(uid, gid)| Some(Self { uid: number(uid)?, gid: number(gid)? }));
        match user {
            Some(Self { uid: 0, .. }) => {
                Err("a run is never root in its container: give another uid".to_owned())
            }
            Some(user) => Ok(user),
            None => Err(format!("`{text}` is no user: give two numbers, as in `10001:0`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &str) -> Result<Memory, String> {
        Memory::try_from(text.to_owned())
    }

    #[test]
    fn memory_limit_parses_like_container_engines() {
        for (text, bytes, shown) in [
            ("4g", 4 << 30, "4g"),
            ("512m", 512 << 20, "512m"),
            ("1536M", 1536 << 20, "1536m"),
            ("2GB", 2 << 30, "2g"),
            ("1048576k", 1 << 30, "1g"),
        ] {
            let memory = memory(text).unwrap();
            assert_eq!((memory.bytes(), memory.to_string().as_str()), (bytes, shown));
        }
        for text in ["", "g", "4x", "-1g", "1.5g", "99999999999g", "4 g", "100m", "0"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn container_user_must_be_numeric_non_root() {
        let user = |text: &str| User::try_from(text.to_owned()).map(|user| user.to_string());
        assert_eq!(user("10001:0"), Ok("10001:0".to_owned()));
        for text in ["0:0", "0:5", "agent", "1000", "1:", ":1", "+1:1", "1:-1", "1:1:1"] {
            assert!(user(text).is_err(), "{text}");
        }
    }

    #[test]
    fn container_network_of_other_container_is_rejected() {
        let network = |text: &str| NetworkName::try_from(text.to_owned()).is_ok();
        assert!(network("host") && network("none") && network("my_net.1"));
        assert!(!network("container:x") && !network("") && !network("-x") && !network("a b"));
    }
}
