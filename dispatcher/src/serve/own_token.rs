//! The server's own token, for servers without a configured one: a file that only its user can read.
//!
//! Every process of this machine can connect to a loopback address, also those in an agent's sandbox. The
//! sandbox hides the user's home folder, and so this file.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::config::Environment;
use crate::error::Error;
use crate::files;

/// Name of the file in the user's configuration folder.
const NAME: &str = "serve-token";

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Maximum bytes of the file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Returns the path of the file; `None` if the user has no home folder.
#[must_use]
pub fn path(environment: &Environment) -> Option<PathBuf> {
    Some(environment.user_config_folder()?.join(NAME))
}

/// Creates the file with a random token of 256 bits, unless it exists.
///
/// # Errors
/// Returns an error if the file cannot be created, or the existing one could have been read or written by
/// another user.
pub fn create_if_missing(path: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        create(path)?;
    }
    read(path).map(drop)
}

fn create(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent() else {
        return Err(files::problem("create", path, &ErrorKind::InvalidInput.into()));
    };
    files::create_folder(folder)?;
    let failed = |error: std::io::Error| files::problem("create", path, &error);
    let token = random_token().map_err(failed)?;
    // Complete under its name from the start, with mode 600. Another server may have created it meanwhile.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    file.write_all(format!("{token}\n").as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => files::sync_folder(folder).map_err(failed),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

fn random_token() -> std::io::Result<String> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads the file, one token per line.
///
/// # Errors
/// Returns an error unless it is a regular file of this user that no other user can read or write.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let refused = |why: &str| {
        Error::configuration(format!("cannot use the token file {}: {why}", path.display())).with_hint(
            "Remove it and start the server again, which creates another, or use --token-file FILE.",
        )
    };
    // A pipe must not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(refused("it is a symbolic link")),
        Err(rustix::io::Errno::NOENT) => return Err(refused("it does not exist")),
        Err(error) => return Err(files::problem("read", path, &error.into())),
    };
    let unreadable = |error: std::io::Error| files::problem("read", path, &error);
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("it belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refused("other users may access it; its mode must be 600"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(refused("it is too large"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
