//! Cleanup runs after every handler; after a panic, a drop or the deadline its resources are not reused.

use crate::fake::{self, FakeEvent, exclusive, let_cleanups_run, poll_once, shared};
use db_handler::{
    __private::{Close, Config, Site},
    Error, ErrorKind,
};
use futures_util::FutureExt;
use std::{future::pending, panic::AssertUnwindSafe, pin::pin, time::Duration};
use tokio::time::Instant;

async fn succeed(site: &'static Site) {
    shared(site, FakeEvent::default(), async |_| Ok(()))
        .await
        .expect("succeeds");
}

#[tokio::test]
async fn panic_reaches_caller_after_cleanup() {
    let (site, script) = site!(panic, Config::new().close(Close::Never));
    let panicking = shared::<()>(site, FakeEvent::default(), async |_| panic!("scripted"));
    let panic = AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"scripted"));
    assert_eq!(
        script.log(),
        ["open", "stop", "closing", "recycle", "close", "gone"]
    );
    succeed(site).await;
    assert_eq!(script.log(), ["open", "recycle"]);
}

#[tokio::test]
async fn exclusive_lease_is_discarded_after_panic() {
    let (site, script) = site!(panic_alone, Config::new().close(Close::Never));
    let panicking = exclusive::<()>(site, async |_| panic!("scripted"));
    AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    assert_eq!(
        script.log(),
        [
            "open",
            "acquire",
            "stop",
            "closing",
            "release: Discard",
            "recycle",
            "close",
            "gone"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn handler_is_cancelled_before_deadline() {
    let (site, script) = site!(deadline, Config::new().close(Close::Never));
    let started = Instant::now();
    let error = shared::<()>(site, FakeEvent::with_ms_left(3_000), async |_| {
        pending().await
    })
    .await
    .expect_err("is stopped");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(started.elapsed().as_millis(), 2_750);
    assert_eq!(
        error.to_string(),
        "it::endings::deadline: handler: stopped after 2750 ms, 250 ms before the deadline (fake 0 open, 0 in use): raise the function's timeout, or do less per event"
    );
    assert_eq!(
        script.log(),
        ["open", "stop", "closing", "recycle", "close", "gone"]
    );
}

#[tokio::test(start_paused = true)]
async fn reserve_ms_sets_time_between_cancellation_and_deadline() {
    let (site, _) = site!(reserve, Config::new().reserve_ms(1_200));
    let started = Instant::now();
    let error = shared::<()>(site, FakeEvent::with_ms_left(3_000), async |_| {
        pending().await
    })
    .await
    .expect_err("is stopped");
    assert_eq!(started.elapsed().as_millis(), 1_800);
    let said = error.to_string();
    assert!(said.contains("1200 ms before the deadline"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn cleanup_gets_half_of_tiny_reserve() {
    let (site, script) = site!(tiny, Config::new().reserve_ms(20));
    script.faults(fake::Faults {
        never_closes: true,
        ..fake::Faults::default()
    });
    let event = FakeEvent::with_ms_left(1_000);
    let deadline = event.deadline.expect("set");
    shared::<()>(site, event, async |_| pending().await)
        .await
        .expect_err("is stopped");
    assert_eq!(deadline - Instant::now(), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn handler_that_never_waits_is_cancelled() {
    let (site, _) = site!(busy, Config::new());
    let error = shared::<()>(site, FakeEvent::with_ms_left(1_000), async |_| {
        for _ in 0..1_000 {
            // Advances the clock and exhausts tokio's cooperative budget.
            tokio::time::advance(Duration::from_millis(10)).await;
            for _ in 0..256 {
                tokio::task::consume_budget().await;
            }
        }
        Ok(())
    })
    .await
    .expect_err("is stopped");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn dropped_handler_stops_resource_before_its_locals_drop() {
    struct Noted(std::sync::Arc<fake::Script>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.note("handler gone");
        }
    }

    let (site, script) = site!(order, Config::new().close(Close::Never));
    {
        let mut running = pin!(shared::<()>(site, FakeEvent::default(), async |_| {
            let _mine = Noted(fake::Script::of("it::endings::order"));
            pending().await
        }));
        poll_once(&mut running).await;
    }
    let log = script.log();
    assert_eq!(log[..3], ["open", "stop", "handler gone"], "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn short_deadline_leaves_handler_half_of_the_time() {
    let (site, _) = site!(short, Config::new());
    let started = Instant::now();
    shared::<()>(site, FakeEvent::with_ms_left(100), async |_| {
        pending().await
    })
    .await
    .expect_err("is stopped");
    assert_eq!(started.elapsed().as_millis(), 50);
}

#[tokio::test(start_paused = true)]
async fn acquire_is_limited_by_deadline() {
    let (site, script) = site!(clamped, Config::new().acquire_ms(3_000));
    let _never_opened = script.gate();
    let started = Instant::now();
    let error = shared(site, FakeEvent::with_ms_left(1_000), async |_| Ok(()))
        .await
        .expect_err("opens never");
    assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
    assert_eq!(started.elapsed(), Duration::from_millis(750));
    assert!(error.to_string().contains("750 ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn acquire_without_deadline_is_limited_by_acquire_ms() {
    let (site, script) = site!(unclamped, Config::new().acquire_ms(1_234));
    let _never_opened = script.gate();
    let started = Instant::now();
    shared(site, FakeEvent::default(), async |_| Ok(()))
        .await
        .expect_err("opens never");
    assert_eq!(started.elapsed(), Duration::from_millis(1_234));
}

#[tokio::test]
async fn dropped_handler_is_cleaned_up() {
    let (site, script) = site!(dropped, Config::new().close(Close::Never));
    {
        let mut running = pin!(shared::<()>(site, FakeEvent::default(), async |_| {
            pending().await
        }));
        poll_once(&mut running).await;
        assert_eq!(script.log(), ["open"]);
    }
    let_cleanups_run().await;
    let log = script.log();
    assert_eq!(log.last().map(String::as_str), Some("gone"), "{log:?}");
    succeed(site).await;
    assert_eq!(script.log(), ["open", "recycle"]);
}

#[tokio::test]
async fn handler_dropped_while_opening_does_not_block_next_open() {
    let (site, script) = site!(dropped_opening, Config::new());
    let gate = script.gate();
    {
        let mut opening = pin!(shared(site, FakeEvent::default(), async |_| Ok(())));
        poll_once(&mut opening).await;
        assert_eq!(script.log(), ["open"]);
    }
    gate.add_permits(1);
    succeed(site).await;
    assert_eq!(
        script.log(),
        ["open", "closing", "recycle", "close", "gone"]
    );
}

#[tokio::test]
async fn error_is_converted_to_callers_error_type() {
    #[derive(Debug)]
    struct Mine(ErrorKind);
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Self(error.kind())
        }
    }

    use db_handler::__private::{Ref, handle, signature};
    let (site, script) = site!(own_error, Config::new());
    script.faults(fake::Faults {
        open_fails: true,
        ..fake::Faults::default()
    });
    let answer: Result<(), Mine> = handle::<(Ref<fake::Fake>,), _, _, _, _>(
        site,
        signature(),
        FakeEvent::default(),
        async |_, _| Ok(()),
    )
    .await;
    assert_eq!(
        answer.expect_err("cannot open").0,
        ErrorKind::ConnectionRefused
    );
}
