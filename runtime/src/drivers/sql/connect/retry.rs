//! Retries with full jitter while the server is at its connection limit: environments that were refused together must
//! not retry together.

use crate::{
    config::{RETRY_FIRST, RETRY_MAX},
    error::Error,
    util::jitter,
};
use std::time::Duration;
use tokio::time::Instant;

/// Counts the refusals of one acquire.
///
/// Full jitter: each wait is random, up to a bound that doubles.
pub(in crate::drivers::sql) struct Retry {
    began: Instant,
    until: Instant,
    refusals: u32,
}

impl Retry {
    /// Creates the retries of an acquire that ends at `until`.
    pub(in crate::drivers::sql) fn new(until: Instant) -> Self {
        Self {
            began: Instant::now(),
            until,
            refusals: 0,
        }
    }

    /// Counts one more refusal. Returns how long to wait before the next try, or `None` if there is no time for one.
    pub(in crate::drivers::sql) fn next_wait(&mut self) -> Option<Duration> {
        let doublings = self.refusals.min(16);
        self.refusals += 1;
        let left = self.until.saturating_duration_since(Instant::now());
        // Leave time for the last try itself.
        let longest = left
            .checked_sub(RETRY_FIRST)
            .filter(|time| !time.is_zero())?;
        let bound = (RETRY_FIRST * 2_u32.pow(doublings)).min(RETRY_MAX);
        Some(jitter::jitter_up_to(bound).min(longest))
    }

    /// When the last try has to end: before the acquire does.
    pub(in crate::drivers::sql) fn last_moment(&self) -> Instant {
        let sooner = self.until.checked_sub(RETRY_FIRST / 2);
        sooner.unwrap_or(self.until)
    }

    /// Adds to `why` how often and for how long connecting was tried.
    pub(in crate::drivers::sql) fn annotate(&self, why: Error) -> Error {
        if self.refusals == 0 {
            return why;
        }
        let times = match self.refusals {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        why.adding(&format!(
            "; refused {times} within {} ms",
            self.began.elapsed().as_millis()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use tokio::time::advance;

    const ACQUIRE: Duration = Duration::from_millis(3_000);

    fn retry() -> Retry {
        Retry::new(Instant::now() + ACQUIRE)
    }

    async fn waits(mut retry: Retry) -> Vec<Duration> {
        let mut waits = Vec::new();
        while let Some(wait) = retry.next_wait() {
            waits.push(wait);
            // Each try takes 5 ms here.
            advance(wait + Duration::from_millis(5)).await;
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_are_drawn_below_a_bound_that_doubles() {
        let mut longest = [Duration::ZERO; 4];
        for _ in 0..200 {
            let mut retry = retry();
            for (number, longest) in longest.iter_mut().enumerate() {
                let wait = retry.next_wait().expect("time left");
                let bound = RETRY_FIRST * 2_u32.pow(u32::try_from(number).expect("small"));
                assert!(wait <= bound.min(RETRY_MAX), "{number}: {wait:?}");
                *longest = wait.max(*longest);
            }
        }
        for (number, longest) in longest.into_iter().enumerate() {
            let bound = RETRY_FIRST * 2_u32.pow(u32::try_from(number).expect("small"));
            assert!(longest > bound.mul_f64(0.8), "{number}: {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_were_turned_away_together_come_back_apart() {
        let (one, two) = (waits(retry()).await, waits(retry()).await);
        assert_ne!(one, two);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_acquire_and_not_before() {
        let began = Instant::now();
        let waits = waits(retry()).await;
        let took = began.elapsed();
        assert!(took <= ACQUIRE, "{took:?}");
        assert!(took + RETRY_FIRST * 2 > ACQUIRE, "{took:?}");
        assert!((8..200).contains(&waits.len()), "{}", waits.len());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_second_try_without_time_for_one() {
        let mut retry = Retry::new(Instant::now() + RETRY_FIRST);
        assert_eq!(retry.next_wait(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_says_how_often_and_how_long() {
        let why = || Error::new(ErrorKind::TooManyConnections, "no room");
        let mut retry = retry();
        assert_eq!(retry.annotate(why()).to_string(), "handler: no room");
        retry.next_wait();
        advance(Duration::from_millis(70)).await;
        assert_eq!(
            retry.annotate(why()).to_string(),
            "handler: no room; refused once within 70 ms"
        );
        retry.next_wait();
        advance(Duration::from_millis(50)).await;
        assert_eq!(
            retry.annotate(why()).to_string(),
            "handler: no room; refused 2 times within 120 ms"
        );
    }
}
