//! Copies files to and from containers, as tar archives.
//!
//! Works for running, exited and created containers, and for remote engines: no file system is shared
//! with this machine.

use std::io::{Cursor, Read as _};

use bollard::Docker as Client;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::StreamExt as _;
use tar::{Builder, EntryType, Header};

use super::connect::{problem, status};
use crate::config::User;
use crate::error::Error;

/// Maximum size of a file to read.
const MAX_READ_BYTES: usize = 64 * 1024 * 1024;

/// An archive built in memory, so that secrets are not written to disk here.
#[derive(Default)]
pub(super) struct Archive(Vec<Part>);

struct Part {
    path: String,
    owner: User,
    mode: u32,
    content: Content,
}

enum Content {
    Folder,
    File(Vec<u8>),
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Contents may be secrets.
        f.debug_set().entries(self.0.iter().map(|part| &part.path)).finish()
    }
}

impl Archive {
    /// Adds a folder. An existing folder keeps its content.
    pub(super) fn folder(mut self, path: &str, owner: User, mode: u32) -> Self {
        self.0.push(Part { path: path.to_owned(), owner, mode, content: Content::Folder });
        self
    }

    /// Adds a file. It replaces an existing file or folder.
    pub(super) fn file(mut self, path: &str, owner: User, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.0.push(Part { path: path.to_owned(), owner, mode, content: Content::File(content.into()) });
        self
    }

    /// Returns the paths in the archive.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<&str> {
        self.0.iter().map(|part| part.path.as_str()).collect()
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        for Part { path, owner, mode, content } in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(u64::from(owner.uid));
            header.set_gid(u64::from(owner.gid));
            match content {
                Content::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, path, std::io::empty())?;
                }
                Content::File(bytes) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, bytes.as_slice())?;
                }
            }
        }
        builder.into_inner()
    }

    /// Extracts the archive into a folder of a container.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub(super) async fn upload(&self, client: &Client, container: &str, folder: &str) -> Result<(), Error> {
        let doing = format!("build the archive for {folder} of container {container}");
        let bytes = self.bytes().map_err(|error| problem(&doing, &EngineError::IOError { err: error }))?;
        upload(client, container, folder, bytes).await
    }
}

/// Extracts a tar archive into a folder of a container.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn upload(
    client: &Client,
    container: &str,
    folder: &str,
    bytes: Vec<u8>,
) -> Result<(), Error> {
    let options = UploadToContainerOptionsBuilder::new().path(folder).build();
    client
        .upload_to_container(container, Some(options), bollard::body_full(Bytes::from(bytes)))
        .await
        .map_err(|error| problem(&format!("copy files to {folder} of container {container}"), &error))
}

/// Returns a file of a container; `None` if the file or the container does not exist.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn read(client: &Client, container: &str, path: &str) -> Result<Option<Vec<u8>>, Error> {
    let Some(bytes) = download(client, container, path).await? else { return Ok(None) };
    first_entry(&bytes).map_err(|error| {
        problem(&format!("read {path} of container {container}"), &EngineError::IOError { err: error })
    })
}

/// Returns a file or folder of a container as a tar archive; `None` if it does not exist.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn download(client: &Client, container: &str, path: &str) -> Result<Option<Vec<u8>>, Error> {
    let doing = || format!("read {path} of container {container}");
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let mut stream = Box::pin(client.download_from_container(container, Some(options)));
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) if bytes.len() + chunk.len() > MAX_READ_BYTES => {
                let error = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "file too large");
                return Err(problem(&doing(), &EngineError::IOError { err: error }));
            }
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(problem(&doing(), &error)),
        }
    }
    Ok(Some(bytes))
}

fn first_entry(bytes: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(Cursor::new(bytes)).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type() == EntryType::Regular {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(Some(content));
        }
    }
    Ok(None)
}

/// Returns the approximate bytes of a path of a container, with everything below it.
pub(super) async fn size(client: &Client, container: &str, path: &str) -> u64 {
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let stream = client.download_from_container(container, Some(options));
    stream.fold(0, |sum, chunk| async move { sum + chunk.map_or(0, |chunk| chunk.len() as u64) }).await
}

/// Returns whether a path of a container is a folder; `None` if it does not exist.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn is_folder(client: &Client, container: &str, path: &str) -> Result<Option<bool>, Error> {
    /// Go's `os.ModeDir`.
    const FOLDER: u32 = 1 << 31;
    let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
    match client.get_container_archive_info(container, Some(options)).await {
        Ok(info) => Ok(Some(info.file_mode & FOLDER != 0)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(problem(&format!("inspect {path} of container {container}"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_content_survives_round_trip() {
        let archive =
            Archive::default().folder("a", User::DEFAULT, 0o750).file("a/b", User::DEFAULT, 0o440, "text");
        let bytes = archive.bytes().unwrap();
        assert_eq!(first_entry(&bytes).unwrap().unwrap(), b"text");
        let mut read = tar::Archive::new(Cursor::new(&bytes));
        let entries: Vec<_> = read
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        assert_eq!(entries, [("a".to_owned(), 0o750, 10001), ("a/b".to_owned(), 0o440, 10001)]);
        assert_eq!(format!("{archive:?}"), r#"{"a", "a/b"}"#);
    }
}
