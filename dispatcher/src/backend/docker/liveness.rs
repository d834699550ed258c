//! Whether a run is alive, from its container's state.

use bollard::models::{ContainerState, ContainerStateStatusEnum};
use jiff::Timestamp;
use orchestrator_contract::Reason;

use crate::task::event_fold::Liveness;

/// Maximum seconds from creating to starting a container; it usually takes one.
const START_TIMEOUT_SECONDS: i64 = 120;

/// Whether a container is alive, according to the engine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContainerLiveness {
    /// Alive or ended.
    pub(super) liveness: Liveness,
    /// When it ended.
    pub(super) ended_at: Option<Timestamp>,
    /// The engine's error message.
    pub(super) error: Option<String>,
}

/// Derives the liveness of a run from its container's state.
pub(super) fn liveness(
    state: &ContainerState,
    created_at: Option<Timestamp>,
    now: Timestamp,
) -> ContainerLiveness {
    let ended_at = || {
        let at: Option<Timestamp> = state.finished_at.as_deref()?.parse().ok();
        at.filter(|at| *at > Timestamp::UNIX_EPOCH)
    };
    let error = state.error.clone().filter(|error| !error.is_empty());
    let alive = ContainerLiveness { liveness: Liveness::Alive, ended_at: None, error: None };
    match state.status {
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING,
        ) => alive,
        Some(ContainerStateStatusEnum::CREATED) => {
            let old = created_at.is_some_and(|at| now.duration_since(at).as_secs() > START_TIMEOUT_SECONDS);
            if old || error.is_some() {
                let error = error.or_else(|| Some("the container was never started".to_owned()));
                ContainerLiveness {
                    liveness: Liveness::Ended(Reason::SupervisorLost),
                    ended_at: created_at,
                    error,
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
            // The flag alone only says that some process in the container was killed.
            let killed = state.oom_killed == Some(true) && state.exit_code == Some(137);
            let reason = if killed { Reason::OutOfMemory } else { Reason::SupervisorLost };
            ContainerLiveness { liveness: Liveness::Ended(reason), ended_at: ended_at(), error }
        }
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
        let created_at = Some("2026-11-22T12:05:00Z".parse().unwrap());
        let liveness_of = |state: &ContainerState| liveness(state, created_at, now).liveness;
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
            assert_eq!(liveness_of(&state), expected, "{state:?}");
        }
        let ended = liveness(&state(EXITED, 0, false), created_at, now).ended_at.unwrap();
        assert_eq!(ended.to_string(), "2026-11-22T12:00:00.5Z");
    }

    #[test]
    fn unstarted_container_becomes_supervisor_lost_after_timeout() {
        let created = state(ContainerStateStatusEnum::CREATED, 0, false);
        let now: Timestamp = "2026-11-22T12:06:00Z".parse().unwrap();
        let liveness_of = |created_at: &str| liveness(&created, created_at.parse().ok(), now).liveness;
        assert_eq!(liveness_of("2026-11-22T12:05:00Z"), Liveness::Alive);
        assert_eq!(liveness_of("2026-11-22T12:00:00Z"), Liveness::Ended(Reason::SupervisorLost));
        let failed = ContainerState { error: Some("no such network".to_owned()), ..created.clone() };
        let container = liveness(&failed, "2026-11-22T12:05:59Z".parse().ok(), now);
        assert_eq!(
            (container.liveness, container.error.as_deref()),
            (Liveness::Ended(Reason::SupervisorLost), Some("no such network"))
        );
    }
}
