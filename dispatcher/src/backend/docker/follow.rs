//! Reads what a run tells: its container's log.

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::LogsOptionsBuilder;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use jiff::{Timestamp, ToSpan as _};
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Outcome, Reason};

use super::connect::{Engine, problem};
use super::{Docker, archive, given, spec};
use crate::backend::{Backend as _, Each, Follow, Run};
use crate::problem::Problem;
use crate::task::observe::{Life, Observed, Story};
use crate::task::status::{Known, Status};

/// How many lines of the end are read first: the outcome is the last one.
const END: &str = "20";

/// How long a container may be made and not started: whoever makes one starts it in a second.
const MAKING: i64 = 120;

/// A reader of a run's events that remembers how far it is.
pub(super) struct Follower {
    docker: Docker,
    run: Run,
    story: Story,
    stream: Option<BoxStream<'static, Result<LogOutput, Error>>>,
    /// Whether everything up to now was read once.
    caught_up: bool,
    /// Whether all that an ended run told was read.
    finished: bool,
    complaint: Complaint,
    absence: Absence,
}

/// How long an engine may be away, in seconds, before whoever follows a run is told: it may only be
/// restarting.
const PATIENCE: i64 = 60;

/// Whether the engine is away, and what was known before.
#[derive(Debug, Default)]
struct Absence {
    last: Option<Status>,
    since: Option<Timestamp>,
}

