//! The transport over stdin and stdout: one JSON-RPC message a line.

use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::{Transport, stdio_pipes};
use rmcp::{RoleServer, ServiceExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::server::Server;

/// Maximum length of a line; longer ones are skipped without buffering. The largest valid message is a
/// submission with 64 KiB of guidance.
const LINE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Serves until stdin ends or stdout is closed.
pub async fn serve(server: Server) {
    let (input, output) = stdio_pipes();
    serve_over(server, input, output).await;
}

/// Serves over any pair of streams, until the input ends or the output is closed.
pub async fn serve_over<R, W>(server: Server, input: R, output: W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let output_closed = CancellationToken::new();
    let lines = LineTransport {
        inner: AsyncRwTransport::new_server(input, output).with_max_line_length(LINE_MAX_BYTES),
        initialized: false,
        closing: server.closing(),
        output_closed: output_closed.clone(),
    };
    let serving = async {
        // Errors if the client disconnects before its first request.
        if let Ok(running) = server.serve(lines).await {
            drop(running.waiting().await);
        }
    };
    tokio::select! {
        () = serving => {}
        () = output_closed.cancelled() => {}
    }
}

/// Transport over lines that, unlike rmcp's own, ignores notifications before the first request and
/// reports when either side closes.
struct LineTransport<R: AsyncRead, W: AsyncWrite> {
    inner: AsyncRwTransport<RoleServer, R, W>,
    /// Whether a request was received.
    initialized: bool,
    /// Canceled when the input ends, so that calls stop waiting.
    closing: CancellationToken,
    /// Canceled when a write to the output fails.
    output_closed: CancellationToken,
}

impl<R, W> Transport<RoleServer> for LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = std::io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let output_closed = self.output_closed.clone();
        let sending = self.inner.send(item);
        async move { sending.await.inspect_err(|_| output_closed.cancel()) }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.inner.receive().await;
            match &message {
                None => self.closing.cancel(),
                Some(JsonRpcMessage::Request(_)) => self.initialized = true,
                // rmcp would close the connection.
                Some(
                    JsonRpcMessage::Notification(_) | JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_),
                ) if !self.initialized => continue,
                Some(
                    JsonRpcMessage::Notification(_) | JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_),
                ) => {}
            }
            return message;
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}
