//! The server over stdin and stdout: one message a line, and nothing else.

use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::{Transport, stdio_pipes};
use rmcp::{RoleServer, ServiceExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::server::Server;

/// How long a line may be, in bytes. The longest honest one is a submission with guidance of 64 KiB;
/// what is longer is skipped without being kept.
const LINE_MAX: usize = 4 * 1024 * 1024;

/// Serves until stdin ends or nobody reads stdout any more.
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
    let unread = CancellationToken::new();
    let lines = LineTransport {
        inner: AsyncRwTransport::new_server(input, output).with_max_line_length(LINE_MAX),
        initialized: false,
        closing: server.closing(),
        pending: unread.clone(),
    };
    let serving = async {
        // An error: the client left before it said anything that could be answered.
        if let Ok(running) = server.serve(lines).await {
            drop(running.waiting().await);
        }
    };
    tokio::select! {
        () = serving => {}
        () = unread.cancelled() => {}
    }
}

/// Lines of messages, with what rmcp's own do not do: they let a client begin with what needs no answer, and
/// tell when either side is gone.
struct LineTransport<R: AsyncRead, W: AsyncWrite> {
    inner: AsyncRwTransport<RoleServer, R, W>,
    /// Whether there was a request.
    initialized: bool,
    /// Cancelled when the input ends, so that no call goes on waiting.
    closing: CancellationToken,
    /// Cancelled when the output cannot be written to.
    pending: CancellationToken,
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
        let unread = self.pending.clone();
        let sending = self.inner.send(item);
        async move { sending.await.inspect_err(|_| unread.cancel()) }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.inner.receive().await;
            match &message {
                None => self.closing.cancel(),
                Some(JsonRpcMessage::Request(_)) => self.initialized = true,
                // rmcp would end the connection over it.
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
