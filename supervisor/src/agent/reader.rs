//! Reads the agent's standard output on a separate thread: masks secrets, writes
//! the transcript, and sends the parsed messages.
//!
//! The work blocks and can use much CPU time; the event loop must keep handling
//! signals and deadlines meanwhile.

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

/// Maximum bytes per read.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Maximum size of the transcript; further output is parsed but not written.
const TRANSCRIPT_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Measures the time since the agent's last output.
#[derive(Clone, Debug)]
pub struct IdleTimer {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl IdleTimer {
    /// Creates a timer that starts now.
    #[must_use]
    pub fn new() -> Self {
        let timer = Self { start: Instant::now(), last_ms: Arc::new(AtomicU64::new(0)) };
        timer.reset();
        timer
    }

    /// Records that the agent printed output now.
    pub fn reset(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// Returns the time since the last output.
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

/// Statistics about the agent's output.
#[derive(Debug, Default)]
pub struct OutputStats {
    pub bytes: u64,
    /// Lines that were too long to parse.
    pub too_long: u64,
    /// Lines that are not in the CLI's format.
    pub garbage: u64,
    /// Why the transcript is incomplete.
    pub transcript_error: Option<io::Error>,
}

/// Starts the reader thread, which ends when every writer has closed the pipe.
///
/// # Errors
/// Returns an error if the transcript cannot be opened or the thread cannot be started.
pub fn read_output(
    output: OwnedFd,
    transcript: &Path,
    redactor: &Redactor,
    idle_timer: IdleTimer,
    message_tx: mpsc::Sender<CliMessage>,
) -> io::Result<std::thread::JoinHandle<OutputStats>> {
    let transcript = File::options().create(true).append(true).open(transcript)?;
    let redactor = redactor.stream();
    // A larger pipe saves context switches; failing to enlarge it is harmless.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, 1024 * 1024);
    std::thread::Builder::new()
        .name("agent-output".to_owned())
        .spawn(move || drain(File::from(output), transcript, redactor, &idle_timer, &message_tx))
}

fn drain(
    mut output: File,
    mut transcript: File,
    mut redactor: StreamRedactor,
    idle_timer: &IdleTimer,
    message_tx: &mpsc::Sender<CliMessage>,
) -> OutputStats {
    let mut stats = OutputStats::default();
    let mut lines = Lines::default();
    let mut chunk = vec![0; READ_BUFFER_BYTES];
    let mut unparsable = 0;
    let mut handle = |line: &[u8]| match parse_line(line) {
        CliMessage::Other => {}
        CliMessage::Unparsable => unparsable += u64::from(!line.is_empty()),
        other @ (CliMessage::Init(_)
        | CliMessage::Retry(_)
        | CliMessage::Answer(_)
        | CliMessage::ToolResult { .. }
        | CliMessage::Result(_)
        | CliMessage::Denied(_)) => {
            // The receiver is dropped only at the end of the run, when messages no longer matter.
            drop(message_tx.blocking_send(other));
        }
    };
    loop {
        let read = match output.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        idle_timer.reset();
        stats.bytes += read as u64;
        let within_limit = stats.bytes <= TRANSCRIPT_MAX_BYTES;
        let masked = redactor.push(&chunk[..read]);
        if within_limit && stats.transcript_error.is_none() {
            stats.transcript_error = transcript.write_all(&masked).err();
        }
        lines.push(&masked, &mut handle);
    }
    let masked = redactor.finish();
    if stats.transcript_error.is_none() {
        stats.transcript_error = transcript.write_all(&masked).err();
    }
    lines.push(&masked, &mut handle);
    lines.finish(&mut handle);
    stats.too_long = lines.too_long();
    stats.garbage = unparsable;
    stats
}
