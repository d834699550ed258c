//! Access to the files of the platform repository.

use std::io;

use super::encoding::decode;
use super::error::DocumentsError;

/// Reads files and lists directories of the platform repository at one commit.
///
/// Paths are relative to its root; `""` is the root.
pub struct Reader<R, L>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    /// Returns the content of a file, or `None` if it does not exist.
    pub read: R,
    /// Returns the names in a directory; empty if it does not exist.
    pub list: L,
}

impl<R, L> Reader<R, L>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    /// Returns the text of a file, or `None` if it does not exist.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, DocumentsError> {
        Ok(self.bytes(path)?.map(|bytes| decode(&bytes)))
    }

    pub(super) fn exists(&self, path: &str) -> Result<bool, DocumentsError> {
        Ok(self.bytes(path)?.is_some())
    }

    /// Returns the names in a directory; empty if it does not exist.
    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>, DocumentsError> {
        (self.list)(folder).map_err(|source| DocumentsError::Unreadable { path: folder.to_owned(), source })
    }

    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, DocumentsError> {
        (self.read)(path).map_err(|source| DocumentsError::Unreadable { path: path.to_owned(), source })
    }
}
