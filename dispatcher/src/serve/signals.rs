//! Being told to stop: the first time in good order, the second time at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use orchestrator_contract::Reason;

use crate::error::Error;

/// Why the server stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shutdown {
    /// It was asked to, and did so in good order.
    Graceful,
    /// It was told to stop at once, by the signal of this number.
    Immediate(u8),
}

impl Shutdown {
    /// The exit code that says so: 128 + signal, as shells count.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Graceful => 0,
            Self::Immediate(signal) => 128 + signal,
        }
    }
}

/// The first and the second time that SIGTERM or SIGINT arrives, from now on.
///
/// # Errors
/// Signals cannot be waited for.
pub fn signals() -> Result<(impl Future<Output = Shutdown>, impl Future<Output = Shutdown>), Error> {
    let (first, second) = (SignalPair::new()?, SignalPair::new()?);
    let first = async move {
        let mut first = first;
        first.next().await;
        Shutdown::Graceful
    };
    let second = async move {
        let mut second = second;
        // The first one is remembered until it is looked for, and is not the one that is meant.
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
                Error::new(Reason::InternalError, format!("cannot wait for signals: {error}"))
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
