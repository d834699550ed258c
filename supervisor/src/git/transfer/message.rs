//! Messages between the parent and the transfer process.

use std::path::PathBuf;

use git2::Oid;
use orchestrator_contract::Reason;
use serde::{Deserialize, Serialize};

use crate::tls::CertificatePaths;

/// Hidden subcommand that runs the supervisor as a transfer process.
pub const SUBCOMMAND: &str = "git-transfer";

/// Operation with its credentials and settings.
#[derive(Deserialize, Serialize)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) url: String,
    /// Not in arguments or environment, which other processes can read.
    pub(super) token: Option<String>,
    pub(super) username: Option<String>,
    pub(super) ssh_key: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) ssh_program: PathBuf,
    pub(super) proxy: Option<String>,
    pub(super) no_proxy: Option<String>,
    pub(super) certificates: CertificatePaths,
    pub(super) connect_seconds: f64,
    pub(super) read_seconds: f64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation {
    /// Lists the refs for a fetch.
    List,
    /// Lists the refs for a push, which proves that pushing is allowed.
    CheckPush,
    Fetch {
        repository: PathBuf,
        refspecs: Vec<String>,
        depth: Option<u32>,
    },
    Push {
        repository: PathBuf,
        reference: String,
        oid: String,
        expected: Option<String>,
    },
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The child is undumpable; the parent may send the request.
    Ready,
    Progress(Progress),
    Listed(RemoteRefs),
    Fetched(Fetched),
    Pushed(PushOutcome),
    Failed {
        reason: Reason,
        message: String,
    },
}

/// Progress of a transfer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// Bytes sent and received.
    pub bytes: u64,
    /// Objects received or sent.
    pub objects: u64,
    /// Objects to send or receive, as far as known.
    pub total: u64,
    /// Other steps: deltas resolved, objects packed, messages of the server.
    pub steps: u64,
}

/// Ref of a remote.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RemoteRef {
    /// Full name.
    pub name: String,
    /// Object that it points to.
    #[serde(with = "oid_text")]
    pub oid: Oid,
}

/// Refs of a remote.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RemoteRefs {
    /// Full name of the branch that `HEAD` points to, if the remote reports it.
    pub default_branch: Option<String>,
    /// All refs, without peeled tags.
    pub refs: Vec<RemoteRef>,
}

impl RemoteRefs {
    /// Returns the commit of a branch, given without `refs/heads/`.
    #[must_use]
    pub fn branch(&self, name: &str) -> Option<Oid> {
        let found =
            self.refs.iter().find(|reference| reference.name.strip_prefix("refs/heads/") == Some(name));
        found.map(|reference| reference.oid)
    }
}

/// Result of a fetch.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fetched {
    /// Bytes received.
    pub bytes: u64,
    /// Objects received.
    pub objects: u64,
    /// Refs of the remote.
    pub refs: Vec<RemoteRef>,
}

/// Result of a push.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PushOutcome {
    /// The remote branch was updated to the commit.
    Pushed,
    /// The remote branch already had the commit.
    UpToDate,
    /// The remote rejected the push.
    Rejected {
        /// Message of the remote.
        message: String,
    },
    /// The remote branch is not at the expected commit; nothing was pushed.
    NonFastForward {
        /// Its commit, or `None` if it was deleted.
        #[serde(with = "optional_oid_text")]
        remote_oid: Option<Oid>,
    },
}

mod oid_text {
    use git2::Oid;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(oid: &Oid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(oid)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Oid, D::Error> {
        Oid::from_str(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod optional_oid_text {
    use git2::Oid;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "signature that serde requires")]
    pub(super) fn serialize<S: Serializer>(oid: &Option<Oid>, serializer: S) -> Result<S::Ok, S::Error> {
        oid.map(|oid| oid.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Oid>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Oid::from_str(&text)).transpose().map_err(D::Error::custom)
    }
}
