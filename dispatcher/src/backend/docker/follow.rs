//! Reads what a run tells: its container's log.

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::LogsOptionsBuilder;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use jiff::{Timestamp, ToSpan as _};
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Outcome, Reason};

use super::connect::{Engine, problem};
use super::{Docker, archive, inputs, spec};
use crate::backend::{Backend as _, OnEvent, RunFollower, StoredRun};
use crate::error::Error;
use crate::task::event_fold::{EventFold, Liveness, RunSnapshot};
use crate::task::status::{RunInfo, Status};

/// How many lines of the end are read first: the outcome is the last one.
const TAIL_LINES: &str = "20";

/// How long a container may be made and not started: whoever makes one starts it in a second.
const START_TIMEOUT_SECONDS: i64 = 120;

/// A reader of a run's events that remembers how far it is.
pub(super) struct Follower {
    docker: Docker,
    run: StoredRun,
    story: EventFold,
    stream: Option<BoxStream<'static, Result<LogOutput, EngineError>>>,
    /// Whether everything up to now was read once.
    caught_up: bool,
    /// Whether all that an ended run told was read.
    finished: bool,
    complaint: LastStderrLine,
    absence: EngineOutage,
}

/// How long an engine may be away, in seconds, before whoever follows a run is told: it may only be
/// restarting.
const OUTAGE_TOLERANCE_SECONDS: i64 = 60;

/// Whether the engine is away, and what was known before.
#[derive(Debug, Default)]
struct EngineOutage {
    last: Option<Status>,
    since: Option<Timestamp>,
}

impl EngineOutage {
    /// The status, or the last one known as long as there is patience.
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

/// The last line that the supervisor wrote to stderr.
#[derive(Debug, Default)]
struct LastStderrLine {
    last: String,
    begun: String,
}

impl LastStderrLine {
    fn take(&mut self, bytes: &[u8]) {
        /// As much as anybody wants to read of it.
        const MOST: usize = 300;
        for c in String::from_utf8_lossy(bytes).chars() {
            if c != '\n' {
                if self.begun.len() < MOST {
                    self.begun.push(c);
                }
            } else if !self.begun.trim().is_empty() {
                self.last = std::mem::take(&mut self.begun);
            }
        }
    }

    fn text(&self) -> Option<String> {
        let last = if self.begun.trim().is_empty() { &self.last } else { &self.begun };
        Some(last.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// What the engine says of a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContainerLiveness {
    /// Whether it lives.
    pub(super) life: Liveness,
    /// Since when not.
    pub(super) ended_at: Option<Timestamp>,
    /// What the engine complains about.
    pub(super) complaint: Option<String>,
}

/// What a container's state says about its run.
pub(super) fn liveness(
    state: &ContainerState,
    made_at: Option<Timestamp>,
    now: Timestamp,
) -> ContainerLiveness {
    let ended_at = || {
        let at: Option<Timestamp> = state.finished_at.as_deref()?.parse().ok();
        at.filter(|at| *at > Timestamp::UNIX_EPOCH)
    };
    let complaint = state.error.clone().filter(|error| !error.is_empty());
    let alive = ContainerLiveness { life: Liveness::Alive, ended_at: None, complaint: None };
    match state.status {
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING,
        ) => alive,
        Some(ContainerStateStatusEnum::CREATED) => {
            let old = made_at.is_some_and(|at| now.duration_since(at).as_secs() > START_TIMEOUT_SECONDS);
            if old || complaint.is_some() {
                let complaint = complaint.or_else(|| Some("its container was never started".to_owned()));
                ContainerLiveness {
                    life: Liveness::Ended(Reason::SupervisorLost),
                    ended_at: made_at,
                    complaint,
                }
            } else {
                alive
            }
        }
        None
        | Some(
            ContainerStateStatusEnum::EMPTY
            | ContainerStateStatusEnum::EXITED
            | ContainerStateStatusEnum::REMOVING
            | ContainerStateStatusEnum::DEAD,
        ) => {
            // The flag alone says only that something in the container was killed at some time.
            let killed = state.oom_killed == Some(true) && state.exit_code == Some(137);
            let reason = if killed { Reason::OutOfMemory } else { Reason::SupervisorLost };
            ContainerLiveness { life: Liveness::Ended(reason), ended_at: ended_at(), complaint }
        }
    }
}

impl Follower {
    /// A reader at the beginning of a run.
    pub(super) fn new(docker: Docker, run: StoredRun) -> Self {
        let story = EventFold::new(run.task.run.clone());
        Self {
            docker,
            run,
            story,
            stream: None,
            caught_up: false,
            finished: false,
            complaint: LastStderrLine::default(),
            absence: EngineOutage::default(),
        }
    }

