//! What a guest sent: two threads read the sockets and only store, within the credit of each stream.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::kind;
use super::wire::{CREDIT, Decoder, Frame, read_frame};

/// What the threads that ask and those that read have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) control: Mutex<UnixStream>,
    pub(super) bulk: Mutex<UnixStream>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

/// Open requests, and the state of the connection.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) requests: HashMap<u32, Pending>,
    pub(super) failed: Option<String>,
    pub(super) waited: Duration,
}

/// What the guest may still send for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    /// A single result on the control socket.
    Result,
    /// Credit for data to the guest, then a result.
    Credit,
    /// Data on the bulk socket, then its end.
    Data,
}

/// Open request.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) expected: Expected,
    /// Bytes that the guest may send.
    pub(super) allowed: u64,
    /// Bytes that may be sent to the guest.
    pub(super) credit: u64,
    pub(super) data: VecDeque<Vec<u8>>,
    pub(super) end: Option<End>,
    /// Whether no one waits for it.
    pub(super) abandoned: bool,
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum End {
    Done(Vec<u8>),
    Failed(u32),
}

/// Locks in spite of a panic in another thread.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock leaves the state usable: every change is a single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Records why the guest is of no use any more; the first cause counts.
    pub(super) fn fail(&self, why: String) {
        lock(&self.state).failed.get_or_insert(why);
        self.changed.notify_all();
    }

    /// Stores a frame; returns why it breaks the protocol.
    fn store(&self, frame: Frame, from_bulk: bool) -> Result<(), &'static str> {
        let mut state = lock(&self.state);
        let Frame { id, kind, payload } = frame;
        let Some(request) = state.requests.get_mut(&id) else {
            return Err("answered a request that it did not get");
        };
        if request.end.is_some() {
            return Err("answered a request twice");
        }
        match (kind, request.expected, from_bulk) {
            (kind::DATA, Expected::Data, true) => {
                let length = payload.len() as u64;
                request.allowed = request.allowed.checked_sub(length).ok_or("sent more data than it may")?;
                // Empty data means nothing, and must not fill the queue.
                if !request.abandoned && length > 0 {
                    request.data.push_back(payload);
                }
            }
            (kind::END, Expected::Data, true) => request.end = Some(End::Done(Vec::new())),
            (kind::ABORTED, Expected::Data, true) => request.end = Some(End::Failed(0)),
            (kind::CREDIT, Expected::Credit, false) => {
                let bytes = Decoder::new(&payload).u32().ok_or("sent a malformed credit")?;
                request.credit = request.credit.saturating_add(u64::from(bytes)).min(u64::from(CREDIT) * 4);
            }
            (kind::DONE, Expected::Result | Expected::Credit, false)
            | (kind::HELLO, Expected::Result, false) => request.end = Some(End::Done(payload)),
            (kind::FAILED, Expected::Result | Expected::Credit, false) => {
                let number = Decoder::new(&payload).u32().ok_or("sent a malformed error")?;
                request.end = Some(End::Failed(number));
            }
            _ => return Err("sent a frame that does not belong to its request"),
        }
        if request.abandoned && request.end.is_some() {
            state.requests.remove(&id);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Stores what a socket brings until it ends.
    pub(super) fn read(&self, mut socket: UnixStream, max: usize, from_bulk: bool) {
        loop {
            let stored = match read_frame(&mut socket, max) {
                Ok(Some(frame)) => self.store(frame, from_bulk),
                // The other socket may still bring the reason; a guest that ends closes both.
                Ok(None) if from_bulk => return,
                Ok(None) => return self.fail("ended".to_owned()),
                Err(error) => return self.fail(format!("broke the connection: {error}")),
            };
            if let Err(why) = stored {
                return self.fail(why.to_owned());
            }
        }
    }
}
