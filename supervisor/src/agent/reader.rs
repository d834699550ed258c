//! Reads the agent's standard output on a thread of its own: masks secrets, keeps
//! the transcript, hands on what the lines say.
//!
//! A thread, because the work is blocking and at times heavy: signals and
//! deadlines of the event loop must not wait for it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::lines::Lines;
use super::stream::{CliMessage, parse_line};
use crate::redact::{Redactor, StreamRedactor};

/// How much is read at once; as much as the pipe can be made to hold without privileges.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// How much of the agent's output is kept; more is read and judged but not written.
const TRANSCRIPT_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// When the agent last printed something.
#[derive(Clone, Debug)]
pub struct IdleTimer {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl IdleTimer {
    /// A pulse that beats now.
    #[must_use]
    pub fn new() -> Self {
        let pulse = Self { start: Instant::now(), last_ms: Arc::new(AtomicU64::new(0)) };
        pulse.reset();
        pulse
    }

    /// Something was printed.
    pub fn reset(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// How long nothing was printed.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        let last = std::time::Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

impl Default for IdleTimer {
    fn default() -> Self {
        Self::new()
    }
}

/// What was noticed about the output as a whole.
#[derive(Debug, Default)]
pub struct OutputStats {
    /// Bytes printed.
    pub bytes: u64,
    /// Lines that were too long to be looked at.
    pub too_long: u64,
    /// Lines that were no lines of the CLI.
    pub garbage: u64,
    /// Why the transcript is not whole.
    pub transcript_error: Option<io::Error>,
}

/// Starts the thread. It ends when everybody who holds the pipe is gone.
///
/// # Errors
/// The transcript cannot be opened, or no thread can be had.
pub fn read_output(
    output: OwnedFd,
    transcript: &Path,
    redactor: &Redactor,
    pulse: IdleTimer,
    said: mpsc::Sender<CliMessage>,
) -> io::Result<std::thread::JoinHandle<OutputStats>> {
    let transcript = File::options().create(true).append(true).open(transcript)?;
    let redactor = redactor.stream();
    // A larger pipe means fewer switches between the agent and us; the default is good enough.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, 1024 * 1024);
    std::thread::Builder::new()
        .name("agent-output".to_owned())
        .spawn(move || drain(File::from(output), transcript, redactor, &pulse, &said))
}

fn drain(
    mut output: File,
    mut transcript: File,
    mut redactor: StreamRedactor,
    pulse: &IdleTimer,
    said: &mpsc::Sender<CliMessage>,
) -> OutputStats {
    let mut drained = OutputStats::default();
    let mut lines = Lines::default();
    let mut chunk = vec![0; READ_BUFFER_BYTES];
    let mut garbage = 0;
    let mut handle = |line: &[u8]| match parse_line(line) {
        CliMessage::Other => {}
        CliMessage::Unparseable => garbage += u64::from(!line.is_empty()),
        other @ (CliMessage::Init(_)
        | CliMessage::Retry(_)
        | CliMessage::Answer(_)
        | CliMessage::ToolResult { .. }
        | CliMessage::Result(_)
        | CliMessage::Denied(_)) => {
            // The loop is gone only at the very end; then nobody needs to be told.
            drop(said.blocking_send(other));
        }
    };
    loop {
        let read = match output.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        pulse.reset();
        drained.bytes += read as u64;
        let whole = drained.bytes <= TRANSCRIPT_MAX_BYTES;
        let masked = redactor.push(&chunk[..read]);
        if whole && drained.transcript_error.is_none() {
            drained.transcript_error = transcript.write_all(&masked).err();
        }
        lines.push(&masked, &mut handle);
    }
    let masked = redactor.finish();
    if drained.transcript_error.is_none() {
        drained.transcript_error = transcript.write_all(&masked).err();
    }
    lines.push(&masked, &mut handle);
    lines.finish(&mut handle);
    drained.too_long = lines.too_long();
    drained.garbage = garbage;
    drained
}