impl Absence {
    /// The status, or the last one known as long as there is patience.
    fn bridge(&mut self, result: Result<Status, Problem>, now: Timestamp) -> Result<Status, Problem> {
        match (result, &self.last) {
            (Ok(status), _) => {
                (self.last, self.since) = (Some(status.clone()), None);
                Ok(status)
            }
            (Err(problem), Some(last)) => {
                let since = *self.since.get_or_insert(now);
                if now.duration_since(since).as_secs() < PATIENCE { Ok(last.clone()) } else { Err(problem) }
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
struct Complaint {
    last: String,
    begun: String,
}

impl Complaint {
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
pub(super) struct Look {
    /// Whether it lives.
    pub(super) life: Life,
    /// Since when not.
    pub(super) ended_at: Option<Timestamp>,
    /// What the engine complains about.
    pub(super) complaint: Option<String>,
}

/// What a container's state says about its run.
pub(super) fn tell_life(state: &ContainerState, made_at: Option<Timestamp>, now: Timestamp) -> Look {
    let ended_at = || {
        let at: Option<Timestamp> = state.finished_at.as_deref()?.parse().ok();
        at.filter(|at| *at > Timestamp::UNIX_EPOCH)
    };
    let complaint = state.error.clone().filter(|error| !error.is_empty());
    let alive = Look { life: Life::Alive, ended_at: None, complaint: None };
    match state.status {
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING,
        ) => alive,
        Some(ContainerStateStatusEnum::CREATED) => {
            let old = made_at.is_some_and(|at| now.duration_since(at).as_secs() > MAKING);
            if old || complaint.is_some() {
                let complaint = complaint.or_else(|| Some("its container was never started".to_owned()));
                Look { life: Life::Ended(Reason::Lost), ended_at: made_at, complaint }
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
            let reason = if killed { Reason::OutOfMemory } else { Reason::Lost };
            Look { life: Life::Ended(reason), ended_at: ended_at(), complaint }
        }
    }
}

impl Follower {
    /// A reader at the beginning of a run.
    pub(super) fn new(docker: Docker, run: Run) -> Self {
        let story = Story::new(run.task.run.clone());
        Self {
            docker,
            run,
            story,
            stream: None,
            caught_up: false,
            finished: false,
            complaint: Complaint::default(),
            absence: Absence::default(),
        }
    }

    /// Where a run stands; of one that has ended only the end is read, if its outcome is there.
    pub(super) async fn look_once(mut self, now: Timestamp) -> Result<Status, Problem> {
        let engine = self.docker.engine().await?.clone();
        let look = self.docker.look(&self.run.task.run, now).await?;
        if look.life != Life::Alive {
            let mut story = Story::new(self.run.task.run.clone());
            let options = LogsOptionsBuilder::new().stdout(true).tail(END).build();
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
        look: Look,
        now: Timestamp,
        each: &mut Each<'_>,
    ) -> Result<Status, Problem> {
        let Look { life, ended_at, complaint } = look;
        let observed = self.observe(engine, life, each).await?;
        let lost = observed.phase.is_final() && observed.outcome.is_none();
        let known = Known {
            task: &self.run.task,
            submitted_at: self.run.record.submitted_at,
            workspace: self.docker.workspace(&self.run.task.service),
            lost_at: if lost { ended_at.or(Some(now)) } else { None },
            complaint: if lost { self.complaint.text().or(complaint) } else { None },
        };
        Ok(Status::compose(&known, observed, now))
    }

    async fn observe(
        &mut self,
        engine: &Engine,
        life: Life,
        each: &mut Each<'_>,
    ) -> Result<Observed, Problem> {
        match life {
            Life::Alive if self.caught_up => self.read_what_is_there(engine, each),
            Life::Alive => {
                self.read_all(engine, each).await?;
                self.caught_up = true;
            }
            Life::Ended(_) if self.finished => {}
            Life::Ended(_) => {
                self.stream = None;
                self.read_all(engine, each).await?;
                self.finished = true;
                if !self.story.has_outcome() {
                    self.find_outcome(engine).await;
                }
            }
        }
        if life != Life::Alive {
            // The secrets have done their duty. Who cannot remove them now leaves it to who looks next.
            drop(given::forget(&engine.client, self.run.task.run.as_str()).await);
        }
        Ok(self.story.observe(life))
    }

    /// Reads from what was told last to the end of what is there.
    async fn read_all(&mut self, engine: &Engine, each: &mut Each<'_>) -> Result<(), Problem> {
        self.story.rewind();
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
    fn read_what_is_there(&mut self, engine: &Engine, each: &mut Each<'_>) {
        if self.stream.is_none() {
            self.story.rewind();
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

    fn take(&mut self, chunk: &LogOutput, each: &mut Each<'_>) {
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
        let path = Layout::new(spec::WORKSPACE).run(run).outcome();
        let read = archive::read(&engine.client, run.as_str(), &path.to_string_lossy()).await;
        let Ok(Some(bytes)) = read else { return };
        if let Ok(outcome) = serde_json::from_slice::<Outcome>(&bytes) {
            self.story.found(outcome);
        }
    }
}

#[async_trait]
impl Follow for Follower {
    async fn status(&mut self, now: Timestamp, each: &mut Each<'_>) -> Result<Status, Problem> {
        let result = self.look_now(now, each).await;
        if result.is_err() {
            self.stream = None;
        }
        self.absence.bridge(result, now)
    }
}

impl Follower {
    async fn look_now(&mut self, now: Timestamp, each: &mut Each<'_>) -> Result<Status, Problem> {
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
    fn a_containers_state_tells_whether_its_run_lives_and_why_not() {
        use ContainerStateStatusEnum::{CREATED, DEAD, EXITED, PAUSED, RUNNING};
        let now: Timestamp = "2026-11-22T12:06:00Z".parse().unwrap();
        let made_at = Some("2026-11-22T12:05:00Z".parse().unwrap());
        let life = |state: &ContainerState| tell_life(state, made_at, now).life;
        let cases = [
            (state(RUNNING, 0, false), Life::Alive),
            (state(RUNNING, 0, true), Life::Alive),
            (state(PAUSED, 0, false), Life::Alive),
            (state(CREATED, 0, false), Life::Alive),
            (state(EXITED, 0, false), Life::Ended(Reason::Lost)),
            (state(EXITED, 137, false), Life::Ended(Reason::Lost)),
            (state(EXITED, 137, true), Life::Ended(Reason::OutOfMemory)),
            (state(EXITED, 1, true), Life::Ended(Reason::Lost)),
            (state(DEAD, 0, false), Life::Ended(Reason::Lost)),
            (ContainerState::default(), Life::Ended(Reason::Lost)),
        ];
        for (state, expected) in cases {
            assert_eq!(life(&state), expected, "{state:?}");
        }
        let ended = tell_life(&state(EXITED, 0, false), made_at, now).ended_at.unwrap();
        assert_eq!(ended.to_string(), "2026-11-22T12:00:00.5Z");
    }

    #[test]
    fn a_container_that_nobody_starts_is_no_run_at_work() {
        let made = state(ContainerStateStatusEnum::CREATED, 0, false);
        let now: Timestamp = "2026-11-22T12:06:00Z".parse().unwrap();
        let life = |made_at: &str| tell_life(&made, made_at.parse().ok(), now).life;
        assert_eq!(life("2026-11-22T12:05:00Z"), Life::Alive);
        assert_eq!(life("2026-11-22T12:00:00Z"), Life::Ended(Reason::Lost));
        let failed = ContainerState { error: Some("no such network".to_owned()), ..made.clone() };
        let look = tell_life(&failed, "2026-11-22T12:05:59Z".parse().ok(), now);
        assert_eq!(
            (look.life, look.complaint.as_deref()),
            (Life::Ended(Reason::Lost), Some("no such network"))
        );
    }

    #[test]
    fn an_engine_that_restarts_is_waited_for_and_not_for_ever() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let away = || Err(Problem::configuration("no engine"));
        let status = || crate::task::status::tests::sample(3, crate::task::observe::Lock::Held);
        let mut absence = Absence::default();
        assert!(absence.bridge(away(), at(0)).is_err());
        assert!(absence.bridge(Ok(status()), at(1)).is_ok());
        assert_eq!(absence.bridge(away(), at(2)).unwrap(), status());
        assert!(absence.bridge(away(), at(61)).is_ok());
        assert!(absence.bridge(away(), at(62)).is_err());
        assert!(absence.bridge(Ok(status()), at(63)).is_ok());
        assert!(absence.bridge(away(), at(300)).is_ok());
    }

    #[test]
    fn the_last_words_are_the_last_line_that_says_something() {
        let mut complaint = Complaint::default();
        for part in ["first\nsec", "ond\n \n", "\n"] {
            complaint.take(part.as_bytes());
        }
        assert_eq!(complaint.text().as_deref(), Some("second"));
        complaint.take(b"half");
        assert_eq!(complaint.text().as_deref(), Some("half"));
    }
}