    /// Where a run stands; of one that has ended only the end is read, if its outcome is there.
    pub(super) async fn status_once(mut self, now: Timestamp) -> Result<Status, Error> {
        let engine = self.docker.engine().await?.clone();
        let look = self.docker.look(&self.run.task.run, now).await?;
        if look.life != Liveness::Alive {
            let mut story = EventFold::new(self.run.task.run.clone());
            let options = LogsOptionsBuilder::new().stdout(true).tail(TAIL_LINES).build();
            let mut stream = engine.client.logs(self.run.task.run.as_str(), Some(options)).boxed();
            while let Some(Ok(chunk)) = stream.next().await {
                story.feed(chunk.as_ref(), |_, _| {});
            }
            if story.has_outcome() {
                (self.story, self.finished) = (story, true);
            }
        }
        self.compose(&engine, look, now, &mut |_, _| {}).await
    }

    async fn compose(
        &mut self,
        engine: &Engine,
        look: ContainerLiveness,
        now: Timestamp,
        each: &mut OnEvent<'_>,
    ) -> Result<Status, Error> {
        let ContainerLiveness { life, ended_at, complaint } = look;
        let observed = self.observe(engine, life, each).await?;
        let lost = observed.phase.is_final() && observed.outcome.is_none();
        let known = RunInfo {
            task: &self.run.task,
            submitted_at: self.run.record.submitted_at,
            workspace: self.docker.workspace(&self.run.task.service),
            lost_at: if lost { ended_at.or(Some(now)) } else { None },
            last_stderr_line: if lost { self.complaint.text().or(complaint) } else { None },
        };
        Ok(Status::compose(&known, observed, now))
    }

    async fn observe(
        &mut self,
        engine: &Engine,
        life: Liveness,
        each: &mut OnEvent<'_>,
    ) -> Result<RunSnapshot, Error> {
        match life {
            Liveness::Alive if self.caught_up => self.read_what_is_there(engine, each),
            Liveness::Alive => {
                self.read_all(engine, each).await?;
                self.caught_up = true;
            }
            Liveness::Ended(_) if self.finished => {}
            Liveness::Ended(_) => {
                self.stream = None;
                self.read_all(engine, each).await?;
                self.finished = true;
                if !self.story.has_outcome() {
                    self.find_outcome(engine).await;
                }
            }
        }
        if life != Liveness::Alive {
            // The secrets have done their duty. Who cannot remove them now leaves it to who looks next.
            drop(inputs::remove_secrets(&engine.client, self.run.task.run.as_str()).await);
        }
        Ok(self.story.observe(life))
    }

    /// Reads from what was told last to the end of what is there.
    async fn read_all(&mut self, engine: &Engine, each: &mut OnEvent<'_>) -> Result<(), Error> {
        self.story.restart();
        let name = self.run.task.run.to_string();
        let mut stream = engine.client.logs(&name, Some(self.options(false))).boxed();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => self.take(&chunk, each),
                Err(error) if super::connect::status(&error) == Some(404) => return Ok(()),
                Err(error) => return Err(problem(&format!("read the log of {name}"), &error)),
            }
        }
        Ok(())
    }

