//! The guest: performs file operations for the supervisor, where untrusted programs live.
//!
//! It holds no credential and decides nothing. Standard input is the control socket, standard
//! output the bulk socket. Requests run on a few threads, so that a request that waits for data
//! or for credit delays neither the others nor a cancellation.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use super::beneath::forgo_openat2;
use super::files;
use super::message::{BUILD_ID, kind};
use super::tree::Tree;
use super::wire::{BULK_MAX, CONTROL_MAX, CREDIT, Decoder, Frame, read_frame, write_frame};

/// Threads that perform requests; more do not make a disk faster.
const MAX_WORKERS: usize = 8;

/// Argument that makes the guest open files without `openat2`.
pub(crate) const WITHOUT_OPENAT2: &str = "--without-openat2";

/// Entry point of the hidden subcommand.
#[must_use]
pub fn guest_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if !harden() {
        return ExitCode::FAILURE;
    }
    for argument in arguments {
        if argument == WITHOUT_OPENAT2 {
            forgo_openat2();
        }
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Keeps other processes out of this one, and drops what it does not need; false if that fails.
pub(crate) fn harden() -> bool {
    // First of all: after exec, processes with the same uid can read this one.
    if rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        return false;
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if rustix::process::setrlimit(Resource::Core, none).is_err() {
        return false;
    }
    drop_capabilities();
    true
}

/// Drops all capabilities, so that root has no more access to files than their owner.
fn drop_capabilities() {
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    // Dropping capabilities cannot fail.
    let _ = rustix::thread::set_capabilities(None, none);
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn serve() -> io::Result<()> {
    let mut control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let bulk = UnixStream::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    write_frame(&mut control, 0, kind::HELLO, BUILD_ID.as_bytes())?;
    let hello = read_frame(&mut control, CONTROL_MAX)?.filter(|frame| frame.kind == kind::HELLO);
    let hello = hello.ok_or_else(|| invalid("no hello"))?;
    let mut values = Decoder::new(&hello.payload);
    let (Some(build), Some(root)) = (values.bytes(), values.bytes()) else { return Err(invalid("hello")) };
    if build != BUILD_ID.as_bytes() {
        // The supervisor reports it; it has our id as well.
        return Err(invalid("build id"));
    }
    let tree = match Tree::open(&PathBuf::from(OsString::from_vec(root.to_vec()))) {
        Ok(tree) => tree,
        Err(error) => {
            write_frame(&mut control, 0, kind::FAILED, &super::message::number(&error).to_le_bytes())?;
            return Err(error);
        }
    };
    // Before any thread is started and any request is read.
    crate::sandbox::confine_guest(tree.root());
    write_frame(&mut control, 0, kind::DONE, &[])?;
    let guest = Arc::new(Connection {
        tree,
        control: Mutex::new(control.try_clone()?),
        bulk: Mutex::new(bulk.try_clone()?),
        inputs: Mutex::default(),
        outputs: Mutex::default(),
        credited: Condvar::new(),
    });
    let (jobs, queue) = channel();
    let queue = Arc::new(Mutex::new(queue));
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_WORKERS);
    for _ in 0..workers {
        let (guest, queue) = (Arc::clone(&guest), Arc::clone(&queue));
        std::thread::Builder::new().name("worker".into()).spawn(move || work(&guest, &queue))?;
    }
    let reader = Arc::clone(&guest);
    std::thread::Builder::new().name("bulk".into()).spawn(move || {
        // Without bulk data the guest is of no use.
        let _ended = reader.read_bulk(bulk);
        reader.end();
    })?;
    guest.read_control(control, &jobs)
}

fn work(guest: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = lock(queue).recv();
        let Ok(job) = next else { return };
        if guest.perform(job).is_err() {
            // The sockets fail: there is no one to answer.
            guest.end();
        }
    }
}

/// Locks in spite of a panic in another thread: every change is a single call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Job {
    frame: Frame,
    /// Data of the request, for a request that has any.
    input: Option<Receiver<Vec<u8>>>,
}

/// Credit of a stream to the supervisor.
struct Output {
    credit: u64,
    cancelled: bool,
}

/// Connection to the supervisor, shared by all threads of the guest.
pub(super) struct Connection {
    pub(super) tree: Tree,
    control: Mutex<UnixStream>,
    bulk: Mutex<UnixStream>,
    inputs: Mutex<HashMap<u32, Sender<Vec<u8>>>>,
    outputs: Mutex<HashMap<u32, Output>>,
    credited: Condvar,
}

impl Connection {
    /// Ends the process: the supervisor is gone, or broke the protocol.
    fn end(&self) -> ! {
        std::process::exit(0)
    }

