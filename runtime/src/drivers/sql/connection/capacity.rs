//! How full the server is, and whether an idle connection is closed because of that: `close = "pressure"`.

use crate::{
    config::PRESSURE_INTERVAL,
    drivers::sql::{
        driver::{Capacity, Load},
        without_logging::without_logging,
    },
    resource::Health,
    util::{clock::Stamp, jitter, lock::lock},
};
use std::{sync::Mutex, time::Duration};
use tokio::time::timeout;

/// A server's load, and how long it is valid.
struct CachedLoad {
    place: String,
    at: Stamp,
    holds_for: Duration,
    load: Load,
}

/// The last load of each server. It outlives the resources: closing one must not cause more queries.
static CACHED: Mutex<Vec<CachedLoad>> = Mutex::new(Vec::new());

fn known(place: &str, now: Stamp) -> Option<Load> {
    lock(&CACHED)
        .iter()
        .find(|cached| cached.place == place)
        .filter(|cached| now.since(cached.at) < cached.holds_for)
        .map(|cached| cached.load)
}

fn note(place: &str, at: Stamp, load: Load) {
    let cached = CachedLoad {
        place: place.to_owned(),
        at,
        // Environments that were thawed together must not query together forever.
        holds_for: PRESSURE_INTERVAL / 2 + jitter::jitter_up_to(PRESSURE_INTERVAL),
        load,
    };
    let mut cached_loads = lock(&CACHED);
    cached_loads.retain(|other| other.place != place);
    cached_loads.push(cached);
}

/// Whether to reuse the idle `connection`: [`Health::Surplus`] if the server at `place` uses more than `share` of its
/// room.
///
/// The server is queried at most once per [`PRESSURE_INTERVAL`] and process, plus or minus a half, and for `longest` at
/// most: a connection that takes longer has an unread reply, and is broken.
pub(in crate::drivers::sql) async fn check<DB: Capacity>(
    place: &str,
    share: f64,
    connection: &mut DB::Connection,
    longest: Duration,
) -> Health {
    let now = Stamp::now();
    let load = match known(place, now) {
        Some(load) => Some(load),
        None => match timeout(longest, without_logging(DB::load(connection))).await {
            Ok(Ok(load)) => load,
            Ok(Err(_)) | Err(_) => return Health::Broken,
        },
    };
    let Some(load) = load else {
        return Health::Healthy;
    };
    if known(place, now).is_none() {
        note(place, now, load);
    }
    if load.is_beyond(share) {
        tracing::debug!(place, used = load.used, room = load.room, "given back");
        Health::Surplus
    } else {
        Health::Healthy
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
