//! How long a run may still wait for the model's usage limit. Pure.

use std::time::Duration;

use orchestrator_contract::figures;

/// Longest time that a run waits, all waits together.
const MAX_TOTAL: Duration = Duration::from_secs(24 * 3600);

/// Least part of the budget that a wait uses, so that a run waits a bounded number of times.
pub(super) const MIN_CHARGE: Duration = Duration::from_secs(60);

/// Time that a run may wait for the end of usage limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuotaBudget {
    total: Duration,
    left: Duration,
}

impl QuotaBudget {
    /// Creates the budget of a run; one of 0 minutes never waits.
    #[must_use]
    pub fn from_minutes(minutes: f64) -> Self {
        let total = Duration::try_from_secs_f64(minutes * 60.0).unwrap_or_default().min(MAX_TOTAL);
        Self { total, left: total }
    }

    /// Takes a wait from the budget; `None` means that its end is unknown.
    ///
    /// # Errors
    /// Returns why the run does not wait; no text if it never would.
    pub(super) fn take(&mut self, wait: Option<Duration>) -> Result<Duration, Option<String>> {
        if self.total.is_zero() {
            return Err(None);
        }
        let Some(wait) = wait else {
            return Err(Some("the run did not wait: the model API named no time".to_owned()));
        };
        let charge = wait.max(MIN_CHARGE);
        let Some(left) = self.left.checked_sub(charge) else {
            return Err(Some(format!(
                "the run did not wait: the limit ends in {}, and {} of `wait_for_quota_minutes` are left",
                figures::duration(wait.as_secs_f64()),
                figures::duration(self.left.as_secs_f64())
            )));
        };
        self.left = left;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn budget_is_shared_by_all_waits() {
        let mut budget = QuotaBudget::from_minutes(120.0);
        assert_eq!(budget.take(Some(HOUR)), Ok(HOUR));
        let why = budget.take(Some(HOUR * 2)).unwrap_err().unwrap();
        insta::assert_snapshot!(why, @"the run did not wait: the limit ends in 2 h, and 1 h of `wait_for_quota_minutes` are left");
        assert_eq!(budget.take(Some(HOUR)), Ok(HOUR), "exactly the rest");
        assert!(budget.take(Some(Duration::ZERO)).is_err());
    }

    #[test]
    fn wait_without_time_or_option_is_refused() {
        let why = QuotaBudget::from_minutes(60.0).take(None).unwrap_err().unwrap();
        assert_eq!(why, "the run did not wait: the model API named no time");
        for minutes in [0.0, -5.0, f64::NAN] {
            assert_eq!(QuotaBudget::from_minutes(minutes).take(Some(Duration::ZERO)), Err(None), "{minutes}");
        }
    }

    #[test]
    fn short_waits_are_bounded_in_number_and_all_in_time() {
        let mut budget = QuotaBudget::from_minutes(10.0);
        let waits = std::iter::from_fn(|| budget.take(Some(Duration::ZERO)).ok()).take(1000).count();
        assert_eq!(waits, 10);
        let mut endless = QuotaBudget::from_minutes(1e9);
        assert!(endless.take(Some(HOUR * 25)).is_err());
        assert_eq!(endless.take(Some(HOUR * 24)), Ok(HOUR * 24));
    }
}
