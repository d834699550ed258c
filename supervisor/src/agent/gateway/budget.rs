//! What the conversations of a run spent, and what they may still spend.
//!
//! Each request reserves the most that it can cost before it is sent. All conversations of a run
//! share one budget, so spent and reserved together never exceed the limit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator_contract::outcome::{ModelUsage, Usage};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::api_error::ApiError;
use super::meter::Tokens;
use super::prices::{NanoUsd, PRICES_AS_OF};
use super::refusal::{Refusal, RefusalKind};

/// How long a request waits for the reservations of others.
const RESERVATION_TIMEOUT: Duration = Duration::from_secs(300);

/// Output tokens for which a request does not wait for more.
const ENOUGH_TOKENS: u64 = 16_384;

/// Fewest output tokens with which a request is sent.
const FEWEST_TOKENS: u64 = 1_024;

/// Most remarks that are kept.
const MAX_REMARKS: usize = 16;

/// What the conversations of one run spent; shared by all of its gateways.
#[derive(Clone, Debug)]
pub struct Spending(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: Option<NanoUsd>,
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// A reservation was released.
    released: Notify,
    /// The figures changed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    spent: NanoUsd,
    unconfirmed: NanoUsd,
    reserved: NanoUsd,
    turns: u32,
    refused: u32,
    models: BTreeMap<String, ModelSpending>,
    conversations: BTreeMap<String, ConversationSpending>,
    remarks: BTreeSet<String>,
    /// Whether a request went through a gateway of this run.
    is_used: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ModelSpending {
    tokens: Tokens,
    cost: NanoUsd,
}

/// What one conversation spent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationSpending {
    pub turns: u32,
    /// Cost in US dollars, without unconfirmed requests.
    pub cost_usd: f64,
    /// Why its last request was refused for the cost limit.
    pub cost_refusal: Option<String>,
    /// Why its last request was refused for what it asked.
    pub refusal: Option<String>,
    /// The model API's error to its last turn; none if that was answered.
    pub api_error: Option<ApiError>,
}

/// What a request can cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub conversation: &'a str,
    /// Most cost of its input, and of what the API does besides answering.
    pub input: NanoUsd,
    /// Price of an output token.
    pub output_token: NanoUsd,
    /// Output tokens that it asks for.
    pub max_tokens: u64,
}

/// A reserved part of the budget; if it is dropped, the request costs all of it.
#[derive(Debug)]
pub struct Reservation {
    spending: Spending,
    conversation: String,
    amount: NanoUsd,
    /// Output tokens that it allows.
    pub max_tokens: u64,
    is_settled: bool,
}

/// A request that was answered.
#[derive(Debug)]
pub struct Settlement<'a> {
    pub model: &'a str,
    pub tokens: Tokens,
    pub cost: NanoUsd,
    pub is_turn: bool,
}

impl Spending {
    /// Starts a run with a cost limit in US dollars; the figures are kept in `file` too.
    #[must_use]
    pub fn new(limit_usd: Option<f64>, file: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            limit: limit_usd.map(from_usd),
            file,
            state: Mutex::default(),
            released: Notify::new(),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file that keeps the figures.
    pub(super) fn file(&self) -> Option<&std::path::Path> {
        self.0.file.as_deref()
    }

    /// Waits until the figures change.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Returns what is neither spent nor reserved; `None` without a limit.
    #[must_use]
    pub fn available(&self) -> Option<NanoUsd> {
        self.0.limit.map(|limit| self.state().available(limit))
    }

    /// Reserves what a request can cost, with as many output tokens as the budget allows.
    ///
    /// # Errors
    /// Refuses a request that could exceed the limit, or that waited too long for others.
    pub async fn reserve(&self, ask: Ask<'_>) -> Result<Reservation, Refusal> {
        let deadline = Instant::now() + RESERVATION_TIMEOUT;
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            match self.try_reserve(&ask) {
                Decision::Reserved(reservation) => return Ok(reservation),
                Decision::Refused(message) => {
                    let mut state = self.state();
                    state.refused += 1;
                    state.conversation(ask.conversation).cost_refusal = Some(message.clone());
                    return Err(Refusal::new(RefusalKind::CostLimit, message));
                }
                Decision::Wait => {
                    if timeout_at(deadline, released).await.is_err() {
                        let message = "the rest of the cost limit is reserved for other requests of this run";
                        return Err(Refusal::new(RefusalKind::Busy, message));
                    }
                }
            }
        }
    }

