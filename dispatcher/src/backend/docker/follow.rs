//! Reads the events of a run from its container's log.

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use jiff::{Timestamp, ToSpan as _};
use orchestrator_contract::Outcome;
use orchestrator_contract::layout::Layout;

use super::connect::{Engine, problem, status};
use super::handle::Docker;
use super::liveness::ContainerLiveness;
use super::{archive, inputs};
use crate::backend::{Backend as _, OnEvent, RunFollower, StoredRun};
use crate::error::Error;
use crate::task::event_fold::{EventFold, Liveness, RunSnapshot};
use crate::task::status::{RunInfo, Status};

/// How many lines of the end to read first: the outcome is the last one.
const TAIL_LINES: &str = "20";

/// A reader of a run's events that keeps its position.
pub(super) struct Follower {
    docker: Docker,
    run: StoredRun,
    fold: EventFold,
    stream: Option<BoxStream<'static, Result<LogOutput, EngineError>>>,
    /// Whether the existing log was read completely once.
    caught_up: bool,
    /// Whether an ended run's log is fully read.
    finished: bool,
    stderr: LastStderrLine,
    outage: EngineOutage,
}

/// Seconds an unreachable engine is tolerated: it may be restarting.
const OUTAGE_TOLERANCE_SECONDS: i64 = 60;

/// An outage of the engine, with the last known status.
#[derive(Debug, Default)]
struct EngineOutage {
    last: Option<Status>,
    since: Option<Timestamp>,
}

impl EngineOutage {
    /// Returns the status; during a tolerated outage the last known one.
    fn tolerate(&mut self, result: Result<Status, Error>, now: Timestamp) -> Result<Status, Error> {
        match (result, &self.last) {
            (Ok(status), _) => {
                (self.last, self.since) = (Some(status.clone()), None);
                Ok(status)
            }
            (Err(problem), Some(last)) => {
                let since = *self.since.get_or_insert(now);
                if now.duration_since(since).as_secs() < OUTAGE_TOLERANCE_SECONDS {
                    Ok(last.clone())
                } else {
                    Err(problem)
                }
            }
            (Err(problem), None) => Err(problem),
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("run", &self.run.task.run).finish_non_exhaustive()
    }
}

/// The last line of the supervisor's stderr.
#[derive(Debug, Default)]
struct LastStderrLine {
    last: String,
    current: String,
}

impl LastStderrLine {
    fn push(&mut self, bytes: &[u8]) {
        /// Maximum bytes of the line to keep.
        const MAX_BYTES: usize = 300;
        for c in String::from_utf8_lossy(bytes).chars() {
            if c != '\n' {
                if self.current.len() < MAX_BYTES {
                    self.current.push(c);
                }
            } else if !self.current.trim().is_empty() {
                self.last = std::mem::take(&mut self.current);
            }
        }
    }

