//! The round-trip time to the server. Timeouts that fit a nearby server would end healthy connections on a slow
//! network.

use crate::config::{CANCEL_TIMEOUT, CLEANUP_ROUND_TRIPS, MAX_ROUND_TRIP};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// The round-trip time to one server, in microseconds; 0 if it is not known.
#[derive(Debug, Default)]
pub(in crate::drivers::sql) struct RoundTrip {
    measured: AtomicU64,
    /// Estimated from a login, until a round trip has been measured.
    guessed: AtomicU64,
}

impl RoundTrip {
    /// The time that a request and its reply take.
    pub(in crate::drivers::sql) fn get(&self) -> Duration {
        let known = match self.measured.load(Ordering::Relaxed) {
            0 => self.guessed.load(Ordering::Relaxed),
            measured => measured,
        };
        Duration::from_micros(known).min(MAX_ROUND_TRIP)
    }

    /// `bound`, or `times` the round trip if that is longer.
    pub(in crate::drivers::sql) fn at_least(&self, bound: Duration, times: u32) -> Duration {
        bound.max(self.get() * times)
    }

    /// How long a cleanup may take: `reserve`, or longer if the network is slow or a query may have to be cancelled.
    pub(in crate::drivers::sql) fn cleanup(&self, reserve: Duration, may_cancel: bool) -> Duration {
        let least = if may_cancel {
            CANCEL_TIMEOUT
        } else {
            Duration::ZERO
        };
        self.at_least(reserve.max(least), CLEANUP_ROUND_TRIPS)
    }

    /// Records the longest wait of a login: one round trip, and some work on the server.
    pub(in crate::drivers::sql) fn guess(&self, waited: Duration) {
        self.guessed.store(micros(waited), Ordering::Relaxed);
    }

    /// Records one round trip. The value rises at once and falls slowly, because timeouts have to fit the slow ones
    /// too.
    pub(in crate::drivers::sql) fn measure(&self, took: Duration) {
        let took = micros(took.min(MAX_ROUND_TRIP));
        let old = self.measured.load(Ordering::Relaxed);
        let smoothed = old - old / 8 + took / 8;
        self.measured.store(took.max(smoothed), Ordering::Relaxed);
    }

    /// Awaits `reply`, and measures it as one round trip if it is `true`. Otherwise the measured value may be outdated;
    /// it is cleared, and the next login gives an estimate.
    pub(in crate::drivers::sql) async fn of(&self, reply: impl Future<Output = bool>) -> bool {
        let from = Instant::now();
        let came = reply.await;
        if came {
            self.measure(from.elapsed());
        } else {
            self.measured.store(0, Ordering::Relaxed);
        }
        came
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Drives `login`, and returns its longest wait between two polls.
pub(in crate::drivers::sql) async fn longest_wait<T, E>(
    login: impl Future<Output = Result<T, E>>,
) -> Result<(T, Duration), E> {
    let mut login = pin!(login);
    let mut waits = Waits::default();
    let output = poll_fn(|cx| {
        waits.end();
        let polled = login.as_mut().poll(cx);
        waits.begin();
        polled
    })
    .await?;
    Ok((output, waits.longest()))
}

/// The waits of a polled future.
#[derive(Debug, Default)]
pub(in crate::drivers::sql) struct Waits {
    since: Option<Instant>,
    longest: Duration,
}

impl Waits {
    pub(in crate::drivers::sql) fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    pub(in crate::drivers::sql) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.longest = self.longest.max(since.elapsed());
        }
    }

    /// The longest wait. A busy processor makes it longer than the round trip, and the timeouts based on it longer too.
    /// A poll for another reason splits a wait in two.
    pub(in crate::drivers::sql) fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use tokio::time::sleep;

    const NEAR: Duration = Duration::from_millis(2);
    const FAR: Duration = Duration::from_millis(80);

    #[test]
    fn a_bound_follows_the_round_trip_between_its_floor_and_its_ceiling() {
        let round_trip = RoundTrip::default();
        let floor = Duration::from_millis(50);
        assert_eq!(round_trip.at_least(floor, 3), floor);
        round_trip.measure(NEAR);
        assert_eq!(round_trip.at_least(floor, 3), floor);
        round_trip.measure(FAR);
        assert_eq!(round_trip.at_least(floor, 3), FAR * 3);
        round_trip.measure(Duration::from_secs(60));
        assert_eq!(round_trip.at_least(floor, 3), MAX_ROUND_TRIP * 3);
    }

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let round_trip = RoundTrip::default();
        round_trip.measure(NEAR);
        round_trip.measure(FAR);
        assert_eq!(round_trip.get(), FAR);
        round_trip.measure(NEAR);
        assert!((FAR * 3 / 4..FAR).contains(&round_trip.get()));
        for _ in 0..40 {
            round_trip.measure(NEAR);
        }
        assert!(round_trip.get() < NEAR * 2, "{:?}", round_trip.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_guess_holds_until_something_is_measured_and_after_a_failure() {
        let round_trip = RoundTrip::default();
        let login = async {
            for wait in [NEAR, FAR, NEAR] {
                sleep(wait).await;
            }
            Ok::<_, ()>(())
        };
        let ((), waited) = longest_wait(login).await.expect("let in");
        assert!((FAR..FAR + NEAR).contains(&waited), "{waited:?}");
        round_trip.guess(waited);
        assert_eq!(round_trip.get(), waited);
        let reply = async {
            sleep(NEAR).await;
            true
        };
        assert!(round_trip.of(reply).await);
        assert!(round_trip.get() < FAR, "{:?}", round_trip.get());
        assert!(!round_trip.of(ready(false)).await);
        assert_eq!(round_trip.get(), waited);
    }
}