    fn try_reserve(&self, ask: &Ask<'_>) -> Decision {
        let mut state = self.state();
        let full = ask.input.saturating_add(ask.output_token.saturating_mul(ask.max_tokens));
        let Some(limit) = self.0.limit else {
            return Decision::Reserved(self.grant(&mut state, ask, full, ask.max_tokens));
        };
        let available = state.available(limit);
        if full <= available {
            return Decision::Reserved(self.grant(&mut state, ask, full, ask.max_tokens));
        }
        let affordable = available.saturating_sub(ask.input) / ask.output_token.max(1);
        // A part of the rest, so that other conversations of the run can go on.
        let tokens = ask.max_tokens.min(affordable).min(ENOUGH_TOKENS.max(affordable / 2));
        let others = state.reserved > 0;
        let needed = ask.max_tokens.min(if others { ENOUGH_TOKENS } else { FEWEST_TOKENS });
        if ask.input <= available && tokens >= needed {
            let amount = ask.input + tokens * ask.output_token;
            return Decision::Reserved(self.grant(&mut state, ask, amount, tokens));
        }
        if others {
            return Decision::Wait;
        }
        let least = ask.input.saturating_add(needed.saturating_mul(ask.output_token));
        Decision::Refused(format!(
            "the run reached its cost limit: ${:.4} of ${:.4} are used, and the next request could cost ${:.4}",
            to_usd(state.used()),
            to_usd(limit),
            to_usd(least)
        ))
    }

    fn grant(&self, state: &mut State, ask: &Ask<'_>, amount: NanoUsd, max_tokens: u64) -> Reservation {
        state.reserved = state.reserved.saturating_add(amount);
        state.is_used = true;
        Reservation {
            spending: self.clone(),
            conversation: ask.conversation.to_owned(),
            amount,
            max_tokens,
            is_settled: false,
        }
    }

    /// Records a request that was refused for what it asked.
    pub fn record_refusal(&self, conversation: &str, message: &str) {
        let mut state = self.state();
        state.refused += 1;
        state.conversation(conversation).refusal = Some(message.to_owned());
        drop(state);
        self.remark(&format!("the gateway refused a request: {message}"));
    }

    /// Records the model API's error to a turn.
    pub fn record_api_error(&self, conversation: &str, error: ApiError) {
        self.state().conversation(conversation).api_error = Some(error);
    }

    /// Adds a remark for the outcome, once.
    pub fn remark(&self, text: &str) {
        let mut state = self.state();
        if state.remarks.len() < MAX_REMARKS {
            state.remarks.insert(text.to_owned());
        }
    }