    /// Reads what has come since, without waiting.
    fn read_what_is_there(&mut self, engine: &Engine, each: &mut OnEvent<'_>) {
        if self.stream.is_none() {
            self.story.restart();
            let options = self.options(true);
            self.stream = Some(engine.client.logs(self.run.task.run.as_str(), Some(options)).boxed());
        }
        while let Some(stream) = &mut self.stream {
            match stream.next().now_or_never() {
                None => return,
                Some(Some(Ok(chunk))) => self.take(&chunk, each),
                // The engine broke off, or the run has ended: the next look finds out.
                Some(Some(Err(_)) | None) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }

    fn options(&self, follow: bool) -> bollard::query_parameters::LogsOptions {
        // In whole seconds, and so a little too early; what comes twice is told once.
        let since = self.story.last_time().and_then(|at| at.checked_sub(2.seconds()).ok());
        let since = since.and_then(|at| i32::try_from(at.as_second()).ok()).unwrap_or_default();
        LogsOptionsBuilder::new().stdout(true).stderr(true).follow(follow).since(since).build()
    }

    fn take(&mut self, chunk: &LogOutput, each: &mut OnEvent<'_>) {
        match chunk {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                self.story.feed(message, &mut *each);
            }
            LogOutput::StdErr { message } => self.complaint.take(message),
            LogOutput::StdIn { message: _ } => {}
        }
    }

    /// The supervisor keeps its outcome in the workspace too: that one counts where the engine's disk
    /// was full.
    async fn find_outcome(&mut self, engine: &Engine) {
        let run = &self.run.task.run;
        let path = Layout::new(spec::WORKSPACE).run_dir(run).outcome();
        let read = archive::read(&engine.client, run.as_str(), &path.to_string_lossy()).await;
        let Ok(Some(bytes)) = read else { return };
        if let Ok(outcome) = serde_json::from_slice::<Outcome>(&bytes) {
            self.story.set_outcome(outcome);
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
        self.absence.tolerate(result, now)
    }
}

impl Follower {
    async fn poll(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error> {
        let engine = self.docker.engine().await?.clone();
        // First the state, then the log: whoever has ended has written everything before.
        let look = self.docker.look(&self.run.task.run, now).await?;
        self.compose(&engine, look, now, each).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: ContainerStateStatusEnum, exit_code: i64, oom: bool) -> ContainerState {
        ContainerState {
            status: Some(status),
            exit_code: Some(exit_code),
            oom_killed: Some(oom),
            finished_at: Some("2026-11-22T12:00:00.5Z".to_owned()),
            ..ContainerState::default()
        }
    }

    #[test]
    fn container_state_maps_to_liveness_with_reason() {
        use ContainerStateStatusEnum::{CREATED, DEAD, EXITED, PAUSED, RUNNING};
        let now: Timestamp = "2026-11-22T12:06:00Z".parse().unwrap();
        let made_at = Some("2026-11-22T12:05:00Z".parse().unwrap());
        let life = |state: &ContainerState| liveness(state, made_at, now).life;
        let cases = [
            (state(RUNNING, 0, false), Liveness::Alive),
            (state(RUNNING, 0, true), Liveness::Alive),
            (state(PAUSED, 0, false), Liveness::Alive),
            (state(CREATED, 0, false), Liveness::Alive),
            (state(EXITED, 0, false), Liveness::Ended(Reason::SupervisorLost)),
            (state(EXITED, 137, false), Liveness::Ended(Reason::SupervisorLost)),
            (state(EXITED, 137, true), Liveness::Ended(Reason::OutOfMemory)),
            (state(EXITED, 1, true), Liveness::Ended(Reason::SupervisorLost)),
            (state(DEAD, 0, false), Liveness::Ended(Reason::SupervisorLost)),
            (ContainerState::default(), Liveness::Ended(Reason::SupervisorLost)),
        ];
        for (state, expected) in cases {
            assert_eq!(life(&state), expected, "{state:?}");
        }
        let ended = liveness(&state(EXITED, 0, false), made_at, now).ended_at.unwrap();
        assert_eq!(ended.to_string(), "2026-11-22T12:00:00.5Z");
    }

    #[test]
    fn unstarted_container_becomes_supervisor_lost_after_timeout() {
        let made = state(ContainerStateStatusEnum::CREATED, 0, false);
        let now: Timestamp = "2026-11-22T12:06:00Z".parse().unwrap();
        let life = |made_at: &str| liveness(&made, made_at.parse().ok(), now).life;
        assert_eq!(life("2026-11-22T12:05:00Z"), Liveness::Alive);
        assert_eq!(life("2026-11-22T12:00:00Z"), Liveness::Ended(Reason::SupervisorLost));
        let failed = ContainerState { error: Some("no such network".to_owned()), ..made.clone() };
        let look = liveness(&failed, "2026-11-22T12:05:59Z".parse().ok(), now);
        assert_eq!(
            (look.life, look.complaint.as_deref()),
            (Liveness::Ended(Reason::SupervisorLost), Some("no such network"))
        );
    }

    #[test]
    fn engine_outage_is_tolerated_for_limited_time() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let away = || Err(Error::configuration("no engine"));
        let status = || crate::task::status::tests::sample(3, crate::task::event_fold::LockState::Held);
        let mut absence = EngineOutage::default();
        assert!(absence.tolerate(away(), at(0)).is_err());
        assert!(absence.tolerate(Ok(status()), at(1)).is_ok());
        assert_eq!(absence.tolerate(away(), at(2)).unwrap(), status());
        assert!(absence.tolerate(away(), at(61)).is_ok());
        assert!(absence.tolerate(away(), at(62)).is_err());
        assert!(absence.tolerate(Ok(status()), at(63)).is_ok());
        assert!(absence.tolerate(away(), at(300)).is_ok());
    }

    #[test]
    fn last_stderr_line_skips_blank_lines() {
        let mut complaint = LastStderrLine::default();
        for part in ["first\nsec", "ond\n \n", "\n"] {
            complaint.take(part.as_bytes());
        }
        assert_eq!(complaint.text().as_deref(), Some("second"));
        complaint.take(b"half");
        assert_eq!(complaint.text().as_deref(), Some("half"));
    }
}
