//! What the API charges, by a price table of its own: the programs under test have another.

use serde_json::Value;

/// US dollars for a million tokens: input, output, read from the cache.
const PRICES: [(&str, [f64; 3]); 4] = [
    ("claude-fable-5-2", [8.0, 40.0, 0.2]),
    ("claude-opus-5-5", [4.0, 20.0, 0.2]),
    ("claude-sonnet-5-5", [2.0, 10.0, 0.1]),
    ("claude-haiku-5-5", [0.1, 0.5, 0.01]),
];

/// US dollars for a batch; what is in it does not matter for the tests.
const BATCH: f64 = 100.0;

/// The sum of all charges.
#[derive(Debug, Default)]
pub(super) struct Bill(f64);

impl Bill {
    /// Charges the usage of a message.
    pub(super) fn charge(&mut self, message: &Value) {
        let model = message["model"].as_str().unwrap_or_default();
        let [input, output, cached] = PRICES.iter().find(|(name, _)| *name == model).map_or_else(
            // Scripts may use models without a price here; the dearest is charged.
            || [15.0, 75.0, 1.5],
            |(_, prices)| *prices,
        );
        let tokens = |name: &str| message["usage"][name].as_u64().unwrap_or(0) as f64 / 1e6;
        self.0 += tokens("input_tokens") * input
            + tokens("cache_creation_input_tokens") * input * 1.25
            + tokens("cache_read_input_tokens") * cached
            + tokens("output_tokens") * output;
    }

    pub(super) fn charge_batch(&mut self) {
        self.0 += BATCH;
    }

    pub(super) fn usd(&self) -> f64 {
        self.0
    }
}
