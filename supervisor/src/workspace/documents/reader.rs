//! Access to the files of the platform repository.

use std::io;

use super::encoding::decode;
use super::error::DocumentsError;
use super::limits::TooLarge;

/// Reads files and lists directories of the platform repository at one commit.
///
/// Paths are relative to its root; `""` is the root.
pub struct Reader<R, L>
where
    R: Fn(&str) -> io::Result<Option<Vec<u8>>>,
    L: Fn(&str) -> io::Result<Vec<String>>,
{
    /// Returns the content of a file, or `None` if it does not exist; [`TooLarge`] is the error of a large one.
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
        match self.bytes(path) {
            Ok(bytes) => Ok(bytes.is_some()),
            Err(DocumentsError::TooLarge { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns the names in a directory; empty if it does not exist.
    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>, DocumentsError> {
        (self.list)(folder).map_err(|source| DocumentsError::Unreadable { path: folder.to_owned(), source })
    }

    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, DocumentsError> {
        let path = || path.to_owned();
        (self.read)(&path()).map_err(|source| match source.downcast::<TooLarge>() {
            Ok(TooLarge { size }) => DocumentsError::TooLarge { path: path(), size },
            Err(source) => DocumentsError::Unreadable { path: path(), source },
        })
    }
}
