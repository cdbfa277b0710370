//! Time across freezes: elapsed time, and deadlines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A point in time on the monotonic and the wall clock.
///
/// Neither clock is reliable across a freeze: the monotonic clock may stop while the environment is frozen and
/// jumps when a snapshot is restored; the wall clock may be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    monotonic: Instant,
    wall: SystemTime,
}

impl Stamp {
    pub(crate) fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Returns the time since `earlier`: the larger of the two clocks' differences.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        monotonic.max(wall)
    }
}

#[cfg(test)]
impl Stamp {
    /// Returns this moment with a later wall clock.
    pub(crate) fn with_wall_later(self, step: Duration) -> Self {
        Self {
            wall: self.wall + step,
            ..self
        }
    }
}

/// Converts the platform's deadline to the monotonic clock.
///
/// `epoch_ms` is in milliseconds since 1970. Returns `None` for a deadline in the past: `Context::default()`
/// has 0, and cargo-lambda's local server always sends 600000.
pub(crate) fn deadline_from_epoch_ms(epoch_ms: u64) -> Option<Instant> {
    let deadline = UNIX_EPOCH.checked_add(Duration::from_millis(epoch_ms))?;
    let left = deadline.duration_since(SystemTime::now()).ok()?;
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_larger_step() {
        let start = Stamp::now();
        let step = |monotonic, wall| Stamp {
            monotonic: start.monotonic + Duration::from_secs(monotonic),
            wall: start.wall + Duration::from_secs(wall),
        };
        assert_eq!(step(5, 2).since(start), Duration::from_secs(5));
        assert_eq!(step(2, 5).since(start), Duration::from_secs(5));
    }

    #[test]
    fn a_wall_clock_set_back_does_not_hide_the_monotonic_step() {
        let start = Stamp::now();
        let later = Stamp {
            monotonic: start.monotonic + Duration::from_secs(3),
            wall: start.wall - Duration::from_secs(3_600),
        };
        assert_eq!(later.since(start), Duration::from_secs(3));
    }

    #[test]
    fn a_past_deadline_is_unknown() {
        assert_eq!(deadline_from_epoch_ms(0), None);
        assert_eq!(deadline_from_epoch_ms(600_000), None);
    }

    #[test]
    fn a_future_deadline_is_that_far_away() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let in_a_minute = u64::try_from(now.as_millis()).expect("fits") + 60_000;
        let deadline = deadline_from_epoch_ms(in_a_minute).expect("in the future");
        let left = deadline.duration_since(Instant::now());
        assert!(left > Duration::from_secs(58) && left <= Duration::from_secs(60));
    }
}
