//! Background tasks belong to their invocation: none runs after its cleanup.

use crate::fake::{Fake, FakeEvent, Script, logs::Logs, poll_once};
use db_handler::{
    __private::{BackgroundPolicy, Config, Ref, Site, handle, signature},
    Background, BackgroundTask, Error, ErrorKind,
};
use futures_util::FutureExt;
use std::{
    future::pending,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

/// Calls a handler that takes `&Background` and `&Fake`.
async fn with_tasks<Out>(
    site: &'static Site,
    event: FakeEvent,
    body: impl AsyncFnOnce(&Background) -> Result<Out, Error>,
) -> Result<Out, Error> {
    handle::<(Ref<Background>, Ref<Fake>), _, _, _, _>(
        site,
        signature(),
        event,
        async move |_, (background, _fake)| body(&background).await,
    )
    .await
}

/// Writes a line to the script when it is dropped.
struct Noted(Arc<Script>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note("task gone");
    }
}

/// A task that takes a second.
fn a_second(script: &Arc<Script>) -> impl Future<Output = u32> + Send + 'static {
    let noted = Noted(Arc::clone(script));
    async move {
        sleep(Duration::from_secs(1)).await;
        noted.0.note("task done");
        7
    }
}

/// A task that never ends by itself.
fn forever(script: &Arc<Script>) -> impl Future<Output = ()> + Send + 'static {
    let noted = Noted(Arc::clone(script));
    async move {
        let _noted = noted;
        pending::<()>().await;
    }
}

async fn was_stopped(task: Option<BackgroundTask<()>>) {
    let ended = timeout(Duration::from_secs(5), task.expect("spawned")).await;
    let error = ended.expect("in time").expect_err("was stopped");
    assert_eq!(error.kind(), ErrorKind::Background);
}

