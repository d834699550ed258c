//! What parent and child say to each other.

use std::path::PathBuf;

use git2::Oid;
use orchestrator_contract::Reason;
use serde::{Deserialize, Serialize};

/// One operation, with everything it may use.
#[derive(Deserialize, Serialize)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) url: String,
    /// Never in arguments or environment: other processes can read those.
    pub(super) token: Option<String>,
    pub(super) username: Option<String>,
    pub(super) ssh_key: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) ssh_program: PathBuf,
    pub(super) proxy: Option<String>,
    pub(super) no_proxy: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connect_seconds: f64,
    pub(super) read_seconds: f64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation {
    /// The refs that can be fetched.
    List,
    /// The refs as the receiving side shows them: proof that pushing is allowed at all.
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
    /// Unreadable for others now: send the request.
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

/// How far a transfer is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// Bytes moved over the network, both ways.
    pub bytes: u64,
    /// Objects received or sent.
    pub objects: u64,
    /// Objects that there are to move, as far as is known.
    pub total: u64,
    /// Steps that are no transfer: deltas resolved, objects packed, lines that the server said.
    pub steps: u64,
}

/// A ref of the remote.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RemoteRef {
    /// Its full name.
    pub name: String,
    /// Where it points.
    #[serde(with = "oid_text")]
    pub oid: Oid,
}

/// What a remote has.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RemoteRefs {
    /// The full name of the branch that `HEAD` stands for, where the remote says so.
    pub default_branch: Option<String>,
    /// All refs.
    pub refs: Vec<RemoteRef>,
}

impl RemoteRefs {
    /// Where a branch, given without `refs/heads/`, points.
    #[must_use]
    pub fn branch(&self, name: &str) -> Option<Oid> {
        let found =
            self.refs.iter().find(|reference| reference.name.strip_prefix("refs/heads/") == Some(name));
        found.map(|reference| reference.oid)
    }
}

/// What a fetch brought.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fetched {
    /// Bytes received.
    pub bytes: u64,
    /// Objects received.
    pub objects: u64,
    /// Where the wanted refs of the remote point.
    pub refs: Vec<RemoteRef>,
}

/// How a push ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PushOutcome {
    /// The remote shows our commit.
    Pushed,
    /// It did so before.
    UpToDate,
    /// The remote refused, with this text.
    Rejected {
        /// What it said.
        message: String,
    },
    /// The branch is not where it was expected; nothing was pushed.
    NonFastForward {
        /// Where it is; none if it is gone.
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

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(oid: &Option<Oid>, serializer: S) -> Result<S::Ok, S::Error> {
        oid.map(|oid| oid.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Oid>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Oid::from_str(&text)).transpose().map_err(D::Error::custom)
    }
}
