//! Writes events to standard output and to the run's log file.
//!
//! A thread writes to standard output, so that a blocked reader never blocks the run.
//! When its queue is full, events are dropped and counted; only the outcome waits for a
//! bounded time. The log file in the workspace contains every event.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::event::{Progress, StepState};
use orchestrator_contract::{Event, EventBody, Level, Outcome, Phase, RunName, Step, bounds};

use super::text;
use crate::config::LogFormat;
use crate::redact::Redactor;

/// Maximum number of queued lines for a slow reader.
const QUEUE_LEN: usize = 4096;

/// How long to wait for a blocked reader at the end of the run.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The format of standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Json,
    Text,
}

/// Writes events; clones share the output.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Mutex<Shared>>,
    done: Arc<(Mutex<bool>, Condvar)>,
    redactor: Redactor,
}

#[derive(Debug)]
struct Shared {
    lines: Option<SyncSender<Line>>,
    file: Option<LogFile<File>>,
    run: Option<RunName>,
    seq: u64,
    dropped: u64,
    format: Format,
}

type Line = Vec<u8>;

/// File of whole lines.
#[derive(Debug)]
struct LogFile<F> {
    file: F,
    /// Length in bytes; always at the end of a line.
    len: u64,
}

impl<F: Write + SetLen> LogFile<F> {
    /// Appends a line. One that is written in part, as on a full disk, is removed again, because the
    /// next line would continue it.
    fn append(&mut self, line: &[u8]) {
        match self.file.write_all(line) {
            Ok(()) => self.len += line.len() as u64,
            Err(_) => drop(self.file.set_len(self.len)),
        }
    }
}

/// A file that can be truncated.
trait SetLen {
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

impl SetLen for File {
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }
}

impl EventLog {
    /// Creates an event log on standard output.
    ///
    /// # Errors
    /// Returns an error if the writer thread cannot be started.
    pub fn on_stdout(format: LogFormat, redactor: Redactor) -> io::Result<Self> {
        let format = match format {
            LogFormat::Json => Format::Json,
            LogFormat::Text => Format::Text,
            LogFormat::Auto if io::stdout().is_terminal() => Format::Text,
            LogFormat::Auto => Format::Json,
        };
        Self::start(io::stdout(), format, redactor)
    }

    fn start(sink: impl Write + Send + 'static, format: Format, redactor: Redactor) -> io::Result<Self> {
        let (line_tx, line_rx) = sync_channel(QUEUE_LEN);
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let writer_done = Arc::clone(&done);
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            write_lines(sink, &line_rx);
            let (flag, condition) = &*writer_done;
            *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
            condition.notify_all();
        })?;
        let shared = Shared { lines: Some(line_tx), file: None, run: None, seq: 0, dropped: 0, format };
        Ok(Self { shared: Arc::new(Mutex::new(shared)), done, redactor })
    }

    /// Adds the run's name to subsequent events and appends them to its log file too.
    ///
    /// # Errors
    /// Returns an error if the log file cannot be opened.
    pub fn attach_run(&self, run: RunName, log: &Path) -> io::Result<()> {
        let file = File::options().create(true).append(true).open(log)?;
        let file = LogFile { len: file.metadata()?.len(), file };
        let mut shared = self.lock();
        shared.run = Some(run);
        shared.file = Some(file);
        Ok(())
    }

    pub fn log(&self, level: Level, source: &str, message: impl Into<String>) {
        self.write(message.into(), EventBody::Log { level, source: source.to_owned() });
    }

    /// Writes an `info` log event of the supervisor.
    pub fn info(&self, message: impl Into<String>) {
        self.log(Level::Info, "supervisor", message);
    }

    /// Writes a `warn` log event of the supervisor.
    pub fn warn(&self, message: impl Into<String>) {
        self.log(Level::Warn, "supervisor", message);
    }

    /// Writes the start or the end of a step.
    pub fn step(&self, step: Step, state: StepState, seconds: Option<f64>, detail: &str) {
        let seconds_text = seconds.map(|seconds| format!(" in {seconds:.2} s")).unwrap_or_default();
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let message = match state {
            StepState::Started => "started".to_owned(),
            StepState::Done => format!("done{seconds_text}{detail}"),
            StepState::Failed => format!("failed{seconds_text}{detail}"),
        };
        self.write(message, EventBody::Step { step, state, seconds });
    }

    /// Reports that the run waits until another one releases the workspace.
    pub fn waiting_for(&self, holder: &str) {
        self.progress(Progress {
            phase: Phase::Pending,
            step: Step::Preflight,
            turns: 0,
            cost_usd: 0.0,
            activity: format!("waiting for {holder}, which holds the workspace"),
            activity_since: Timestamp::now(),
            branch: None,
            waiting_for: Some(holder.to_owned()),
        });
        self.info(format!("waiting for {holder}, which holds the workspace"));
    }

    pub fn progress(&self, mut progress: Progress) {
        bounds::limit(&mut progress.activity, bounds::ACTIVITY);
        self.write(progress.activity.clone(), EventBody::Progress(progress));
    }

    /// Writes the outcome, which is the last event.
    pub fn outcome(&self, outcome: &Outcome) {
        let message = format!("{}: {}", outcome.reason, outcome.message);
        self.write(message, EventBody::Outcome { outcome: Box::new(outcome.clone()) });
    }

    /// Closes the queue and waits up to `FLUSH_TIMEOUT` until all events are written.
    pub fn finish(&self) {
        self.lock().lines = None;
        let (flag, condition) = &*self.done;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        drop(condition.wait_timeout_while(guard, FLUSH_TIMEOUT, |done| !*done));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, message: String, body: EventBody) {
        let message = self.redactor.redact(&message);
        let message = bounds::truncate(&message, bounds::EVENT_MESSAGE).into_owned();
        let essential = matches!(body, EventBody::Outcome { .. });
        let mut shared = self.lock();
        shared.seq += 1;
        let event = Event {
            version: orchestrator_contract::VERSION,
            time: Timestamp::now(),
            seq: shared.seq,
            run: shared.run.clone(),
            message,
            body,
        };
        let Ok(mut json) = serde_json::to_vec(&event) else { return };
        // An outcome contains texts of the agent and of MCP servers.
        json = self.redactor.redact_document(json);
        debug_assert!(json.len() <= bounds::EVENT_LINE, "an event of {} bytes", json.len());
        json.push(b'\n');
        if let Some(file) = &mut shared.file {
            // A full disk must not end the run; writing the outcome reports it.
            file.append(&json);
        }
        let line = match shared.format {
            Format::Json => json,
            Format::Text => match text::render(&event) {
                Some(text) => format!("{text}\n").into_bytes(),
                None => return,
            },
        };
        let Some(lines) = shared.lines.clone() else { return };
        match lines.try_send(line) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(line)) if essential => {
                drop(shared);
                send_timeout(&lines, line, FLUSH_TIMEOUT);
            }
            Err(TrySendError::Full(_)) => shared.dropped += 1,
        }
    }
}

