//! Where gateway and relays listen, and how the agent's programs reach them.
//!
//! The containers of a run share one network, so there they listen on Unix sockets, in the directory that
//! only the agent's container has. On a machine they listen on the loopback interface, since the sandbox
//! kind `landlock` has no Unix sockets. Who connects has to know a token in both cases.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// Connection to a gateway or relay.
pub type Stream = Either<TcpStream, UnixStream>;

/// Where to listen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenPlace {
    /// A free port of the loopback interface.
    Loopback,
    /// A new socket in a directory that the agent can read, but not write.
    Directory(PathBuf),
}

/// Address of a gateway or relay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// A port of the loopback interface.
    Loopback(SocketAddr),
    /// Path of a Unix socket.
    Socket(PathBuf),
}

impl Endpoint {
    /// Returns the path of a Unix socket.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Loopback(_) => None,
            Self::Socket(path) => Some(path),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') { Ok(Self::Socket(text.into())) } else { text.parse().map(Self::Loopback) }
    }
}

/// A listening socket; dropping it removes the file of a Unix socket.
#[derive(Debug)]
pub struct EndpointListener {
    endpoint: Endpoint,
    listener: Either<TcpListener, UnixListener>,
}

impl EndpointListener {
    /// Listens at a place; `name` begins the name of a Unix socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if no port is available, or if the socket cannot be created.
    pub fn bind(place: &ListenPlace, name: &str) -> io::Result<Self> {
        match place {
            ListenPlace::Loopback => {
                let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                listener.set_nonblocking(true)?;
                let endpoint = Endpoint::Loopback(listener.local_addr()?);
                Ok(Self { endpoint, listener: Either::Left(TcpListener::from_std(listener)?) })
            }
            ListenPlace::Directory(directory) => {
                // Short, since the path of a socket has at most 107 bytes (unix(7)).
                let id = uuid::Uuid::new_v4().simple().to_string();
                let path = directory.join(format!("{name}-{}", id.get(..8).unwrap_or_default()));
                let listener = Either::Right(UnixListener::bind(&path)?);
                let bound = Self { endpoint: Endpoint::Socket(path.clone()), listener };
                // The agent is another user.
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
                Ok(bound)
            }
        }
    }

    /// Returns how the agent reaches it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// Returns an error such as too many open file descriptors; the next call may succeed.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.listener {
            Either::Left(listener) => {
                let (stream, _) = listener.accept().await?;
                // Latency only; without it everything works too.
                drop(stream.set_nodelay(true));
                Ok(Either::Left(stream))
            }
            Either::Right(listener) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

impl Drop for EndpointListener {
    fn drop(&mut self) {
        if let Endpoint::Socket(path) = &self.endpoint {
            drop(std::fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_parsed_as_it_is_written() {
        for text in ["127.0.0.1:4711", "/run/orchestrator/guests/agent/relay-1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert!("relay".parse::<Endpoint>().is_err());
    }

    #[tokio::test]
    async fn socket_is_for_other_users_and_removed_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let place = ListenPlace::Directory(directory.path().to_owned());
        let listener = EndpointListener::bind(&place, "gateway").unwrap();
        let other = EndpointListener::bind(&place, "gateway").unwrap();
        assert_ne!(listener.endpoint(), other.endpoint());
        let path = listener.endpoint().socket().unwrap().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let (accepted, connected) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        accepted.unwrap();
        connected.unwrap();
        drop((listener, other));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
