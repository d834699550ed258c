//! Self-signed certificates and TLS listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A self-signed certificate for `127.0.0.1`.
pub struct Certificate {
    /// The certificate that clients trust.
    pub pem: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Generates a certificate.
    pub fn generate() -> Self {
        // The first caller installs the provider; later calls have no effect.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate and its key");
        Self { pem: made.cert.pem(), config: Arc::new(config) }
    }
}

/// A listener that returns connections after the handshake.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Accepts connections and performs handshakes. Must be called in a runtime, which ends it.
    pub fn new(listener: TcpListener, certificate: &Certificate) -> Self {
        let address = listener.local_addr().expect("a bound address");
        let acceptor = TlsAcceptor::from(Arc::clone(&certificate.config));
        let (done, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let Ok((stream, peer)) = listener.accept().await else { continue };
                stream.set_nodelay(true).ok();
                let (acceptor, done) = (acceptor.clone(), done.clone());
                // A slow handshake must not block other connections.
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        done.send((stream, peer)).await.ok();
                    }
                });
            }
        });
        Self { address, ready }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}
