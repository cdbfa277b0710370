//! When resources are opened, reused and closed.

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
            ["open", "used", "closing", "recycle", "close", "gone"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn close_never_reuses_recycled_resource() {
    let (site, script) = site!(never, Config::new().close(Close::Never));
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "recycle"]);
    fail(site).await.expect_err("fails");
    assert_eq!(script.log(), ["check after 0 ms", "recycle"]);
}

#[tokio::test]
async fn on_error_reuses_after_success_and_closes_after_error() {
    let (site, script) = site!(on_error, Config::new().close(Close::OnError));
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "recycle"]);
    fail(site).await.expect_err("fails");
    let log = script.log();
    assert_eq!(log[1..], ["closing", "recycle", "close", "gone"], "{log:?}");
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "recycle"]);
}

#[tokio::test(start_paused = true)]
async fn resource_past_idle_ms_is_replaced_and_closed_after_response() {
    let (site, script) = site!(idle, Config::new().close(Close::Never).idle_ms(5_000));
    succeed(site).await.expect("succeeds");
    script.log();
    advance(Duration::from_millis(4_000)).await;
    succeed(site).await.expect("succeeds");
    let log = script.log();
    assert_eq!(log[1..], ["used", "recycle"], "{log:?}");
    advance(Duration::from_millis(5_001)).await;
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "close", "gone", "recycle"]);
}

#[tokio::test(start_paused = true)]
async fn resource_past_lifetime_ms_is_replaced() {
    let (site, script) = site!(old, Config::new().close(Close::Never).lifetime_ms(10_000));
    succeed(site).await.expect("succeeds");
    advance(Duration::from_millis(10_001)).await;
    script.log();
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log(), ["open", "used", "close", "gone", "recycle"]);
}

#[tokio::test]
async fn dead_resource_is_replaced_within_same_acquire() {
    let (site, script) = site!(dead, Config::new().close(Close::Never));
    succeed(site).await.expect("succeeds");
    script.log();
    script.faults(Faults {
        unfit_at_reset: true,
        ..Faults::default()
    });
    succeed(site).await.expect("succeeds all the same");
    let log = script.log();
    assert_eq!(log[1..], ["open", "used", "close", "gone", "recycle"]);
}

#[tokio::test]
async fn failed_open_is_reported_and_retried_by_next_invocation() {
    let (site, script) = site!(failed_open, Config::new().close(Close::Never));
    script.faults(Faults {
        open_fails: true,
        ..Faults::default()
    });
    let error = succeed(site).await.expect_err("cannot open");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(
        error.to_string(),
        "it::policies::failed_open: acquire: scripted"
    );
    script.faults(Faults::default());
    succeed(site).await.expect("opens now");
    assert_eq!(script.log(), ["open", "open", "used", "recycle"]);
}

#[tokio::test(start_paused = true)]
async fn resource_not_recycled_in_time_is_closed() {
    let (site, script) = site!(unsettled, Config::new().close(Close::Never));
    script.faults(Faults {
        never_settles: true,
        ..Faults::default()
    });
    let started = Instant::now();
    succeed(site).await.expect("succeeds");
    assert_eq!(script.log()[2..], ["recycle", "close", "gone"]);
    assert!(started.elapsed() < db_handler::config::RESERVE);
}

#[tokio::test(start_paused = true)]
async fn hanging_close_is_dropped_within_reserve() {
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
            "recycle",
            "close hangs",
            "stop",
            "gone"
        ]
    );
    assert!(started.elapsed() <= db_handler::config::RESERVE + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn cleanup_leaves_time_for_response() {
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
    assert!(Instant::now() + db_handler::config::RESPONSE_MARGIN <= deadline);
}

#[tokio::test(start_paused = true)]
async fn cleanup_takes_no_longer_than_reserve() {
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
async fn panic_in_close_does_not_reach_caller() {
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
        ["open", "used", "closing", "recycle", "close", "gone"]
    );
}

#[tokio::test]
async fn exclusive_lease_is_released_before_resource_is_cleaned_up() {
    let (site, script) = site!(alone, Config::new());
    exclusive(site, async |_| Ok(())).await.expect("succeeds");
    assert_eq!(
        script.log(),
        [
            "open",
            "acquire",
            "closing",
            "release: Close",
            "recycle",
            "close",
            "gone"
        ]
    );
    let (site, script) = site!(alone_kept, Config::new().close(Close::Never));
    exclusive(site, async |_| Ok(())).await.expect("succeeds");
    assert_eq!(
        script.log(),
        ["open", "acquire", "release: Reuse", "recycle"]
    );
}

#[tokio::test]
async fn resource_is_closed_after_failed_acquire() {
    let (site, script) = site!(none_left, Config::new());
    script.faults(Faults {
        take_fails: true,
        ..Faults::default()
    });
    let error = exclusive(site, async |_| Ok(()))
        .await
        .expect_err("none left");
    assert_eq!(error.kind(), ErrorKind::PoolExhausted);
    assert_eq!(
        script.log(),
        ["open", "acquire", "closing", "recycle", "close", "gone"]
    );
}

#[test]
fn resource_does_not_outlive_its_tokio_runtime() {
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
            "open", "used", "recycle", "open", "used", "close", "gone", "recycle"
        ]
    );
}
