//! Frames of the connections between supervisor and guest.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::{Environment, Exit};

/// Maximum payload of the first frame of a connection.
pub(super) const FIRST_MAX: usize = 512 << 10;

/// Bytes of an environment that a guest reports, at most.
pub(super) const ENVIRONMENT_MAX: usize = 64 << 10;

/// Characters of a text from the guest, at most.
const TEXT_MAX: usize = 500;

/// Kinds of frames.
pub(super) mod kind {
    // The first frame of a connection, from the guest, and its answers.
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const STREAM: u8 = 2;
    pub(crate) const ACCEPTED: u8 = 3;
    pub(crate) const OTHER_BUILD: u8 = 4;
    pub(crate) const BUSY: u8 = 5;
    // To the guest. The id of a request to start is that of the program.
    pub(crate) const START: u8 = 16;
    pub(crate) const START_FILES: u8 = 17;
    pub(crate) const SIGNAL: u8 = 18;
    pub(crate) const KILL_ALL: u8 = 19;
    pub(crate) const KILL_ORPHANS: u8 = 20;
    pub(crate) const FIND: u8 = 21;
    // From the guest.
    pub(crate) const DONE: u8 = 32;
    pub(crate) const FAILED: u8 = 33;
    pub(crate) const EXITED: u8 = 34;
}

/// Secret of a stream, which the guest sends on the stream's connection.
pub(super) type Token = [u8; 16];

/// First frame of a guest.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Hello {
    pub(super) build: String,
    /// [`Facts`]; another build may have other ones.
    pub(super) facts: serde_json::Value,
}

/// What a guest reports about its container.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Facts {
    /// Environment of process 1: the image's, with the tools at the end of `PATH`.
    #[serde(with = "texts")]
    pub environment: Environment,
    pub uid: u32,
    /// Its process id there: 1 in a container.
    pub pid: u32,
    /// Its own program.
    pub program: PathBuf,
}

impl Facts {
    /// Returns whether the facts can be used: a guest may report anything.
    pub(super) fn are_valid(&self) -> bool {
        let bytes = |text: &OsString| text.as_encoded_bytes().to_vec();
        let valid = |(name, value): (&OsString, &OsString)| {
            let (name, value) = (bytes(name), bytes(value));
            !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0)
        };
        let size: usize = self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        size <= ENVIRONMENT_MAX && self.environment.iter().all(valid) && self.program.is_absolute()
    }
}

/// An environment of texts.
mod texts {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::process::Environment;

    pub(super) fn serialize<S: Serializer>(environment: &Environment, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(
            environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?))),
        )
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(input: D) -> Result<Environment, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(input)?;
        Ok(texts.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Request to start a program.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Start {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: OsString,
    pub(super) stdin: Option<Token>,
    pub(super) stdout: Token,
    pub(super) stderr: Token,
}

/// Request to start a guest of files.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StartFiles {
    pub(super) control: Token,
    pub(super) bulk: Token,
    pub(super) without_openat2: bool,
}

/// Report of an exit.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Exited {
    pub(super) code: Option<u8>,
    pub(super) signal: Option<i32>,
    pub(super) out_of_memory: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndedProgram {
    Exited {
        exit: Exit,
        /// Whether the kernel killed a process of the container for lack of memory meanwhile.
        out_of_memory: bool,
    },
    /// The guest's connection ended: it was killed for lack of memory, or the container was stopped.
    Lost,
}

/// Encodes a message.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Our messages have neither maps with other keys than texts nor paths that are not text.
    serde_json::to_vec(message).unwrap_or_default()
}

/// Returns a text of a guest without control characters, and bounded.
pub(super) fn bounded_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * TEXT_MAX)]);
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(TEXT_MAX).collect()
}
