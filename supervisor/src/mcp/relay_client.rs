//! The program that the agent CLI starts instead of an MCP server in its own sandbox.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use orchestrator_contract::Reason;
use rustix::net::{Shutdown, shutdown};

use crate::endpoint::Endpoint;

/// How long the program waits for the last responses after its input is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects standard input and output to a relay host; exits when either side closes.
///
/// Reads on plain threads: a tokio runtime would wait at shutdown for a read of standard
/// input that never returns.
pub async fn relay_main(address: &Endpoint, token: &str) -> ExitCode {
    let connected = connect(address).and_then(|stream| {
        let mut to_host = File::from(stream.try_clone()?);
        to_host.write_all(format!("{token}\n").as_bytes())?;
        Ok((to_host, File::from(stream.try_clone()?), stream))
    });
    let (mut to_host, mut from_host, stream) = match connected {
        Ok(streams) => streams,
        Err(error) => {
            let line = format!("cannot reach the MCP server at `{address}`: {error}\n");
            io::stderr().write_all(line.as_bytes()).ok();
            return ExitCode::from(Reason::McpServerFailed.exit_code());
        }
    };
    let (up_closed_tx, up) = tokio::sync::oneshot::channel();
    let (down_closed_tx, mut down) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        copy_and_flush(&mut io::stdin().lock(), &mut to_host).ok();
        shutdown(&to_host, Shutdown::Write).ok();
        up_closed_tx.send(()).ok();
    });
    std::thread::spawn(move || {
        copy_and_flush(&mut from_host, &mut io::stdout().lock()).ok();
        down_closed_tx.send(()).ok();
    });
    tokio::select! {
        _ = up => {
            tokio::time::timeout(DRAIN_TIMEOUT, &mut down).await.ok();
        }
        _ = &mut down => {}
    }
    shutdown(&stream, Shutdown::Both).ok();
    ExitCode::SUCCESS
}

fn connect(address: &Endpoint) -> io::Result<OwnedFd> {
    match address {
        Endpoint::Loopback(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Ok(stream.into())
        }
        Endpoint::Socket(path) => Ok(UnixStream::connect(path)?.into()),
    }
}

/// Copies and flushes after each read, so that no message waits for the next one.
fn copy_and_flush(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = [0; 65536];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(chunk.get(..length).unwrap_or_default())?;
        to.flush()?;
    }
}