    fn text(&self) -> Option<String> {
        let last = if self.current.trim().is_empty() { &self.last } else { &self.current };
        Some(last.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

impl Follower {
    /// Creates a reader at the first event.
    pub(super) fn new(docker: Docker, run: StoredRun) -> Self {
        let fold = EventFold::new(run.task.run.clone());
        Self {
            docker,
            run,
            fold,
            stream: None,
            caught_up: false,
            finished: false,
            stderr: LastStderrLine::default(),
            outage: EngineOutage::default(),
        }
    }

    /// Returns the status; reads only the tail of a finished run's log if it holds the outcome.
    pub(super) async fn status_once(mut self, now: Timestamp) -> Result<Status, Error> {
        let engine = self.docker.engine().await?.clone();
        let container = self.docker.probe(&self.run.task.run, now).await?;
        if container.liveness != Liveness::Alive {
            let mut fold = EventFold::new(self.run.task.run.clone());
            let options = LogsOptionsBuilder::new().stdout(true).tail(TAIL_LINES).build();
            let mut stream = engine.client.logs(self.run.task.run.as_str(), Some(options)).boxed();
            while let Some(Ok(chunk)) = stream.next().await {
                fold.feed(chunk.as_ref(), |_, _| {});
            }
            if fold.has_outcome() {
                (self.fold, self.finished) = (fold, true);
            }
        }
        self.compose(&engine, container, now, &mut |_, _| {}).await
    }

    async fn compose(
        &mut self,
        engine: &Engine,
        container: ContainerLiveness,
        now: Timestamp,
        each: &mut OnEvent<'_>,
    ) -> Result<Status, Error> {
        let ContainerLiveness { liveness, ended_at, error } = container;
        let observed = self.observe(engine, liveness, each).await?;
        let lost = observed.phase.is_final() && observed.outcome.is_none();
        let known = RunInfo {
            task: &self.run.task,
            submitted_at: self.run.record.submitted_at,
            workspace: self.docker.workspace(&self.run.task.service),
            lost_at: if lost { ended_at.or(Some(now)) } else { None },
            last_stderr_line: if lost { self.stderr.text().or(error) } else { None },
        };
        Ok(Status::compose(&known, observed, now))
    }

    async fn observe(
        &mut self,
        engine: &Engine,
        liveness: Liveness,
        each: &mut OnEvent<'_>,
    ) -> Result<RunSnapshot, Error> {
        match liveness {
            Liveness::Alive if self.caught_up => self.read_available(engine, each),
            Liveness::Alive => {
                self.read_all(engine, each).await?;
                self.caught_up = true;
            }
            Liveness::Ended(_) if self.finished => {}
            Liveness::Ended(_) => {
                self.stream = None;
                self.read_all(engine, each).await?;
                self.finished = true;
                if !self.fold.has_outcome() {
                    self.find_outcome(engine).await;
                }
            }
        }
        if liveness != Liveness::Alive {
            let run = &self.run.task.run;
            // Guests and secrets are no longer needed. On failure, the next status request retries.
            drop(self.docker.remove_guests(run).await);
            drop(inputs::remove_secrets(&engine.client, run.as_str()).await);
        }
        Ok(self.fold.observe(liveness))
    }

    /// Reads the log from the last event to its current end.
    async fn read_all(&mut self, engine: &Engine, each: &mut OnEvent<'_>) -> Result<(), Error> {
        self.fold.restart();
        let name = self.run.task.run.to_string();
        let mut stream = engine.client.logs(&name, Some(self.options(false))).boxed();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => self.feed(&chunk, each),
                Err(error) if status(&error) == Some(404) => return Ok(()),
                Err(error) => return Err(problem(&format!("read the log of {name}"), &error)),
            }
        }
        Ok(())
    }

    /// Reads the available log without waiting.
    fn read_available(&mut self, engine: &Engine, each: &mut OnEvent<'_>) {
        if self.stream.is_none() {
            self.fold.restart();
            let options = self.options(true);
            self.stream = Some(engine.client.logs(self.run.task.run.as_str(), Some(options)).boxed());
        }
        while let Some(stream) = &mut self.stream {
            match stream.next().now_or_never() {
                None => return,
                Some(Some(Ok(chunk))) => self.feed(&chunk, each),
                // The engine disconnected or the run ended: the next poll finds out.
                Some(Some(Err(_)) | None) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }

    fn options(&self, follow: bool) -> bollard::query_parameters::LogsOptions {
        // In whole seconds, so slightly too early; duplicate events are dropped.
        let since = self.fold.last_time().and_then(|at| at.checked_sub(2.seconds()).ok());
        let since = since.and_then(|at| i32::try_from(at.as_second()).ok()).unwrap_or_default();
        LogsOptionsBuilder::new().stdout(true).stderr(true).follow(follow).since(since).build()
    }

    fn feed(&mut self, chunk: &LogOutput, each: &mut OnEvent<'_>) {
        match chunk {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                self.fold.feed(message, &mut *each);
            }
            LogOutput::StdErr { message } => self.stderr.push(message),
            LogOutput::StdIn { message: _ } => {}
        }
    }

    /// Reads the supervisor's copy of the outcome in its private volume, in case the engine's disk was full.
    async fn find_outcome(&mut self, engine: &Engine) {
        let run = &self.run.task.run;
        let path = Layout::of_containers().run_dir(run).outcome();
        let read = archive::read(&engine.client, run.as_str(), &path.to_string_lossy()).await;
        let Ok(Some(bytes)) = read else { return };
        if let Ok(outcome) = serde_json::from_slice::<Outcome>(&bytes) {
            self.fold.set_outcome(outcome);
        }
    }
}

#[async_trait]
impl RunFollower for Follower {
    async fn status(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error> {
        let result = self.poll(now, each).await;
        if result.is_err() {
            self.stream = None;
        }
        self.outage.tolerate(result, now)
    }
}

impl Follower {
    async fn poll(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error> {
        let engine = self.docker.engine().await?.clone();
        // First the state, then the log: a container writes its whole log before it exits.
        let container = self.docker.probe(&self.run.task.run, now).await?;
        self.compose(&engine, container, now, each).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_outage_is_tolerated_for_limited_time() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let away = || Err(Error::configuration("no engine"));
        let status = || crate::task::status::tests::sample(3, crate::task::event_fold::LockState::Held);
        let mut outage = EngineOutage::default();
        assert!(outage.tolerate(away(), at(0)).is_err());
        assert!(outage.tolerate(Ok(status()), at(1)).is_ok());
        assert_eq!(outage.tolerate(away(), at(2)).unwrap(), status());
        assert!(outage.tolerate(away(), at(61)).is_ok());
        assert!(outage.tolerate(away(), at(62)).is_err());
        assert!(outage.tolerate(Ok(status()), at(63)).is_ok());
        assert!(outage.tolerate(away(), at(300)).is_ok());
    }

    #[test]
    fn last_stderr_line_skips_blank_lines() {
        let mut line = LastStderrLine::default();
        for part in ["first\nlast li", "ne\n \n", "\n"] {
            line.push(part.as_bytes());
        }
        assert_eq!(line.text().as_deref(), Some("last line"));
        line.push(b"half");
        assert_eq!(line.text().as_deref(), Some("half"));
    }
}
