//! Decides what follows a usage limit of the model: the run waits for its end, or ends. Pure.

use std::time::Duration;

use super::RunMachine;
use super::effect::{AgentPrompt, Effect};
use super::event::SessionOutcome;
use super::state::State;
use crate::failure::Failure;

impl RunMachine {
    /// Handles a session that ended at a usage limit, which ends after `wait` if that is known.
    pub(super) fn usage_limit_reached(&mut self, failure: Failure, wait: Option<Duration>) -> Vec<Effect> {
        let State::Agent { attempt } = self.state else {
            return self.agent_ended(SessionOutcome::Failed(failure));
        };
        let why = match self.quota.take(wait) {
            Ok(wait) => {
                self.state = State::WaitingForQuota { attempt };
                return vec![Effect::WaitForQuota(wait)];
            }
            Err(why) => why,
        };
        let Failure { reason, message } = failure;
        let message = match why {
            Some(why) => format!("{message}; {why}"),
            None => message,
        };
        self.agent_ended(SessionOutcome::Failed(Failure::new(reason, message)))
    }

    /// Continues the conversation, unless the wait was ended by a stop.
    pub(super) fn quota_wait_over(&mut self) -> Vec<Effect> {
        let State::WaitingForQuota { attempt } = self.state else { return vec![] };
        self.state = State::Agent { attempt };
        vec![Effect::StartAgent(0, AgentPrompt::Continue)]
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_contract::outcome::VerdictStatus;
    use orchestrator_contract::{Reason, Step};

    use super::super::event::{Limit, RunEvent, VerifyResult};
    use super::super::quota::QuotaBudget;
    use super::super::stop::StopMode;
    use super::super::{PullRequestMode, RunEnd};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns a run whose agent is at work, with two hours to wait.
    fn running() -> RunMachine {
        let (mut run, _) = RunMachine::new(None, QuotaBudget::from_minutes(120.0));
        for step in [
            Step::Preflight,
            Step::FetchPlatform,
            Step::FetchTarget,
            Step::Branch,
            Step::Documents,
            Step::Mcp,
        ] {
            run.handle(RunEvent::StepDone(step));
        }
        run
    }

    fn reached(wait: Option<Duration>) -> RunEvent {
        RunEvent::UsageLimitReached(Failure::new(Reason::ModelQuotaExceeded, "limit"), wait)
    }

    fn done() -> RunEvent {
        RunEvent::AgentEnded(SessionOutcome::Verdict(VerdictStatus::Done, String::new()))
    }

    fn failure(run: &RunMachine) -> Failure {
        let RunEnd::Outcome(failure) = run.end() else { panic!("stopped early") };
        failure
    }

    #[test]
    fn run_waits_and_continues_conversation() {
        let mut run = running();
        assert_eq!(run.handle(reached(Some(HOUR))), [Effect::WaitForQuota(HOUR)]);
        assert_eq!(run.step(), Step::Agent);
        assert_eq!(run.handle(RunEvent::QuotaWaitOver), [Effect::StartAgent(0, AgentPrompt::Continue)]);
        assert_eq!(run.handle(RunEvent::QuotaWaitOver), [], "the timer is late");
        assert_eq!(run.handle(done()), [Effect::Perform(Step::Commit)]);
        run.handle(RunEvent::Saved(1));
        assert_eq!(run.handle(RunEvent::StepDone(Step::Policy)), [Effect::Verify]);
        run.handle(RunEvent::Verified(VerifyResult::Passed));
        assert_eq!(run.handle(RunEvent::Pushed(None)), [Effect::PullRequest(PullRequestMode::Open)]);
        assert_eq!(failure(&run).reason, Reason::Completed);
    }

    #[test]
    fn wait_after_failed_verification_keeps_its_number() {
        let mut run = running();
        let verified = || RunEvent::Verified(VerifyResult::Failed("`cargo test` failed".to_owned()));
        let verify = [done(), RunEvent::Saved(1), RunEvent::StepDone(Step::Policy), verified()];
        for event in verify.clone() {
            run.handle(event);
        }
        assert_eq!(run.handle(reached(Some(HOUR))), [Effect::WaitForQuota(HOUR)]);
        run.handle(RunEvent::QuotaWaitOver);
        let effects: Vec<Effect> = verify.into_iter().flat_map(|event| run.handle(event)).collect();
        assert_eq!(effects.last(), Some(&Effect::Push), "the second failure is not sent back: {effects:?}");
        assert_eq!(failure(&run).reason, Reason::VerificationFailed);
    }

    #[test]
    fn wait_that_does_not_fit_ends_run_with_its_cause() {
        for (waits, expected) in [
            (vec![None], "limit; the run did not wait: the model API named no time"),
            (vec![Some(HOUR * 3)], "limit; the run did not wait: the limit ends in 3 h"),
            (vec![Some(HOUR), Some(HOUR * 2)], "limit; the run did not wait: the limit ends in 2 h, and 1 h"),
        ] {
            let mut run = running();
            let (last, first) = waits.split_last().unwrap();
            for wait in first {
                run.handle(reached(*wait));
                run.handle(RunEvent::QuotaWaitOver);
            }
            assert_eq!(run.handle(reached(*last)), [Effect::Perform(Step::Commit)], "{waits:?}");
            let failure = failure(&run);
            assert_eq!(failure.reason, Reason::ModelQuotaExceeded);
            assert!(failure.message.starts_with(expected), "{}", failure.message);
        }
    }

    #[test]
    fn run_without_option_ends_at_limit_with_plain_message() {
        let mut run = running();
        run.quota = QuotaBudget::from_minutes(0.0);
        assert_eq!(run.handle(reached(Some(HOUR))), [Effect::Perform(Step::Commit)]);
        assert_eq!(failure(&run), Failure::new(Reason::ModelQuotaExceeded, "limit"));
    }

    #[test]
    fn stop_or_time_limit_during_wait_saves_and_pushes() {
        for (event, reason) in [
            (RunEvent::StopRequested(StopMode::Graceful), Reason::Stopped),
            (RunEvent::LimitReached(Limit::Time), Reason::TimeLimit),
        ] {
            let mut run = running();
            run.handle(reached(Some(HOUR)));
            assert_eq!(run.handle(event), [Effect::Perform(Step::Commit)], "no agent has to exit");
            assert_eq!(run.handle(RunEvent::QuotaWaitOver), [], "the timer is late");
            assert_eq!(run.handle(RunEvent::Saved(1)), [Effect::Perform(Step::Policy)]);
            assert_eq!(run.handle(RunEvent::StepDone(Step::Policy)), [Effect::Push]);
            assert_eq!(failure(&run).reason, reason);
        }
    }

    #[test]
    fn limit_of_terminated_agent_starts_no_wait() {
        let mut run = running();
        run.handle(RunEvent::StopRequested(StopMode::Graceful));
        assert_eq!(run.handle(reached(Some(HOUR))), [Effect::Perform(Step::Commit)]);
        assert_eq!(failure(&run).reason, Reason::Stopped);
    }
}
