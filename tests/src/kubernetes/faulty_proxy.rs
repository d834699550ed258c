//! The network in front of a server: it can be cut, and mended.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes connections on as long as it is not cut.
#[derive(Clone)]
pub struct FaultyProxy {
    state: Arc<Mutex<State>>,
}

struct State {
    cut: bool,
    connections: JoinSet<()>,
}

impl FaultyProxy {
    /// Passes what connects to `listener` on to `server`; to be called in a runtime, which ends it.
    pub fn open(listener: TcpListener, server: SocketAddr) -> Self {
        let state = Arc::new(Mutex::new(State { cut: false, connections: JoinSet::new() }));
        let gate = Self { state: Arc::clone(&state) };
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                // What is closed while data may be under way is reset, as by a network that went away.
                client.set_zero_linger().ok();
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                while state.connections.try_join_next().is_some() {}
                if !state.cut {
                    state.connections.spawn(pass(client, server));
                }
            }
        });
        gate
    }

    /// Resets every connection and every new one until it is mended.
    pub fn disconnect(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.cut = true;
        state.connections.abort_all();
    }

    /// Lets connections pass again.
    pub fn reconnect(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cut = false;
    }

    /// Resets every connection; new ones pass.
    pub fn reset(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).connections.abort_all();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    // Its error is the end of one of both sides.
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
}
