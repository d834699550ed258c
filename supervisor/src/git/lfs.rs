//! Pointers of Git LFS: what a tree has in the place of large files.

use git2::{Oid, Repository};
use sha2::{Digest as _, Sha256};

use crate::guest::NodeStat;
use crate::guest::answers::Sink;

/// Maximum size of a pointer in bytes, by the specification of Git LFS.
const MAX_POINTER_BYTES: usize = 1024;

const VERSION: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// Pointer in a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pointer {
    /// Blob of the pointer itself.
    pub(super) blob: Oid,
    /// SHA-256 of the content.
    pub(super) sha256: String,
    /// Size of the content in bytes.
    pub(super) size: u64,
}

impl Pointer {
    /// Reads the pointer in a blob; `None` if the blob is none.
    pub(super) fn read(repository: &Repository, blob: Oid) -> Option<Self> {
        let odb = repository.odb().ok()?;
        let (size, _) = odb.read_header(blob).ok()?;
        if size > MAX_POINTER_BYTES {
            return None;
        }
        let object = odb.read(blob).ok()?;
        let text =
            std::str::from_utf8(object.data()).ok().filter(|text| text.as_bytes().starts_with(VERSION))?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let sha256 = value("oid sha256:")?.trim();
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = value("size ")?.trim().parse().ok()?;
        is_hash.then(|| Self { blob, sha256: sha256.to_ascii_lowercase(), size })
    }
}

/// Hashes a file's content, as Git LFS does.
#[derive(Default)]
pub(super) struct ContentHash(Sha256);

impl ContentHash {
    pub(super) fn finish(self) -> String {
        let digest = self.0.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Sink for ContentHash {
    fn begin(&mut self, _: &NodeStat) {}

    fn data(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