/// Sends a line, waiting up to `limit` for space in the queue (`SyncSender` has no timed send).
fn send_timeout(lines: &SyncSender<Line>, mut line: Line, limit: Duration) {
    let deadline = std::time::Instant::now() + limit;
    while std::time::Instant::now() < deadline {
        match lines.try_send(line) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            Err(TrySendError::Full(unsent)) => line = unsent,
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn write_lines(mut sink: impl Write, lines: &Receiver<Line>) {
    let mut broken = false;
    for line in lines {
        // A closed pipe must not end the run; the queue is still drained, so that no sender waits.
        if !broken && sink.write_all(&line).and_then(|()| sink.flush()).is_err() {
            broken = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Secrets;
    use secrecy::SecretString;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink that blocks until the test ends.
    struct BlockedSink(Receiver<()>);

    impl Write for BlockedSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn event_lines_are_json_without_secrets() {
        let sink = Sink::default();
        let secrets = Secrets::new().with("token", SecretString::from("ghp_verysecretvalue"));
        let event_log = EventLog::start(sink.clone(), Format::Json, Redactor::new(secrets)).unwrap();
        event_log.info("two\nlines with ghp_verysecretvalue");
        event_log.step(Step::Preflight, StepState::Done, Some(0.25), "");
        event_log.finish();
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
        assert!(!text.contains("verysecret"), "{text}");
        assert_eq!(events[1].message, "done in 0.25 s");
    }

    /// A disk with little space.
    struct Disk {
        content: Vec<u8>,
        space: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.space - self.content.len());
            self.content.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl SetLen for Disk {
        fn set_len(&mut self, len: u64) -> io::Result<()> {
            self.content.truncate(usize::try_from(len).unwrap());
            Ok(())
        }
    }

    #[test]
    fn full_disk_leaves_whole_lines_only() {
        let mut log = LogFile { file: Disk { content: Vec::new(), space: 10 }, len: 0 };
        for line in ["one\n", "two and more\n", "two\n", "three\n"] {
            log.append(line.as_bytes());
        }
        log.file.space = 100;
        log.append(b"outcome\n");
        assert_eq!(String::from_utf8(log.file.content).unwrap(), "one\ntwo\noutcome\n");
    }

    #[test]
    fn blocked_reader_never_blocks_event_log() {
        let (_hold, held) = std::sync::mpsc::channel();
        let event_log =
            EventLog::start(BlockedSink(held), Format::Json, Redactor::new(Secrets::new())).unwrap();
        for _ in 0..3 * QUEUE_LEN {
            event_log.info("line");
        }
        assert!(event_log.lock().dropped > 0);
    }
}
