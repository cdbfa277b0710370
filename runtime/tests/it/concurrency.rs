//! Concurrent invocations in one process, as on Lambda Managed Instances.

use crate::fake::{Fake, FakeEvent, Faults, Script, poll_once, shared};
use db_handler::{
    __private::{Close, Config, Ref, Site, handle, signature},
    Error, ErrorKind,
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc};
use tokio::sync::Semaphore;

async fn until(site: &'static Site, go_on: Arc<Semaphore>) {
    shared(site, FakeEvent::default(), async |_| {
        go_on.acquire().await.expect("never closed").forget();
        Ok(())
    })
    .await
    .expect("succeeds");
}

#[tokio::test]
async fn concurrent_callers_open_once() {
    let (site, script) = site!(once, Config::new().close(Close::Never));
    let gate = script.gate();
    let go_on = Arc::new(Semaphore::new(2));
    let mut first = pin!(until(site, Arc::clone(&go_on)));
    let mut second = pin!(until(site, go_on));
    poll_once(&mut first).await;
    poll_once(&mut second).await;
    gate.add_permits(2);
    futures_util::join!(first, second);
    let opens = script.log().iter().filter(|what| *what == "open").count();
    assert_eq!(opens, 1);
}

#[tokio::test]
async fn second_caller_opens_after_first_open_is_dropped() {
    let (site, script) = site!(handed_over, Config::new());
    let gate = script.gate();
    let go_on = Arc::new(Semaphore::new(1));
    let mut second = pin!(until(site, Arc::clone(&go_on)));
    {
        let mut first = pin!(until(site, go_on));
        poll_once(&mut first).await;
        poll_once(&mut second).await;
        assert_eq!(script.log(), ["open"]);
    }
    gate.add_permits(1);
    second.await;
    assert_eq!(
        script.log(),
        ["open", "closing", "recycle", "close", "gone"]
    );
}

#[tokio::test]
async fn last_invocation_closes() {
    let (site, script) = site!(last_out, Config::new());
    let (go_first, go_second) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let mut first = pin!(until(site, Arc::clone(&go_first)));
    let mut second = pin!(until(site, Arc::clone(&go_second)));
    poll_once(&mut first).await;
    poll_once(&mut second).await;
    assert_eq!(script.log(), ["open", "check after 0 ms"]);
    go_first.add_permits(1);
    first.await;
    assert!(script.log().is_empty(), "closed under the second one");
    go_second.add_permits(1);
    second.await;
    assert_eq!(script.log(), ["closing", "recycle", "close", "gone"]);
}

#[tokio::test]
async fn closing_resource_is_not_shared_with_new_invocation() {
    let (site, script) = site!(closing, Config::new().close(Close::OnError));
    script.faults(Faults {
        never_closes: true,
        ..Faults::default()
    });
    let mut failing = pin!(shared::<()>(site, FakeEvent::default(), async |_| {
        Err(Error::new(ErrorKind::Query, "scripted"))
    }));
    poll_once(&mut failing).await;
    assert_eq!(script.log(), ["open", "closing", "recycle", "close hangs"]);

    let mut next = pin!(until(site, Arc::new(Semaphore::new(1))));
    poll_once(&mut next).await;
    assert_eq!(script.log()[..1], ["open"], "it joined");
}

#[tokio::test]
async fn panic_replaces_resource_for_later_invocations_only() {
    let (site, script) = site!(neighbour, Config::new().close(Close::Never));
    let go_on = Arc::new(Semaphore::new(0));
    let mut neighbour = pin!(until(site, Arc::clone(&go_on)));
    poll_once(&mut neighbour).await;
    script.log();

    let panicking = shared::<()>(site, FakeEvent::default(), async |_| panic!("scripted"));
    AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    let log = script.log();
    assert!(
        !log.contains(&"close".to_owned()),
        "closed under the neighbour: {log:?}"
    );

    let mut next = pin!(until(site, Arc::clone(&go_on)));
    poll_once(&mut next).await;
    assert_eq!(script.log(), ["open"], "the next one gets its own");

    go_on.add_permits(2);
    neighbour.await;
    assert_eq!(script.log(), ["closing", "recycle", "close", "gone"]);
    next.await;
    assert_eq!(script.log(), ["recycle"]);
}

#[tokio::test(start_paused = true)]
async fn cleanup_ends_when_new_invocation_reuses_resource() {
    let (site, script) = site!(newcomer, Config::new().close(Close::Never));
    script.faults(Faults {
        never_settles: true,
        ..Faults::default()
    });
    let mut first = pin!(until(site, Arc::new(Semaphore::new(1))));
    poll_once(&mut first).await;
    assert_eq!(script.log(), ["open", "recycle"]);
    let go_on = Arc::new(Semaphore::new(0));
    let mut newcomer = pin!(until(site, Arc::clone(&go_on)));
    poll_once(&mut newcomer).await;

    let started = tokio::time::Instant::now();
    first.await;
    assert!(started.elapsed().is_zero(), "{:?}", started.elapsed());
    script.faults(Faults::default());
    go_on.add_permits(1);
    newcomer.await;
    let log = script.log();
    assert!(
        !log.contains(&"close".to_owned()),
        "a healthy one was closed: {log:?}"
    );
}

/// Calls a handler that takes two `&Fake`.
async fn two(site: &'static Site) -> Result<(), Error> {
    handle::<(Ref<Fake>, Ref<Fake>), _, _, _, _>(
        site,
        signature(),
        FakeEvent::default(),
        async |_, _| Ok(()),
    )
    .await
}

#[tokio::test]
async fn resources_are_opened_concurrently() {
    static CONFIGS: [Config; 2] = [Config::new(); 2];
    static SITE: Site = Site::new(module_path!(), "two", &CONFIGS);
    let script = Script::of("it::concurrency::two");
    let gate = script.gate();
    let mut calling = pin!(two(&SITE));
    poll_once(&mut calling).await;
    assert_eq!(script.log(), ["open", "open"]);
    gate.add_permits(2);
    calling.await.expect("succeeds");
}

#[tokio::test]
async fn first_open_error_is_returned_and_opened_resources_are_closed() {
    static CONFIGS: [Config; 2] = [Config::new(); 2];
    static SITE: Site = Site::new(module_path!(), "one_of_two", &CONFIGS);
    let script = Script::of("it::concurrency::one_of_two");
    let gate = script.gate();
    let mut calling = pin!(two(&SITE));
    poll_once(&mut calling).await;
    gate.add_permits(1);
    poll_once(&mut calling).await;
    script.faults(Faults {
        open_fails: true,
        ..Faults::default()
    });
    gate.add_permits(1);
    let error = calling.await.expect_err("one of them fails");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(
        script.log(),
        ["open", "open", "closing", "recycle", "close", "gone"]
    );
}
