//! The compile-time check behind `budget(instances, connections, share)`.
//!
//! The attribute checks literals itself. Constants are opaque to it, so it passes them to [`check_budget`].
//! That runs in a constant and also fails the build, with the calculation in the message. A panic in a constant
//! needs a message that is already formatted; the small [`Text`] buffer formats it.

use super::Close;

const MILLION: u64 = 1_000_000;

/// Fails the build unless `max x instances` is below `share x connections`.
///
/// # Panics
/// If the product is not below that limit, if `instances` or `connections` is 0, or if `share` is not within
/// (0, 1].
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the share is checked to lie between 0 and 1, and what it is multiplied with is 32 bits wide"
)]
pub const fn check_budget(max: u32, instances: u32, connections: u32, share: f64) {
    assert!(instances >= 1, "`budget(instances)` must be at least 1");
    assert!(connections >= 1, "`budget(connections)` must be at least 1");
    assert!(
        share > 0.0 && share <= 1.0,
        "`budget(share)` must be above 0 and at most 1"
    );
    let share_millionths = (share * 1_000_000.0 + 0.5) as u64;
    let wanted = max as u64 * instances as u64;
    let limit_millionths = share_millionths * connections as u64;
    if wanted as u128 * (MILLION as u128) < limit_millionths as u128 {
        return;
    }

    let text = Text::new()
        .str("budget does not fit: `max` ")
        .number(max as u64)
        .str(" x ")
        .number(instances as u64)
        .str(" instances = ")
        .number(wanted)
        .str(" connections, but it must stay under ")
        .millionths(share_millionths)
        .str(" x ")
        .number(connections as u64)
        .str(" = ")
        .millionths(limit_millionths);
    // The largest integer below the limit.
    let room = (limit_millionths - 1) / MILLION;
    let mut text = text.str(":");
    if room / instances as u64 > 0 {
        text = text
            .str(" lower `max` to ")
            .number(room / instances as u64)
            .str(", or");
    }
    if room / max as u64 > 0 {
        text = text
            .str(" lower `instances` to ")
            .number(room / max as u64)
            .str(", or");
    }
    let enough = wanted as u128 * MILLION as u128 / share_millionths as u128 + 1;
    let text = text.str(" raise `connections` to ").number(enough as u64);
    panic!("{}", text.as_str());
}

/// Fails the build when `min` and `max`, or `min` and `close`, contradict each other.
///
/// # Panics
/// If they do.
pub const fn check_min(min: u32, max: u32, close: Close) {
    assert!(min <= max, "`min` is greater than `max`");
    assert!(
        min == 0 || !matches!(close, Close::Always),
        "`min` keeps connections open, but `close = \"always\"` keeps none between invocations: drop `min`, or write `close = \"never\"` or `close = \"on_error\"`"
    );
}

/// Like [`check_min`], for an attribute without `close`: `close` is the default of the parameter's type.
///
/// # Panics
/// If they do.
pub const fn check_min_by_default(min: u32, max: u32, close: Close) {
    assert!(
        min == 0 || !matches!(close, Close::Always),
        "`min` keeps connections open, but `close = \"always\"`, the default for this type, keeps none between invocations: drop `min`, or write `close = \"never\"` or `close = \"on_error\"`"
    );
    check_min(min, max, close);
}

/// A string buffer for constants.
struct Text {
    bytes: [u8; 256],
    len: usize,
}

impl Text {
    const fn new() -> Self {
        Self {
            bytes: [0; 256],
            len: 0,
        }
    }

    const fn byte(mut self, byte: u8) -> Self {
        if self.len < self.bytes.len() {
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        self
    }

    const fn str(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            self = self.byte(bytes[at]);
            at += 1;
        }
        self
    }

    const fn number(mut self, number: u64) -> Self {
        let mut divisor = 1;
        while number / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            self = self.digit(number / divisor);
            divisor /= 10;
        }
        self
    }

    /// Appends the last decimal digit of `number`.
    #[allow(clippy::cast_possible_truncation, reason = "a digit is below 10")]
    const fn digit(self, number: u64) -> Self {
        self.byte(b'0' + (number % 10) as u8)
    }

    /// Appends a decimal number: `800_000` is "0.8", `80_000_000` is "80".
    const fn millionths(mut self, millionths: u64) -> Self {
        self = self.number(millionths / MILLION);
        let mut rest = millionths % MILLION;
        if rest == 0 {
            return self;
        }
        self = self.byte(b'.');
        let mut place = MILLION / 10;
        while rest > 0 {
            self = self.digit(rest / place);
            rest %= place;
            place /= 10;
        }
        self
    }

    const fn as_str(&self) -> &str {
        let (text, _) = self.bytes.split_at(self.len);
        match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => "budget does not fit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    fn complaint(max: u32, instances: u32, connections: u32, share: f64) -> Option<String> {
        catch_unwind(|| check_budget(max, instances, connections, share))
            .err()
            .map(|panic| {
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                    .expect("a text")
            })
    }

    #[test]
    fn what_stays_under_the_share_fits() {
        assert_eq!(complaint(2, 39, 100, 0.8), None);
        assert_eq!(complaint(1, 1, 2, 1.0), None);
    }

    #[test]
    fn exactly_the_share_does_not_fit() {
        assert!(complaint(2, 40, 100, 0.8).is_some());
        // In floating point, 0.07 x 100 is a little more than 7.
        assert!(complaint(7, 1, 100, 0.07).is_some());
    }

    #[test]
    fn the_message_does_the_sum_and_names_what_would_fit() {
        assert_eq!(
            complaint(2, 60, 100, 0.8).as_deref(),
            Some(
                "budget does not fit: `max` 2 x 60 instances = 120 connections, but it must stay \
                 under 0.8 x 100 = 80: lower `max` to 1, or lower `instances` to 39, or raise \
                 `connections` to 151"
            )
        );
        assert_eq!(
            complaint(2, 60, 50, 0.75).as_deref(),
            Some(
                "budget does not fit: `max` 2 x 60 instances = 120 connections, but it must stay \
                 under 0.75 x 50 = 37.5: lower `instances` to 18, or raise \
                 `connections` to 161"
            )
        );
        assert_eq!(
            complaint(1, 1, 1, 1.0).as_deref(),
            Some(
                "budget does not fit: `max` 1 x 1 instances = 1 connections, but it must stay \
                 under 1 x 1 = 1: raise `connections` to 2"
            )
        );
    }

    #[test]
    fn the_largest_figures_do_not_overflow() {
        assert!(complaint(65_535, u32::MAX, u32::MAX, 1.0).is_some());
    }

    #[test]
    fn min_contradicts_max_and_always() {
        assert!(catch_unwind(|| check_min(3, 2, Close::Never)).is_err());
        assert!(catch_unwind(|| check_min(1, 2, Close::Always)).is_err());
        assert!(catch_unwind(|| check_min_by_default(1, 2, Close::Always)).is_err());
        check_min_by_default(1, 2, Close::Never);
        check_min(2, 2, Close::Never);
        check_min(0, 2, Close::Always);
    }
}
