//! Streams of programs, on the guest's side.
//!
//! A program has pipes, since scripts open `/dev/stderr`, which fails if that is a socket. Threads copy
//! between pipes and sockets with plain reads and writes: `splice` would hold the lock of the pipe while
//! the socket is full, and an exiting program would wait for it.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::message::{Token, kind};
use crate::guest::wire::{read_frame, write_frame};

/// How long the supervisor may take to accept a stream.
const ACCEPT_LIMIT: Duration = Duration::from_secs(10);

/// How often to connect a stream. The supervisor drops connections if there are too many.
const ATTEMPTS: usize = 4;

const CHUNK: usize = 64 << 10;

/// Connects a stream to the supervisor.
pub(super) fn connect(socket: &Path, token: Token) -> io::Result<UnixStream> {
    let mut failed = io::Error::from(io::ErrorKind::ConnectionRefused);
    for _ in 0..ATTEMPTS {
        match attempt(socket, token) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn attempt(socket: &Path, token: Token) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ACCEPT_LIMIT))?;
    stream.set_write_timeout(Some(ACCEPT_LIMIT))?;
    write_frame(&mut stream, 0, kind::STREAM, &token)?;
    let answer = read_frame(&mut stream, 0)?;
    if answer.is_none_or(|frame| frame.kind != kind::ACCEPTED) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Copies output of a program until its pipe ends or no one reads it any longer.
pub(super) fn copy_output(mut pipe: impl Read, mut socket: UnixStream) {
    copy(&mut pipe, &mut socket);
    // Other threads may have the socket too; without a reader it is closed already.
    drop(socket.shutdown(Shutdown::Both));
}

/// Copies input to a program until the socket ends or no one reads the pipe any longer.
pub(super) fn copy_input(mut socket: UnixStream, mut pipe: impl Write) {
    copy(&mut socket, &mut pipe);
    drop(socket.shutdown(Shutdown::Both));
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => {
                if to.write_all(&chunk[..read]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
