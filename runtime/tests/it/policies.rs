//! When resources are opened, kept and closed.

use crate::fake::{FakeEvent, Faults, exclusive, shared};
use db_handler::{
    __private::{Close, Config, Site},
    Error, ErrorKind,
};
use std::time::Duration;
use tokio::time::{Instant, advance};

async fn succeed(site: &'static Site) -> Result<(), Error> {
    shared(site, FakeEvent::default(), async |fake| {
        fake.use_it();
        Ok(())
    })
    .await
}

async fn fail(site: &'static Site) -> Result<(), Error> {
    shared(site, FakeEvent::default(), async |_| {
        Err(Error::new(ErrorKind::Query, "scripted"))
    })
    .await
}

#[tokio::test]
async fn always_opens_and_closes_for_every_invocation() {
    let (site, script) = site!(always, Config::new());
    for _ in 0..2 {
        succeed(site).await.expect("succeeds");
        assert_eq!(
            script.log(),
            ["open", "used", "closing", "settle", "close", "gone"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn never_keeps_what_has_settled() {
    let (site, script) = site!(never, Config::new().close(Close::Never));
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "settle"]);
    fail(site).await.expect_err("fails");
    assert_eq!(script.log(), ["reset after 0 ms", "settle"]);
}

#[tokio::test]
async fn on_error_keeps_after_success_and_closes_after_an_error() {
    let (site, script) = site!(on_error, Config::new().close(Close::OnError));
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "settle"]);
    fail(site).await.expect_err("fails");
    let log = script.log();
    assert_eq!(log[1..], ["closing", "settle", "close", "gone"], "{log:?}");
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "settle"]);
}

#[tokio::test(start_paused = true)]
async fn what_idled_for_too_long_is_replaced_and_closed_after_the_answer() {
    let (site, script) = site!(idle, Config::new().close(Close::Never).idle_ms(5_000));
    succeed(site).await.expect("succeeds");
    script.log();
    advance(Duration::from_millis(4_000)).await;
    succeed(site).await.expect("succeeds");
    let log = script.log();
    assert_eq!(log[1..], ["used", "settle"], "{log:?}");
    advance(Duration::from_millis(5_001)).await;
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "close", "gone", "settle"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_replaced() {
    let (site, script) = site!(old, Config::new().close(Close::Never).lifetime_ms(10_000));
    succeed(site).await.expect("succeeds");
    advance(Duration::from_millis(10_001)).await;
    script.log();
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "close", "gone", "settle"]);
}

#[tokio::test]
async fn what_is_found_dead_is_replaced_within_the_same_acquire() {
    let (site, script) = site!(dead, Config::new().close(Close::Never));
    succeed(site).await.expect("succeeds");
    script.log();
    script.faults(Faults {
        unfit_at_reset: true,
        ..Faults::default()
    });
    succeed(site).await.expect("succeeds all the same");
    let log = script.log();
    assert_eq!(log[1..], ["open", "used", "close", "gone", "settle"]);
}

#[tokio::test]
async fn a_failed_open_is_told_and_not_remembered() {
    let (site, script) = site!(failed_open, Config::new().close(Close::Never));
    script.faults(Faults {
        open_fails: true,
        ..Faults::default()
    });
    let error = succeed(site).await.expect_err("cannot open");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        "it::policies::failed_open: acquire: scripted"
    );
    script.faults(Faults::default());
    succeed(site).await.expect("opens now");
    assert_eq!(script.log(), ["open", "open", "used", "settle"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_settle_in_time_is_closed_instead_of_kept() {
    let (site, script) = site!(unsettled, Config::new().close(Close::Never));
    script.faults(Faults {
        never_settles: true,
        ..Faults::default()
    });
    let started = Instant::now();
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log()[2..], ["settle", "close", "gone"]);
    assert!(started.elapsed() < db_handler::config::RESERVE);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_is_given_up() {
    let (site, script) = site!(hanging, Config::new());
    script.faults(Faults {
        never_closes: true,
        ..Faults::default()
    });
    let started = Instant::now();
    succeed(site).await.expect("succeeds");
    assert_eq!(
        script.log(),
        [
            "open",
            "used",
            "closing",
            "settle",
            "close hangs",
            "abandon",
            "gone"
        ]
    );
    assert!(started.elapsed() <= db_handler::config::RESERVE + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn the_finally_leaves_time_for_the_answer() {
    let (site, script) = site!(in_time, Config::new());
    script.faults(Faults {
        never_closes: true,
        ..Faults::default()
    });
    let event = FakeEvent::with_ms_left(1_000);
    let deadline = event.deadline.expect("set");
    shared(site, event, async |_| Ok(()))
        .await
        .expect("succeeds");
    assert!(Instant::now() + db_handler::config::ANSWER_MARGIN <= deadline);
}

#[tokio::test(start_paused = true)]
async fn the_finally_takes_no_longer_than_the_reserve() {
    let (site, script) = site!(reserved, Config::new().reserve_ms(40));
    for event in [FakeEvent::default(), FakeEvent::with_ms_left(60_000)] {
        script.faults(Faults {
            never_closes: true,
            ..Faults::default()
        });
        let started = Instant::now();
        shared(site, event, async |_| Ok(()))
            .await
            .expect("succeeds");
        assert_eq!(started.elapsed(), Duration::from_millis(40));
    }
}

#[tokio::test]
async fn a_panic_in_a_close_does_not_reach_the_caller() {
    let (site, script) = site!(panicking_close, Config::new());
    script.faults(Faults {
        close_panics: true,
        ..Faults::default()
    });
    succeed(site).await.expect("succeeds");
    script.faults(Faults::default());
    script.log();
    succeed(site).await.expect("the next one works");
    assert_eq!(
        script.log(),
        ["open", "used", "closing", "settle", "close", "gone"]
    );
}

#[tokio::test]
async fn what_was_taken_alone_is_put_back_before_the_rest() {
    let (site, script) = site!(alone, Config::new());
    exclusive(site, async |_| Ok(())).await.expect("succeeds");
    assert_eq!(
        script.log(),
        [
            "open",
            "acquire",
            "closing",
            "release: Close",
            "settle",
            "close",
            "gone"
        ]
    );
    let (site, script) = site!(alone_kept, Config::new().close(Close::Never));
    exclusive(site, async |_| Ok(())).await.expect("succeeds");
    assert_eq!(
        script.log(),
        ["open", "acquire", "release: Reuse", "settle"]
    );
}

#[tokio::test]
async fn when_nothing_can_be_taken_the_resource_is_closed() {
    let (site, script) = site!(none_left, Config::new());
    script.faults(Faults {
        take_fails: true,
        ..Faults::default()
    });
    let error = exclusive(site, async |_| Ok(()))
        .await
        .expect_err("none left");
    assert_eq!(error.kind(), ErrorKind::AllInUse);
    assert_eq!(
        script.log(),
        ["open", "acquire", "closing", "settle", "close", "gone"]
    );
}

#[test]
fn a_resource_does_not_outlive_its_tokio_runtime() {
    let (site, script) = site!(two_runtimes, Config::new().close(Close::Never));
    for _ in 0..2 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(succeed(site))
            .expect("succeeds");
    }
    assert_eq!(
        script.log(),
        [
            "open", "used", "settle", "open", "used", "close", "gone", "settle"
        ]
    );
}
