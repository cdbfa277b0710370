//! How full the server is, and whether what could be kept is to be given back: `close = "pressure"`.

use crate::{
    config::PRESSURE_INTERVAL,
    drivers::sql::{
        driver::{Load, Pressured},
        without_logging::without_logging,
    },
    resource::Fitness,
    util::{clock::Stamp, jitter, lock::lock},
};
use std::{sync::Mutex, time::Duration};
use tokio::time::timeout;

/// What a server has answered, and for how long that holds.
struct Reading {
    place: String,
    at: Stamp,
    holds_for: Duration,
    load: Load,
}

/// The last reading of each server. It outlives the resources: one that has just been given back is no
/// reason to ask more often.
static READINGS: Mutex<Vec<Reading>> = Mutex::new(Vec::new());

fn known(place: &str, now: Stamp) -> Option<Load> {
    lock(&READINGS)
        .iter()
        .find(|reading| reading.place == place)
        .filter(|reading| now.since(reading.at) < reading.holds_for)
        .map(|reading| reading.load)
}

fn note(place: &str, at: Stamp, load: Load) {
    let reading = Reading {
        place: place.to_owned(),
        at,
        // Instances that were thawed together must not ask together for ever.
        holds_for: PRESSURE_INTERVAL / 2 + jitter::jitter_up_to(PRESSURE_INTERVAL),
        load,
    };
    let mut readings = lock(&READINGS);
    readings.retain(|other| other.place != place);
    readings.push(reading);
}

/// Whether `connection`, which nobody holds, is to be kept while the server at `place` uses no more than
/// `share` of its room.
///
/// Asked at most once per [`PRESSURE_INTERVAL`] and process, give or take a half, and for `longest` at
/// most: a connection that takes longer is half-way through an answer, and unfit.
pub(in crate::drivers::sql) async fn verdict<DB: Pressured>(
    place: &str,
    share: f64,
    connection: &mut DB::Connection,
    longest: Duration,
) -> Fitness {
    let now = Stamp::now();
    let load = match known(place, now) {
        Some(load) => Some(load),
        None => match timeout(longest, without_logging(DB::load(connection))).await {
            Ok(Ok(load)) => load,
            Ok(Err(_)) | Err(_) => return Fitness::Unfit,
        },
    };
    let Some(load) = load else {
        return Fitness::Fit;
    };
    if known(place, now).is_none() {
        note(place, now, load);
    }
    if load.is_beyond(share) {
        tracing::debug!(place, used = load.used, room = load.room, "given back");
        Fitness::Unwanted
    } else {
        Fitness::Fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_may_be_used_up_and_no_more() {
        let load = |used| Load { used, room: 97 };
        // 0.8 x 97 = 77.6
        assert!(!load(77).is_beyond(0.8));
        assert!(load(78).is_beyond(0.8));
        assert!(!load(97).is_beyond(1.0));
    }

    #[test]
    fn a_reading_holds_for_a_while_by_both_clocks() {
        let load = Load { used: 1, room: 2 };
        let at = Stamp::now();
        note("tests:1", at, load);
        let later = |share| at.with_wall_later(PRESSURE_INTERVAL.mul_f64(share));
        assert_eq!(known("tests:1", later(0.49)), Some(load));
        assert_eq!(known("tests:1", later(1.51)), None);
        assert_eq!(known("tests:2", at), None);
    }
}
