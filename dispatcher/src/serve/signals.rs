//! Shutdown signals: the first is graceful, the second immediate.

use tokio::signal::unix::{Signal, SignalKind, signal};

use orchestrator_contract::Reason;

use crate::error::Error;

/// How the server stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shutdown {
    /// On a first signal, after finishing calls in flight.
    Graceful,
    /// On a second signal, of this number.
    Immediate(u8),
}

impl Shutdown {
    /// Returns the exit code; 128 + signal for an immediate shutdown.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Graceful => 0,
            Self::Immediate(signal) => 128 + signal,
        }
    }
}

/// Returns futures of the first and the second SIGTERM or SIGINT from now on.
///
/// # Errors
/// Returns an error if signal handlers cannot be installed.
pub fn signals() -> Result<(impl Future<Output = Shutdown>, impl Future<Output = Shutdown>), Error> {
    let (first, second) = (SignalPair::new()?, SignalPair::new()?);
    let first = async move {
        let mut first = first;
        first.next().await;
        Shutdown::Graceful
    };
    let second = async move {
        let mut second = second;
        // Skip the first signal, which is buffered here too.
        second.next().await;
        Shutdown::Immediate(second.next().await)
    };
    Ok((first, second))
}

struct SignalPair {
    terminate: Signal,
    interrupt: Signal,
}

impl SignalPair {
    fn new() -> Result<Self, Error> {
        let wait = |kind: SignalKind| {
            signal(kind).map_err(|error| {
                Error::new(Reason::InternalError, format!("cannot install signal handlers: {error}"))
            })
        };
        Ok(Self { terminate: wait(SignalKind::terminate())?, interrupt: wait(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}
