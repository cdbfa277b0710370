//! `shutdown` closes every resource.

use crate::fake::{FakeEvent, Faults, poll_once, shared};
use db_handler::{
    __private::{Close, Config, Site},
    config::SHUTDOWN,
};
use std::{future::pending, pin::pin};
use tokio::time::Instant;

async fn succeed(site: &'static Site) {
    shared(site, FakeEvent::default(), async |_| Ok(()))
        .await
        .expect("succeeds");
}

#[tokio::test]
async fn idle_resource_is_closed_and_next_event_opens_another() {
    let (site, script) = site!(kept, Config::new().close(Close::Never));
    succeed(site).await;
    script.log();
    db_handler::shutdown().await;
    assert_eq!(script.log(), ["close", "gone"]);
    succeed(site).await;
    assert_eq!(script.log(), ["open", "recycle"]);
    db_handler::shutdown().await;
    assert_eq!(script.log(), ["close", "gone"]);
}

#[tokio::test(start_paused = true)]
async fn hanging_close_is_dropped_after_timeout() {
    let (site, script) = site!(hanging, Config::new().close(Close::Never));
    succeed(site).await;
    script.log();
    script.faults(Faults {
        never_closes: true,
        ..Faults::default()
    });
    let started = Instant::now();
    db_handler::shutdown().await;
    assert_eq!(started.elapsed(), SHUTDOWN);
    assert_eq!(script.log()[0], "close hangs");
    succeed(site).await;
    assert!(script.log().contains(&"open".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn resource_in_use_is_closed_when_its_invocation_ends() {
    let (site, script) = site!(in_use, Config::new().close(Close::Never));
    let go_on = tokio::sync::Notify::new();
    let mut running = pin!(shared(site, FakeEvent::default(), async |_| {
        go_on.notified().await;
        Ok(())
    }));
    poll_once(&mut running).await;
    let mut ending = pin!(db_handler::shutdown());
    poll_once(&mut ending).await;
    assert_eq!(script.log(), ["open"], "closed under its user");
    go_on.notify_one();
    let started = Instant::now();
    let (answer, ()) = tokio::join!(running, ending);
    answer.expect("succeeds");
    assert!(started.elapsed().is_zero());
    assert_eq!(script.log(), ["closing", "recycle", "close", "gone"]);
}

#[tokio::test(start_paused = true)]
async fn resource_still_in_use_is_dropped_after_timeout() {
    let (site, script) = site!(stuck, Config::new().close(Close::Never));
    let mut running = pin!(shared::<()>(site, FakeEvent::default(), async |_| {
        pending().await
    }));
    poll_once(&mut running).await;
    let started = Instant::now();
    db_handler::shutdown().await;
    assert_eq!(started.elapsed(), SHUTDOWN);
    assert_eq!(script.log(), ["open", "stop"]);
}
