//! A TCP proxy in front of a server that a test can disconnect.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Forwards connections unless it is disconnected.
#[derive(Clone)]
pub struct FaultyProxy {
    state: Arc<Mutex<State>>,
}

struct State {
    cut: bool,
    connections: JoinSet<()>,
}

impl FaultyProxy {
    /// Forwards connections from `listener` to `server`.
    /// / Must be called in a runtime, which ends it.
    pub fn open(listener: TcpListener, server: SocketAddr) -> Self {
        let state = Arc::new(Mutex::new(State { cut: false, connections: JoinSet::new() }));
        let proxy = Self { state: Arc::clone(&state) };
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                // Closing with unsent data then sends a reset, like a broken network.
                client.set_zero_linger().ok();
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                while state.connections.try_join_next().is_some() {}
                if !state.cut {
                    state.connections.spawn(pass(client, server));
                }
            }
        });
        proxy
    }

    /// Resets every connection and rejects new ones.
    pub fn disconnect(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.cut = true;
        state.connections.abort_all();
    }

    /// Accepts connections again.
    pub fn reconnect(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cut = false;
    }

    /// Resets every connection; new ones are accepted.
    pub fn reset(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).connections.abort_all();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    // Either side closed the connection.
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
}
