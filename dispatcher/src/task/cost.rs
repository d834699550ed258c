//! What runs cost, summed by day, service or model. Pure.

use std::collections::BTreeMap;

use orchestrator_contract::figures;
use serde::Serialize;

use super::run_table::TableStyle;
use super::status::Status;
use super::text::{colorize, sanitize};
use super::word_wrap::pad;

/// What to sum by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CostKey {
    /// Day of submission, in UTC.
    Day,
    Service,
    Model,
}

impl CostKey {
    /// Returns the name in text and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Service => "service",
            Self::Model => "model",
        }
    }
}

/// The sum of a day, service or model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CostSum {
    /// Day, service or model.
    pub key: String,
    pub runs: u32,
    /// Turns of the agent; unknown by model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    pub cost_usd: f64,
}

/// Sums of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// What the sums are by.
    pub by: &'static str,
    /// Days with the newest first; services and models with the most expensive first.
    pub sums: Vec<CostSum>,
    pub total: CostSum,
}

/// Name of the model where the record has none: the run has not finished.
const UNKNOWN_MODEL: &str = "unknown";

impl Costs {
    /// Sums the costs of runs.
    #[must_use]
    pub fn sum(runs: &[Status], by: CostKey) -> Self {
        let mut sums: BTreeMap<String, CostSum> = BTreeMap::new();
        let mut total = CostSum { key: "total".to_owned(), turns: Some(0), ..CostSum::default() };
        for status in runs {
            total.add(Some(status.turns), status.cost_usd);
            for (key, turns, cost_usd) in shares(status, by) {
                sums.entry(key).or_default().add(turns, cost_usd);
            }
        }
        let mut sums: Vec<CostSum> =
            sums.into_iter().map(|(key, sum)| CostSum { key, ..sum }.rounded()).collect();
        match by {
            CostKey::Day => sums.reverse(),
            CostKey::Service | CostKey::Model => sums.sort_by(|a, b| b.cost_usd.total_cmp(&a.cost_usd)),
        }
        Self { by: by.name(), sums, total: total.rounded() }
    }

    /// Renders the sums as a table.
    #[must_use]
    pub fn render(&self, style: TableStyle) -> String {
        let row = |sum: &CostSum| {
            let turns = sum.turns.map_or("-".to_owned(), |turns| turns.to_string());
            [sanitize(&sum.key), sum.runs.to_string(), turns, figures::cost(sum.cost_usd)]
        };
        let header = [self.by.to_uppercase(), "RUNS".to_owned(), "TURNS".to_owned(), "COST".to_owned()];
        let rows: Vec<[String; 4]> =
            std::iter::once(header).chain(self.sums.iter().map(row)).chain([row(&self.total)]).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or_default()
        };
        let widths = [0, 1, 2, 3].map(width);
        let line = |(at, row): (usize, &[String; 4])| {
            let [key, numbers @ ..] = row;
            let [key_width, number_widths @ ..] = widths;
            let numbers: String =
                numbers.iter().zip(number_widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
            let line = format!("{}{numbers}", pad(key, key_width));
            if at == 0 { colorize(&line, "2", style.color) + "\n" } else { line + "\n" }
        };
        rows.iter().enumerate().map(line).collect()
    }
}

impl CostSum {
    fn add(&mut self, turns: Option<u32>, cost_usd: f64) {
        self.runs = self.runs.saturating_add(1);
        self.turns = match (self.turns, turns) {
            (None, None) => None,
            (known, more) => Some(known.unwrap_or_default().saturating_add(more.unwrap_or_default())),
        };
        self.cost_usd += cost_usd;
    }

    fn rounded(self) -> Self {
        Self { cost_usd: figures::round_usd(self.cost_usd), ..self }
    }
}

/// Returns the keys of a run, each with its turns and cost.
fn shares(status: &Status, by: CostKey) -> Vec<(String, Option<u32>, f64)> {
    let whole = |key: String| vec![(key, Some(status.turns), status.cost_usd)];
    match by {
        CostKey::Day => whole(status.submitted_at.strftime("%Y-%m-%d").to_string()),
        CostKey::Service => whole(status.service.to_string()),
        CostKey::Model => {
            let models = status.outcome.iter().flat_map(|outcome| &outcome.usage.models);
            let shares: Vec<_> = models.map(|(name, usage)| (name.clone(), None, usage.cost_usd)).collect();
            if shares.is_empty() { vec![(UNKNOWN_MODEL.to_owned(), None, status.cost_usd)] } else { shares }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event_fold::LockState;
    use crate::task::status::tests::sample;
    use crate::task::text::ColorChoice;
    use orchestrator_contract::ServiceName;

    fn runs() -> Vec<Status> {
        let mut other = sample(3, LockState::Held);
        other.service = ServiceName::new("auth").unwrap();
        other.submitted_at = "2026-11-23T00:00:01Z".parse().unwrap();
        let mut third = sample(5, LockState::Free);
        third.cost_usd = 0.1;
        vec![other, third, sample(5, LockState::Free)]
    }

    #[test]
    fn costs_are_summed_by_day_service_or_model() {
        let text = [CostKey::Day, CostKey::Service, CostKey::Model]
            .map(|by| Costs::sum(&runs(), by).render(TableStyle { width: None, color: ColorChoice::No }));
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn sums_in_json_are_rounded() {
        let mut runs = runs();
        for status in &mut runs {
            status.cost_usd = 0.1;
        }
        let json = serde_json::to_value(Costs::sum(&runs, CostKey::Service)).unwrap();
        assert_eq!(json["total"]["cost_usd"].to_string(), "0.3");
        assert_eq!(json["sums"][0]["key"], "trader");
        assert_eq!(Costs::sum(&[], CostKey::Day).total.cost_usd, 0.0);
    }
}