    /// Returns the remarks for the outcome.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.state().remarks.iter().cloned().collect()
    }

    /// Returns whether a request went through a gateway of this run.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.state().is_used
    }

    /// Returns what a conversation spent; nothing if it sent no request.
    #[must_use]
    pub fn conversation(&self, id: &str) -> ConversationSpending {
        self.state().conversations.get(id).cloned().unwrap_or_default()
    }

    /// Returns the figures of the run. Requests that are not answered yet are unconfirmed.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.state();
        let model = |(name, spent): (&String, &ModelSpending)| {
            let usage = ModelUsage {
                input_tokens: spent.tokens.input,
                output_tokens: spent.tokens.output,
                cache_read_tokens: spent.tokens.cache_read,
                cache_creation_tokens: spent.tokens.cache_write_5m + spent.tokens.cache_write_1h,
                web_searches: spent.tokens.web_searches,
                cost_usd: to_usd(spent.cost),
            };
            (name.clone(), usage)
        };
        Usage {
            turns: state.turns,
            cost_usd: to_usd(state.spent),
            unconfirmed_usd: to_usd(state.unconfirmed.saturating_add(state.reserved)),
            models: state.models.iter().map(model).collect(),
            refused_requests: state.refused,
            prices_as_of: state.is_used.then(|| PRICES_AS_OF.to_owned()),
            cli_turns: None,
            cli_cost_usd: None,
        }
    }
}

enum Decision {
    Reserved(Reservation),
    Refused(String),
    Wait,
}

impl State {
    fn used(&self) -> NanoUsd {
        self.spent.saturating_add(self.unconfirmed)
    }

    fn available(&self, limit: NanoUsd) -> NanoUsd {
        limit.saturating_sub(self.used().saturating_add(self.reserved))
    }

    fn conversation(&mut self, id: &str) -> &mut ConversationSpending {
        self.conversations.entry(id.to_owned()).or_default()
    }
}

impl Reservation {
    /// Records the cost of an answered request instead of the reservation.
    pub fn settle(mut self, settlement: &Settlement<'_>) {
        let Settlement { model, tokens, cost, is_turn } = settlement;
        let mut state = self.spending.state();
        state.spent = state.spent.saturating_add(*cost);
        let entry = state.models.entry((*model).to_owned()).or_default();
        entry.cost = entry.cost.saturating_add(*cost);
        entry.tokens.accumulate(tokens);
        state.turns += u32::from(*is_turn);
        let conversation = state.conversation(&self.conversation);
        conversation.turns += u32::from(*is_turn);
        if *is_turn {
            (conversation.api_error, conversation.refusal, conversation.cost_refusal) = (None, None, None);
        }
        conversation.cost_usd += to_usd(*cost);
        state.reserved = state.reserved.saturating_sub(self.amount);
        drop(state);
        if *cost > self.amount {
            self.spending.remark(&format!(
                "a request cost ${:.4}, but at most ${:.4} were expected",
                to_usd(*cost),
                to_usd(self.amount)
            ));
        }
        self.close();
    }

    /// Releases the reservation of a request that cost nothing.
    pub fn release(mut self) {
        let mut state = self.spending.state();
        state.reserved = state.reserved.saturating_sub(self.amount);
        drop(state);
        self.close();
    }

    fn close(&mut self) {
        self.is_settled = true;
        self.spending.0.released.notify_waiters();
        self.spending.0.changed.notify_one();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut state = self.spending.state();
        state.reserved = state.reserved.saturating_sub(self.amount);
        state.unconfirmed = state.unconfirmed.saturating_add(self.amount);
        drop(state);
        self.close();
    }
}

/// Returns an amount in US dollars.
pub fn to_usd(amount: NanoUsd) -> f64 {
    amount as f64 / 1e9
}

