//! Durations, turns and costs as people read them: the same words in logs, statuses and pull requests.

/// Formats a duration in one or two units, such as `6 s`, `5 min 30 s` or `1 h 6 min`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and makes 0 of NaN and negative numbers"
    )]
    let seconds = seconds.round() as u64;
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => two_units(seconds / 60, "min", seconds % 60, "s"),
        3600.. => two_units(seconds / 3600, "h", seconds % 3600 / 60, "min"),
    }
}

fn two_units(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// Formats a number of turns.
#[must_use]
pub fn turns(turns: u32) -> String {
    if turns == 1 { "1 turn".to_owned() } else { format!("{turns} turns") }
}

/// Formats a cost in US dollars, rounded to cents and never negative.
#[must_use]
pub fn cost(usd: f64) -> String {
    format!("${:.2}", not_negative(usd))
}

/// Formats what a run used.
#[must_use]
pub fn usage(seconds: f64, turn_count: u32, usd: f64) -> String {
    format!("{}, {}, {}", duration(seconds), turns(turn_count), cost(usd))
}

/// Rounds a sum in US dollars to 6 digits, as JSON shows it; never negative.
///
/// A sum of binary fractions has digits that no price has, such as 0.019049299999999998.
#[must_use]
pub fn round_usd(usd: f64) -> f64 {
    (not_negative(usd) * 1e6).round() / 1e6
}

/// Returns 0 for NaN, negative numbers and the negative zero, which is the sum of nothing.
fn not_negative(usd: f64) -> f64 {
    if usd > 0.0 { usd } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_one_or_two_units() {
        for (seconds, expected) in [
            (0.0, "0 s"),
            (6.4, "6 s"),
            (59.6, "1 min"),
            (61.0, "1 min 1 s"),
            (330.0, "5 min 30 s"),
            (3_600.0, "1 h"),
            (3_960.0, "1 h 6 min"),
            (200_000.0, "55 h 33 min"),
            (-3.0, "0 s"),
            (f64::NAN, "0 s"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn one_turn_is_singular() {
        assert_eq!([0, 1, 2].map(turns), ["0 turns", "1 turn", "2 turns"]);
        assert_eq!(usage(6.0, 1, -0.0), "6 s, 1 turn, $0.00");
    }

    #[test]
    fn cost_is_rounded_and_never_negative() {
        let nothing: f64 = std::iter::empty::<f64>().sum();
        for (usd, text, json) in [
            (nothing, "$0.00", "0.0"),
            (-0.004, "$0.00", "0.0"),
            (f64::NAN, "$0.00", "0.0"),
            (0.019_049_299_999_999_998, "$0.02", "0.019049"),
            (0.1 + 0.2, "$0.30", "0.3"),
            (12.345_678_9, "$12.35", "12.345679"),
        ] {
            assert_eq!(cost(usd), text, "{usd}");
            assert_eq!(serde_json::to_string(&round_usd(usd)).unwrap(), json, "{usd}");
        }
    }
}
