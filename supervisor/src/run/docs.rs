//! Transitions of a docs run, whose sessions are a batch. Pure.

use orchestrator_contract::Step;
use orchestrator_contract::outcome::VerdictStatus;

use super::RunMachine;
use super::batch::{Batch, DocsSessionResult, DocsSessionStatus, start_effects};
use super::effect::Effect;
use super::state::State;

impl RunMachine {
    pub(super) fn docs_planned(&mut self, batch: Batch) -> Vec<Effect> {
        if !self.state.awaits(Step::Documents) {
            return vec![];
        }
        if self.until == Some(Step::Documents) {
            self.finished_batch = Some(batch);
            return self.stop_after_step();
        }
        // Without sessions, no MCP server is needed; documents of earlier attempts may
        // still have to be pushed.
        if batch.is_empty() {
            return self.batch_finished(batch);
        }
        self.state = State::PreparingBatch(batch);
        vec![Effect::Perform(Step::Mcp)]
    }

    pub(super) fn session_ended(&mut self, index: usize, result: DocsSessionResult) -> Vec<Effect> {
        let State::Batch(batch, _) = &mut self.state else { return vec![] };
        let starts = batch.session_ended(index, result);
        if !batch.is_finished() {
            return start_effects(starts);
        }
        let batch = batch.clone();
        self.batch_finished(batch)
    }

    fn batch_finished(&mut self, batch: Batch) -> Vec<Effect> {
        let written = batch.items().contains(&DocsSessionStatus::Written);
        self.verdict = Some(if written { VerdictStatus::Done } else { VerdictStatus::AlreadyDone });
        // A stopped run keeps the reason of its stop; the items report the rest.
        if let Some(failure) = batch.failure() {
            self.fail(failure);
        }
        self.finished_batch = Some(batch);
        if self.until == Some(Step::Agent) {
            return self.stop_after_step();
        }
        self.save()
    }
}