#[tokio::test(start_paused = true)]
async fn tasks_are_awaited_before_close() {
    let (site, script) = site!(wait, Config::new());
    let started = Instant::now();
    with_tasks(site, FakeEvent::default(), async |background| {
        drop(background.spawn(a_second(&script)));
        script.note("handler done");
        Ok(())
    })
    .await
    .expect("succeeds");
    assert_eq!(
        script.log(),
        [
            "open",
            "handler done",
            "task done",
            "task gone",
            "closing",
            "recycle",
            "close",
            "gone"
        ]
    );
    assert_eq!(started.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn tasks_are_awaited_before_close_after_error() {
    let (site, script) = site!(wait_error, Config::new());
    with_tasks::<()>(site, FakeEvent::default(), async |background| {
        background.spawn(a_second(&script));
        Err(Error::new(ErrorKind::Query, "scripted"))
    })
    .await
    .expect_err("fails");
    assert_eq!(
        script.log(),
        [
            "open",
            "task done",
            "task gone",
            "closing",
            "recycle",
            "close",
            "gone"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn nested_task_is_awaited() {
    let (site, script) = site!(wait_nested, Config::new());
    with_tasks(site, FakeEvent::default(), async |background| {
        let (again, then) = (background.clone(), a_second(&script));
        background.spawn(async move {
            sleep(Duration::from_secs(1)).await;
            again.spawn(then);
        });
        Ok(())
    })
    .await
    .expect("succeeds");
    let log = script.log();
    assert_eq!(log[1..4], ["task done", "task gone", "closing"], "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn tasks_are_awaited_until_handler_deadline() {
    let (site, script) = site!(wait_deadline, Config::new());
    let logs = Logs::listen();
    let started = Instant::now();
    with_tasks(site, FakeEvent::with_ms_left(3_000), async |background| {
        background.spawn(forever(&script));
        Ok(())
    })
    .await
    .expect("succeeds");
    assert_eq!(started.elapsed().as_millis(), 2_750);
    assert_eq!(
        script.log(),
        ["open", "task gone", "closing", "recycle", "close", "gone"]
    );
    let line = logs.find(Level::WARN, "took too long");
    let line = line.expect("reported");
    assert!(line.contains("it::background::wait_deadline"), "{line}");
    assert!(line.contains("stopped=1"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn tasks_are_awaited_for_one_minute_without_deadline() {
    let (site, script) = site!(wait_minute, Config::new());
    let started = Instant::now();
    with_tasks(site, FakeEvent::default(), async |background| {
        background.spawn(forever(&script));
        Ok(())
    })
    .await
    .expect("succeeds");
    assert_eq!(started.elapsed(), db_handler::config::BACKGROUND);
    assert_eq!(script.log()[1..3], ["task gone", "closing"]);
}

#[tokio::test(start_paused = true)]
async fn abort_cancels_tasks_before_close() {
    let (site, script) = site!(abort, Config::new().background(BackgroundPolicy::Abort));
    let started = Instant::now();
    let mut task: Option<BackgroundTask<u32>> = None;
    with_tasks(site, FakeEvent::default(), async |background| {
        task = Some(background.spawn(a_second(&script)));
        Ok(())
    })
    .await
    .expect("succeeds");
    assert!(started.elapsed().is_zero());
    assert_eq!(
        script.log(),
        ["open", "task gone", "closing", "recycle", "close", "gone"]
    );
    let error = task.expect("spawned").await.expect_err("was stopped");
    assert_eq!(error.kind(), ErrorKind::Background);
    assert_eq!(
        error.to_string(),
        "it::background::abort: handler: a background task was stopped with its invocation"
    );
}

#[tokio::test(start_paused = true)]
async fn tasks_are_cancelled_after_panic_or_deadline() {
    let (site, script) = site!(abnormal, Config::new());
    let started = Instant::now();
    let panicking = with_tasks::<()>(site, FakeEvent::default(), async |background| {
        background.spawn(a_second(&script));
        panic!("scripted")
    });
    AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    assert!(started.elapsed().is_zero());
    let log = script.log();
    let at = |what: &str| log.iter().position(|line| line == what);
    assert!(at("task gone") < at("close"), "{log:?}");
    assert!(at("task gone").is_some(), "{log:?}");

    with_tasks::<()>(site, FakeEvent::with_ms_left(1_000), async |background| {
        background.spawn(forever(&script));
        pending().await
    })
    .await
    .expect_err("is stopped");
    assert_eq!(started.elapsed().as_millis(), 750);
    let log = script.log();
    let at = |what: &str| log.iter().position(|line| line == what);
    assert!(at("task gone") < at("close"), "{log:?}");
    assert!(at("task gone").is_some(), "{log:?}");
}

#[tokio::test]
async fn dropped_handler_cancels_its_tasks() {
    let (site, script) = site!(dropped, Config::new());
    let mut task = None;
    {
        let mut running = pin!(with_tasks::<()>(
            site,
            FakeEvent::default(),
            async |background| {
                task = Some(background.spawn(forever(&script)));
                pending().await
            }
        ));
        poll_once(&mut running).await;
    }
    was_stopped(task).await;
    assert!(script.log().contains(&"task gone".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn dropped_cleanup_cancels_tasks() {
    let (site, script) = site!(dropped_finally, Config::new());
    let mut task = None;
    let calling = with_tasks::<()>(site, FakeEvent::default(), async |background| {
        task = Some(background.spawn(forever(&script)));
        Ok(())
    });
    timeout(Duration::from_secs(1), calling)
        .await
        .expect_err("the task takes longer");
    was_stopped(task).await;
}

#[tokio::test(start_paused = true)]
async fn handler_can_await_task() {
    let (site, script) = site!(awaited, Config::new());
    let answer = with_tasks(site, FakeEvent::default(), async |background| {
        background.spawn(a_second(&script)).await
    });
    assert_eq!(answer.await.expect("succeeds"), 7);
}

#[tokio::test]
async fn panic_in_task_is_logged_and_fails_nothing_else() {
    let (site, script) = site!(panicking_task, Config::new());
    let logs = Logs::listen();
    let mut task = None;
    with_tasks(site, FakeEvent::default(), async |background| {
        background.spawn(async { panic!("scripted") });
        task = Some(background.spawn(async { panic!("scripted, too") }));
        Ok(())
    })
    .await
    .expect("succeeds");
    assert_eq!(
        script.log(),
        ["open", "closing", "recycle", "close", "gone"]
    );
    let said = "it::background::panicking_task: handler: a background task panicked: scripted, too";
    let error: Error = task.expect("spawned").await.expect_err("panicked");
    assert_eq!(error.to_string(), said);
    assert!(logs.find(Level::ERROR, said).is_some());
}

#[tokio::test]
async fn spawn_after_invocation_is_rejected() {
    let (site, script) = site!(late, Config::new());
    let logs = Logs::listen();
    let escaped: Mutex<Option<Background>> = Mutex::default();
    with_tasks(site, FakeEvent::default(), async |background| {
        *escaped.lock().expect("unpoisoned") = Some(background.clone());
        Ok(())
    })
    .await
    .expect("succeeds");
    script.log();
    let escaped = escaped.into_inner().expect("unpoisoned").expect("escaped");
    let task = escaped.spawn(forever(&script));
    assert_eq!(script.log(), ["task gone"]);
    let error = task.await.expect_err("was refused");
    assert_eq!(error.kind(), ErrorKind::Background);
    assert_eq!(error.handler(), Some("it::background::late"));
    assert!(
        logs.find(Level::ERROR, "the invocation has ended")
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn invocation_awaits_only_its_own_tasks() {
    let (site, script) = site!(own, Config::new());
    let mut slow = pin!(with_tasks(site, FakeEvent::default(), async |background| {
        background.spawn(forever(&script));
        Ok(())
    }));
    poll_once(&mut slow).await;
    let started = Instant::now();
    with_tasks(site, FakeEvent::default(), async |background| {
        assert_eq!(background.running(), 0);
        background.spawn(async {});
        Ok(())
    })
    .await
    .expect("succeeds");
    assert!(started.elapsed().is_zero());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_task_does_not_delay_close() {
    let (site, script) = site!(
        unyielding,
        Config::new().background(BackgroundPolicy::Abort)
    );
    let (release, released) = mpsc::channel::<()>();
    let (arrive, arrived) = tokio::sync::oneshot::channel();
    let started = Instant::now();
    with_tasks(site, FakeEvent::default(), async |background| {
        background.spawn(async move {
            arrive.send(()).expect("awaited");
            // Blocks its thread.
            let _ = released.recv();
        });
        arrived.await.map_err(Error::other)
    })
    .await
    .expect("succeeds");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(
        script.log(),
        ["open", "closing", "recycle", "close", "gone"]
    );
    drop(release);
}