/// Returns an amount, rounded down; nothing for negative numbers, because the cast saturates.
fn from_usd(usd: f64) -> NanoUsd {
    (usd * 1e9 + 1e-3).floor() as NanoUsd
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOLLAR: NanoUsd = 1_000_000_000;

    fn ask(input: NanoUsd, max_tokens: u64) -> Ask<'static> {
        Ask { conversation: "c", input, output_token: 10_000, max_tokens }
    }

    fn settlement(cost: NanoUsd) -> Settlement<'static> {
        Settlement { model: "m", tokens: Tokens::default(), cost, is_turn: true }
    }

    #[tokio::test]
    async fn output_is_limited_to_the_rest_of_the_budget() {
        let spending = Spending::new(Some(1.0), None);
        let reservation = spending.reserve(ask(DOLLAR / 10, 128_000)).await.unwrap();
        // Half of the rest: 90,000 tokens could be paid.
        assert_eq!(reservation.max_tokens, 45_000);
        reservation.settle(&settlement(DOLLAR / 100 * 97));
        let reservation = spending.reserve(ask(0, 128_000)).await.unwrap();
        assert_eq!(reservation.max_tokens, 3_000);
        reservation.release();
        let refusal = spending.reserve(ask(DOLLAR / 100 * 3, 128_000)).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::CostLimit);
        assert!(spending.conversation("c").cost_refusal.is_some());
        assert_eq!(spending.usage().turns, 1);
    }

    #[tokio::test]
    async fn small_request_fits_exactly() {
        let spending = Spending::new(Some(0.001), None);
        assert_eq!(spending.available(), Some(1_000_000));
        let reservation = spending.reserve(ask(0, 100)).await.unwrap();
        assert_eq!((reservation.max_tokens, spending.available()), (100, Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn request_waits_for_open_reservation() {
        let spending = Spending::new(Some(1.0), None);
        let first = spending.reserve(ask(0, 95_000)).await.unwrap();
        let waiting = tokio::spawn({
            let spending = spending.clone();
            async move { spending.reserve(ask(0, 50_000)).await.map(|reservation| reservation.max_tokens) }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished());
        first.release();
        assert_eq!(waiting.await.unwrap().unwrap(), 50_000);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_request_is_refused_as_busy_in_the_end() {
        let spending = Spending::new(Some(1.0), None);
        let _first = spending.reserve(ask(0, 100_000)).await.unwrap();
        let refusal = spending.reserve(ask(0, 50_000)).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Busy);
        assert_eq!(spending.conversation("c").cost_refusal, None);
    }

    #[tokio::test]
    async fn dropped_reservation_costs_all_of_it() {
        let spending = Spending::new(Some(1.0), None);
        drop(spending.reserve(ask(0, 50_000)).await.unwrap());
        let usage = spending.usage();
        assert_eq!((usage.cost_usd, usage.unconfirmed_usd), (0.0, 0.5));
        assert_eq!(spending.available(), Some(DOLLAR / 2));
    }

    #[tokio::test]
    async fn run_without_limit_reserves_everything_and_counts() {
        let spending = Spending::new(None, None);
        let reservation = spending.reserve(ask(u64::MAX, u64::MAX)).await.unwrap();
        assert_eq!(reservation.max_tokens, u64::MAX);
        reservation.settle(&settlement(DOLLAR));
        let usage = spending.usage();
        assert_eq!((usage.cost_usd, usage.unconfirmed_usd, spending.available()), (1.0, 0.0, None));
        assert_eq!(usage.models["m"].cost_usd, 1.0);
    }

    #[tokio::test]
    async fn parallel_requests_never_exceed_the_limit() {
        let spending = Spending::new(Some(1.0), None);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..40_u64 {
            let spending = spending.clone();
            tasks.spawn(async move {
                let Ok(reservation) = spending.reserve(ask(1_000_000 * number, 30_000)).await else {
                    return 0;
                };
                tokio::task::yield_now().await;
                // The worst that the request can cost.
                let cost = reservation.amount;
                reservation.settle(&settlement(cost));
                cost
            });
        }
        let total: NanoUsd = tasks.join_all().await.into_iter().sum();
        assert!(total <= DOLLAR && total > DOLLAR / 2, "{total}");
        assert_eq!(to_usd(total), spending.usage().cost_usd);
    }

    #[test]
    fn limits_are_converted_exactly() {
        for (usd, nano) in
            [(0.05, 50_000_000), (1e6, 1_000_000 * DOLLAR), (0.000_001, 1_000), (-1.0, 0), (f64::NAN, 0)]
        {
            assert_eq!(from_usd(usd), nano, "{usd}");
        }
    }
}
