//! A handler's work is committed when it returns `Ok`, and rolled back otherwise, before its response is posted.

use crate::fake::{FakeEvent, Faults, Script, Work};
use db_handler::{
    __private::{Close, Config, RefMut, Site, handle, signature},
    Error, ErrorKind, Stage,
};
use futures_util::FutureExt;
use std::{future::pending, panic::AssertUnwindSafe, sync::Arc};

/// Calls a handler that takes `&mut Work` twice.
async fn call(
    site: &'static Site,
    event: FakeEvent,
    script: &Arc<Script>,
    body: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let script = Arc::clone(script);
    handle::<(RefMut<Work>, RefMut<Work>), _, _, _, _>(
        site,
        signature(),
        event,
        async move |_, _works| {
            script.log();
            body().await
        },
    )
    .await
}

macro_rules! two {
    ($name:ident) => {{
        static CONFIGS: [Config; 2] = [Config::new().close(Close::Never); 2];
        static SITE: Site = Site::new(module_path!(), stringify!($name), &CONFIGS);
        let script = Script::of(concat!(module_path!(), "::", stringify!($name)));
        (&SITE, script)
    }};
}

#[tokio::test]
async fn ok_commits_and_releases_all_leases() {
    let (site, script) = two!(ok);
    call(site, FakeEvent::default(), &script, async || Ok(()))
        .await
        .expect("succeeds");
    assert_eq!(
        script.log(),
        [
            "commit",
            "commit",
            "release: Reuse",
            "recycle",
            "release: Reuse",
            "recycle",
        ]
    );
}

#[tokio::test]
async fn error_rolls_back_and_is_returned() {
    let (site, script) = two!(err);
    let failing = call(site, FakeEvent::default(), &script, async || {
        Err(Error::other("no tea"))
    });
    let error = failing.await.expect_err("fails");
    assert_eq!(error.to_string(), "handler: no tea");
    assert_eq!(script.log()[..2], ["rollback", "rollback"]);
}

#[tokio::test]
async fn failed_commit_is_returned_and_remaining_leases_are_rolled_back() {
    let (site, script) = two!(commit);
    script.faults(Faults {
        commit_fails: true,
        ..Faults::default()
    });
    let error = call(site, FakeEvent::default(), &script, async || Ok(()))
        .await
        .expect_err("is not committed");
    assert_eq!(error.kind(), ErrorKind::CommitFailed);
    assert_eq!(error.stage(), Stage::Commit);
    assert_eq!(error.to_string(), "it::commits::commit: commit: scripted");
    assert_eq!(script.log()[..2], ["commit", "rollback"]);
}

/// Asserts that nothing was committed or rolled back, and that the leases were discarded.
fn assert_discarded(script: &Script) {
    let log = script.log();
    assert!(
        !log.iter()
            .any(|what| ["commit", "rollback"].contains(&what.as_str())),
        "{log:?}"
    );
    assert!(log.contains(&"release: Discard".to_owned()), "{log:?}");
}

#[tokio::test]
async fn panic_commits_nothing() {
    let (site, script) = two!(panic);
    let panicking = call(site, FakeEvent::default(), &script, async || {
        panic!("scripted")
    });
    AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    assert_discarded(&script);
}

#[tokio::test(start_paused = true)]
async fn deadline_commits_nothing() {
    let (site, script) = two!(deadline);
    let event = FakeEvent::with_ms_left(1_000);
    let error = call(site, event, &script, async || pending().await)
        .await
        .expect_err("is stopped");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_discarded(&script);
}

#[tokio::test(start_paused = true)]
async fn deadline_during_commit_reports_unknown_outcome() {
    let (site, script) = two!(middle);
    script.faults(Faults {
        never_commits: true,
        ..Faults::default()
    });
    let event = FakeEvent::with_ms_left(1_000);
    let error = call(site, event, &script, async || Ok(()))
        .await
        .expect_err("is stopped");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let said = error.to_string();
    assert!(
        said.contains("may or may not have been committed"),
        "{said}"
    );
    let log = script.log();
    assert_eq!(log[0], "commit");
    assert!(!log.contains(&"rollback".to_owned()), "{log:?}");
    let discarded = log.iter().filter(|what| *what == "release: Discard");
    assert_eq!(discarded.count(), 2, "{log:?}");
}

#[tokio::test]
async fn panic_in_commit_or_rollback_discards_all_leases() {
    for succeeds in [true, false] {
        let (site, script) = two!(panics_in_it);
        script.faults(Faults {
            panics_in: Some(if succeeds { "commit" } else { "rollback" }),
            ..Faults::default()
        });
        let error = call(site, FakeEvent::default(), &script, async || {
            if succeeds {
                Ok(())
            } else {
                Err(Error::other("no tea"))
            }
        })
        .await
        .expect_err("fails");
        let expected = if succeeds {
            ErrorKind::Panicked
        } else {
            ErrorKind::Handler
        };
        assert_eq!(error.kind(), expected);
        let log = script.log();
        assert!(log.contains(&"release: Discard".to_owned()), "{log:?}");
        assert!(!log.contains(&"release: Reuse".to_owned()), "{log:?}");
    }
}
