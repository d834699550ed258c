//! Prices of the model API by model. Pure.
//!
//! Source: <https://platform.claude.com/docs/en/about-claude/pricing>, and the price table of the
//! Claude Code CLI 2.1.330, which agrees. An update changes [`PRICES_AS_OF`] too.

/// Date of the price table.
pub const PRICES_AS_OF: &str = "2026-11-26";

/// One thousand-millionth of a US dollar: every price is a whole number of them for each token.
pub type NanoUsd = u64;

/// Price of one web search by the API: 10 US dollars for 1,000.
pub const WEB_SEARCH: NanoUsd = 10_000_000;

/// Prices of one token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rates {
    pub input: NanoUsd,
    pub output: NanoUsd,
    pub cache_read: NanoUsd,
    /// Writing to the cache for 5 minutes: 1.25 times the input.
    pub cache_write_5m: NanoUsd,
    /// Writing to the cache for an hour: twice the input.
    pub cache_write_1h: NanoUsd,
}

/// Prices of a model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Price {
    /// Model name without date.
    pub model: &'static str,
    rates: Rates,
    /// Prices of requests with a prompt of more tokens than this.
    long_prompt: Option<(u64, Rates)>,
}

/// Returns rates; a thousandth of a US dollar for a million tokens is a [`NanoUsd`] for a token.
const fn rates(input: NanoUsd, output: NanoUsd, cache_read: NanoUsd) -> Rates {
    Rates { input, output, cache_read, cache_write_5m: input * 5 / 4, cache_write_1h: input * 2 }
}

const fn flat(model: &'static str, input: NanoUsd, output: NanoUsd, cache_read: NanoUsd) -> Price {
    Price { model, rates: rates(input, output, cache_read), long_prompt: None }
}

/// The price table, in thousandths of a US dollar for a million tokens: input, output, cache read.
const PRICES: &[Price] = &[
    flat("claude-fable-5-2", 8_000, 40_000, 200),
    flat("claude-fable-5-1", 10_000, 50_000, 250),
    flat("claude-mythos-5-1", 10_000, 50_000, 250),
    flat("claude-fable-5", 10_000, 50_000, 1_000),
    flat("claude-mythos-5", 10_000, 50_000, 1_000),
    flat("claude-opus-5-5", 4_000, 20_000, 200),
    flat("claude-opus-5", 5_000, 25_000, 500),
    flat("claude-opus-4-8", 5_000, 25_000, 500),
    flat("claude-opus-4-7", 5_000, 25_000, 500),
    flat("claude-opus-4-6", 5_000, 25_000, 500),
    flat("claude-opus-4-5", 5_000, 25_000, 500),
    flat("claude-opus-4-1", 15_000, 75_000, 1_500),
    flat("claude-opus-4", 15_000, 75_000, 1_500),
    flat("claude-sonnet-5-5", 2_000, 10_000, 100),
    flat("claude-sonnet-5", 2_000, 10_000, 200),
    flat("claude-sonnet-4-6", 3_000, 15_000, 300),
    flat("claude-sonnet-4-5", 3_000, 15_000, 300),
    flat("claude-sonnet-4", 3_000, 15_000, 300),
    Price {
        model: "claude-haiku-5-5",
        rates: rates(100, 500, 10),
        long_prompt: Some((100_000, rates(500, 2_500, 50))),
    },
    flat("claude-haiku-4-5", 1_000, 5_000, 100),
    flat("claude-3-5-haiku", 800, 4_000, 80),
];

/// The dearest known price, used for unknown models.
const DEAREST: Price = flat("unknown", 15_000, 75_000, 1_500);

/// Returns the price of a model, or `None` if it is unknown.
///
/// A name may end with a date, `-latest` or `[1m]`.
#[must_use]
pub fn find_price(model: &str) -> Option<Price> {
    let name = model.trim_end_matches("[1m]").trim_end_matches("-latest");
    let undated = name.rsplit_once('-').filter(|(_, date)| is_date(date)).map_or(name, |(rest, _)| rest);
    PRICES.iter().find(|price| price.model == undated).copied()
}

fn is_date(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the price of a model, the dearest known one if it is unknown.
#[must_use]
pub fn price_or_dearest(model: &str) -> Price {
    find_price(model).unwrap_or(DEAREST)
}

impl Price {
    /// Returns the rates of a request whose prompt has this many tokens.
    #[must_use]
    pub fn rates(&self, prompt_tokens: u64) -> Rates {
        match self.long_prompt {
            Some((threshold, rates)) if prompt_tokens > threshold => rates,
            Some(_) | None => self.rates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dated_and_long_context_names_have_price_of_model() {
        for name in [
            "claude-sonnet-5-5",
            "claude-sonnet-5-5-20260928",
            "claude-sonnet-5-5[1m]",
            "claude-sonnet-5-5-latest",
        ] {
            assert_eq!(find_price(name).map(|price| price.model), Some("claude-sonnet-5-5"), "{name}");
        }
        assert_eq!(find_price("claude-opus-4-20250514").map(|price| price.rates(0).input), Some(15_000));
    }

    #[test]
    fn unknown_model_costs_as_much_as_dearest() {
        for name in ["claude-sonnet-6", "mistake-9", "", "claude-opus-4-9", "claude-sonnet-5-55"] {
            assert_eq!(find_price(name), None, "{name}");
            let dearest = price_or_dearest(name).rates(0);
            for price in PRICES {
                for rates in [price.rates(0), price.rates(u64::MAX)] {
                    assert!(dearest.input >= rates.input && dearest.output >= rates.output, "{price:?}");
                    assert!(dearest.cache_read >= rates.cache_read, "{price:?}");
                    assert!(dearest.cache_write_1h >= rates.cache_write_1h, "{price:?}");
                }
            }
        }
    }

    #[test]
    fn long_prompt_of_haiku_has_its_own_rates() {
        let price = find_price("claude-haiku-5-5").unwrap();
        assert_eq!(price.rates(100_000), rates(100, 500, 10));
        assert_eq!(price.rates(100_001), rates(500, 2_500, 50));
        assert_eq!(price.rates(0).cache_write_5m, 125);
    }
}