    fn read_control(&self, mut control: UnixStream, jobs: &Sender<Job>) -> io::Result<()> {
        while let Some(frame) = read_frame(&mut control, CONTROL_MAX)? {
            let id = frame.id;
            match frame.kind {
                kind::CREDIT => {
                    let bytes = Decoder::new(&frame.payload).u32().ok_or_else(|| invalid("credit"))?;
                    if let Some(output) = lock(&self.outputs).get_mut(&id) {
                        output.credit = output.credit.saturating_add(u64::from(bytes));
                    }
                    self.credited.notify_all();
                }
                kind::CANCEL => {
                    if let Some(output) = lock(&self.outputs).get_mut(&id) {
                        output.cancelled = true;
                    }
                    lock(&self.inputs).remove(&id);
                    self.credited.notify_all();
                }
                kind::WRITE => {
                    let (sender, receiver) = channel();
                    lock(&self.inputs).insert(id, sender);
                    self.grant(id, CREDIT)?;
                    drop(jobs.send(Job { frame, input: Some(receiver) }));
                }
                kind::LIST | kind::READ => {
                    lock(&self.outputs).insert(id, Output { credit: CREDIT.into(), cancelled: false });
                    drop(jobs.send(Job { frame, input: None }));
                }
                kind::STAT | kind::MAKE_FOLDERS | kind::REMOVE | kind::CREATE_FOLDERS | kind::MOVE => {
                    drop(jobs.send(Job { frame, input: None }));
                }
                _ => return Err(invalid("request")),
            }
        }
        Ok(())
    }

    fn read_bulk(&self, mut bulk: UnixStream) -> io::Result<()> {
        while let Some(frame) = read_frame(&mut bulk, BULK_MAX)? {
            // A request that failed no longer takes its data.
            if let (kind::DATA, Some(input)) = (frame.kind, lock(&self.inputs).get(&frame.id)) {
                drop(input.send(frame.payload));
            }
        }
        Ok(())
    }

    /// Allows the supervisor to send more data of a request.
    pub(super) fn grant(&self, id: u32, bytes: u32) -> io::Result<()> {
        self.answer(id, kind::CREDIT, &bytes.to_le_bytes())
    }

    fn answer(&self, id: u32, kind: u8, payload: &[u8]) -> io::Result<()> {
        write_frame(&mut *lock(&self.control), id, kind, payload)
    }

    fn perform(&self, Job { frame, input }: Job) -> io::Result<()> {
        let Frame { id, kind: request, payload } = frame;
        let mut values = Decoder::new(&payload);
        match request {
            kind::LIST | kind::READ => {
                let mut output = OutputStream { connection: self, id, buffer: Vec::new() };
                let written = match request {
                    kind::LIST => files::list(&self.tree, &mut values, &mut output),
                    _ => files::read(&self.tree, &mut values, &mut output),
                };
                let written = written.and_then(|()| output.flush());
                lock(&self.outputs).remove(&id);
                let end = if written.is_ok() { kind::END } else { kind::ABORTED };
                write_frame(&mut *lock(&self.bulk), id, end, &[])
            }
            _ => {
                let result = match request {
                    kind::WRITE => {
                        let input = InputStream { connection: self, id, input, pending: Vec::new(), at: 0 };
                        let result = files::write(&self.tree, &mut values, input);
                        lock(&self.inputs).remove(&id);
                        result
                    }
                    kind::STAT => files::stat(&self.tree, &mut values),
                    kind::MAKE_FOLDERS => files::make_folders(&self.tree, &mut values),
                    kind::CREATE_FOLDERS => files::create_folders(&self.tree, &mut values),
                    kind::MOVE => files::move_entry(&self.tree, &mut values),
                    _ => files::remove(&self.tree, &mut values),
                };
                match result {
                    Ok(payload) => self.answer(id, kind::DONE, &payload),
                    Err(error) => {
                        self.answer(id, kind::FAILED, &super::message::number(&error).to_le_bytes())
                    }
                }
            }
        }
    }
}

/// Data of a request, to the supervisor.
pub(super) struct OutputStream<'c> {
    connection: &'c Connection,
    id: u32,
    buffer: Vec<u8>,
}

impl files::Output for OutputStream<'_> {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BULK_MAX / 2 { self.flush() } else { Ok(()) }
    }
}

impl OutputStream<'_> {
    fn flush(&mut self) -> io::Result<()> {
        for chunk in self.buffer.chunks(BULK_MAX) {
            let mut outputs = lock(&self.connection.outputs);
            loop {
                let Some(output) = outputs.get_mut(&self.id) else { return Err(invalid("stream")) };
                if output.cancelled {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let needed = chunk.len() as u64;
                if output.credit >= needed {
                    output.credit -= needed;
                    break;
                }
                outputs = self.connection.credited.wait(outputs).unwrap_or_else(PoisonError::into_inner);
            }
            drop(outputs);
            write_frame(&mut *lock(&self.connection.bulk), self.id, kind::DATA, chunk)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// Data of a request, from the supervisor.
pub(super) struct InputStream<'c> {
    connection: &'c Connection,
    id: u32,
    input: Option<Receiver<Vec<u8>>>,
    pending: Vec<u8>,
    at: usize,
}

impl files::Input for InputStream<'_> {
    /// Returns the next bytes, at most `most` of them.
    fn next(&mut self, most: usize) -> io::Result<&[u8]> {
        if self.at == self.pending.len() {
            let input = self.input.as_ref().ok_or_else(|| invalid("data"))?;
            self.pending = input.recv().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            self.at = 0;
            self.connection.grant(self.id, u32::try_from(self.pending.len()).unwrap_or(u32::MAX))?;
        }
        let start = self.at;
        self.at = self.pending.len().min(start.saturating_add(most));
        Ok(&self.pending[start..self.at])
    }
}
