//! Pings a connection that may have died while idle, without delaying the invocation.

use crate::{config::HEDGE_SPREAD, util::jitter};
use futures_util::future::{Either, select};
use std::{future::Future, pin::pin, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// The connection that the invocation gets.
#[derive(Debug)]
pub(in crate::drivers::sql) enum HedgeOutcome<T, E> {
    /// The pinged connection: it replied.
    Kept,
    /// A new connection. The old one is dead, or so slow that it is treated as dead.
    Fresh(T),
    /// No connection: the old one is dead, and this error prevented a new one.
    Neither(E),
}

/// Pings a connection with `ping`, and after `hedge_after` also opens another one with `connect`. The first to succeed
/// is used; the other future is dropped. If no connection can be opened, the ping has `patience` in total.
///
/// A healthy connection replies within one round trip, and nothing is opened: when many environments thaw, none of them
/// opens a second connection to a server that is short of them. A server that they all ping at once may take longer to
/// reply. Opening a connection then takes longer still, and the ping wins.
pub(in crate::drivers::sql) async fn hedge<T, E>(
    ping: impl Future<Output = bool>,
    hedge_after: Duration,
    patience: Duration,
    connect: impl Future<Output = Result<T, E>>,
) -> HedgeOutcome<T, E> {
    let until = Instant::now() + patience;
    let mut ping = pin!(ping);
    let connect = pin!(connect);
    // Jitter: environments that thaw together must not open connections together.
    let patient = hedge_after + jitter::jitter_up_to(HEDGE_SPREAD);
    match timeout(patient, ping.as_mut()).await {
        Ok(true) => return HedgeOutcome::Kept,
        Ok(false) => return opened(connect.await),
        Err(_) => {}
    }
    match select(ping, connect).await {
        Either::Left((true, _)) => HedgeOutcome::Kept,
        Either::Left((false, connect)) => opened(connect.await),
        Either::Right((Ok(fresh), _)) => HedgeOutcome::Fresh(fresh),
        Either::Right((Err(error), ping)) => match timeout_at(until, ping).await {
            Ok(true) => HedgeOutcome::Kept,
            _ => HedgeOutcome::Neither(error),
        },
    }
}

fn opened<T, E>(known_target: Result<T, E>) -> HedgeOutcome<T, E> {
    match known_target {
        Ok(fresh) => HedgeOutcome::Fresh(fresh),
        Err(error) => HedgeOutcome::Neither(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HEDGE_AFTER;
    use std::future::{pending, ready};
    use tokio::time::sleep;

    const PING: Duration = Duration::from_millis(250);

    async fn after<T>(wait: Duration, value: T) -> T {
        sleep(wait).await;
        value
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_is_kept_and_nothing_is_opened() {
        let connect = async { panic!("opened") };
        let thawed: HedgeOutcome<(), ()> =
            hedge(after(HEDGE_AFTER / 2, true), HEDGE_AFTER, PING, connect).await;
        assert!(matches!(thawed, HedgeOutcome::Kept));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_one_is_overtaken_by_a_fresh_one() {
        let begun = Instant::now();
        let open = Duration::from_millis(10);
        let thawed: HedgeOutcome<_, ()> =
            hedge(pending(), HEDGE_AFTER, PING, after(open, Ok("fresh"))).await;
        assert!(matches!(thawed, HedgeOutcome::Fresh("fresh")));
        assert!(begun.elapsed() <= HEDGE_AFTER + HEDGE_SPREAD + open + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_comes_before_a_slower_opening() {
        // Longer than `patience`: the whole server is slow.
        let thawed: HedgeOutcome<(), ()> =
            hedge(after(PING * 2, true), HEDGE_AFTER, PING, pending()).await;
        assert!(matches!(thawed, HedgeOutcome::Kept));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_one_is_replaced_at_once() {
        let begun = Instant::now();
        let thawed: HedgeOutcome<_, ()> =
            hedge(ready(false), HEDGE_AFTER, PING, ready(Ok("fresh"))).await;
        assert!(matches!(thawed, HedgeOutcome::Fresh("fresh")));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_server_has_no_room_the_slow_answer_counts() {
        let thawed: HedgeOutcome<(), _> = hedge(
            after(PING / 2, true),
            HEDGE_AFTER,
            PING,
            ready(Err("no room")),
        )
        .await;
        assert!(matches!(thawed, HedgeOutcome::Kept));
        let thawed: HedgeOutcome<(), _> = hedge(
            after(PING * 2, true),
            HEDGE_AFTER,
            PING,
            ready(Err("no room")),
        )
        .await;
        assert!(matches!(thawed, HedgeOutcome::Neither("no room")));
    }
}
