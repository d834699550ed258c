//! A proxy that adds a bearer token, for clients that cannot send one.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Maximum bytes of a request head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves connections of `listener` until the process ends: each carries one request to `server`, with `token`.
pub fn serve(listener: TcpListener, server: SocketAddr, token: &str) {
    let added = format!("Authorization: Bearer {token}\r\nConnection: close\r\n");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let added = added.clone();
            std::thread::spawn(move || {
                // A connection that breaks is the client's to report.
                drop(forward(client, server, &added));
            });
        }
    });
}

fn forward(mut client: TcpStream, server: SocketAddr, added: &str) -> std::io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        let count = client.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..count]);
        if let Some(end) = head.windows(2).position(|end| end == b"\r\n") {
            break end + 2;
        }
        if count == 0 || head.len() > MAX_HEAD_BYTES {
            return Ok(());
        }
    };
    let mut server = TcpStream::connect(server)?;
    server.write_all(&[&head[..end], added.as_bytes(), &head[end..]].concat())?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(Shutdown::Write));
    });
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}
