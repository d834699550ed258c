//! Settings of the docker backend.

use std::fmt;

use orchestrator_contract::containers::AGENT_UID;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Error;
use crate::task::image::ImageReference;

/// Settings of runs in docker or podman containers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSettings {
    /// Engine socket as `unix:///path` (default: `DOCKER_HOST`, else the first existing well-known
    /// socket).
    pub host: Option<String>,
    /// Image of the supervisor, and of the agent of services without their own `image` (default:
    /// `orchestrator/agent` of this version).
    pub image: Option<ImageReference>,
    /// Memory limit of the agent, and of the verify commands, such as `512m` (default: `4g`).
    pub memory: Option<Memory>,
    /// CPU limit of the agent, and of the verify commands, such as `1.5` (default: all CPUs).
    pub cpus: Option<Cpus>,
    /// Process limit of the agent, and of the verify commands (default: 1024).
    pub pids: Option<u32>,
    /// Memory limit of the supervisor and its MCP servers (default: `1g`).
    pub supervisor_memory: Option<Memory>,
    /// Network of a run, or `host` for the host network (default: the engine's default network).
    pub network: Option<NetworkName>,
    /// User of the supervisor in its container, as `UID:GID` (default: `10001:0`, as in the image).
    pub user: Option<User>,
    /// User of the agent and of the verify commands, as `UID:0` (default: `10002:0`).
    pub agent_user: Option<User>,
}

impl DockerSettings {
    /// Returns the user of the supervisor.
    #[must_use]
    pub fn user(&self) -> User {
        self.user.unwrap_or(User::DEFAULT)
    }

    /// Returns the user of the agent and of the verify commands.
    #[must_use]
    pub fn agent_user(&self) -> User {
        self.agent_user.unwrap_or(User::AGENT)
    }

    /// Checks that the agent can write its volumes, and no file of the supervisor.
    ///
    /// # Errors
    /// Returns an error if the users do not fit together.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let (user, agent) = (self.user(), self.agent_user());
        if user.uid == agent.uid {
            return Err(Error::configuration(format!(
                "`user` and `agent_user` in [docker] have the same uid {}: the agent could signal and trace the \
                 supervisor's programs",
                user.uid
            ))
            .with_hint(format!("Set another one, such as `agent_user = \"{}:0\"`.", user.uid + 1)));
        }
        if agent.gid != 0 {
            return Err(Error::configuration(format!(
                "`agent_user = \"{agent}\"` in [docker] has a group that cannot write the workspace"
            ))
            .with_hint(format!("Use group 0: `agent_user = \"{}:0\"`.", agent.uid)));
        }
        Ok(())
    }
}

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Memory(u64);

/// Minimum memory of a run: the supervisor and the Claude Code CLI alone need this much.
const MEMORY_MIN: u64 = 256 << 20;

impl Memory {
    /// Memory of a run by default: enough to build a medium-sized project.
    pub const DEFAULT: Self = Self(4 << 30);

    /// Memory of a supervisor by default: git and a few MCP servers.
    pub const SUPERVISOR: Self = Self(1 << 30);

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
        let invalid =
            || format!("`{text}` is not a valid memory size: use a number with `m` or `g`, such as `4g`");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1 << 10,
            "m" | "mb" => 1 << 20,
            "g" | "gb" => 1 << 30,
            _ => return Err(invalid()),
        };
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        let bytes =
            number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(invalid)?;
        if bytes < MEMORY_MIN {
            return Err(format!("`{text}` is too little memory for a run: use 256m or more"));
        }
        Ok(Self(bytes))
    }
}

/// A CPU limit, in CPUs.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(try_from = "f64")]
#[schemars(with = "f64")]
pub struct Cpus(f64);

impl Cpus {
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
            Err(format!("{number} is not a valid number of CPUs"))
        }
    }
}

/// The name of a container network.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct NetworkName(String);

impl NetworkName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NetworkName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        // `container:` would share another container's network namespace, including its loopback.
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
            Ok(Self(text))
        } else {
            Err(format!("invalid network name `{text}`"))
        }
    }
}

/// A numeric user and group id.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The user of the agent image.
    pub const DEFAULT: Self = Self { uid: 10001, gid: 0 };

    /// The user of untrusted programs.
    pub const AGENT: Self = Self { uid: AGENT_UID, gid: 0 };
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
                Err("uid 0 is not allowed: runs must not be root in their container".to_owned())
            }
            Some(user) => Ok(user),
            None => Err(format!("invalid user `{text}`: use two numbers, such as `10001:0`")),
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
    fn agent_user_must_be_another_user_of_group_zero() {
        let user = |text: &str| Some(User::try_from(text.to_owned()).unwrap());
        let check = |supervisor: Option<User>, agent: Option<User>| {
            DockerSettings { user: supervisor, agent_user: agent, ..DockerSettings::default() }.validate()
        };
        assert!(check(None, None).is_ok());
        assert!(check(user("1000:1000"), user("1001:0")).is_ok());
        for (supervisor, agent, expected) in [
            (None, user("10001:0"), "same uid 10001"),
            (user("10002:0"), None, "same uid 10002"),
            (user("7:0"), user("7:5"), "same uid 7"),
            (None, user("10002:5"), "cannot write the workspace"),
        ] {
            let problem = check(supervisor, agent).unwrap_err();
            assert_eq!(problem.exit_code(), 78);
            assert!(problem.message().contains(expected), "{problem}");
        }
    }

    #[test]
    fn container_network_of_other_container_is_rejected() {
        let network = |text: &str| NetworkName::try_from(text.to_owned()).is_ok();
        assert!(network("host") && network("none") && network("my_net.1"));
        assert!(!network("container:x") && !network("") && !network("-x") && !network("a b"));
    }
}
