//! What a handler did lasts when it returns `Ok`, and is undone otherwise, before its answer goes out.

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
async fn after_ok_all_is_made_to_last_and_put_back() {
    let (site, script) = two!(ok);
    call(site, FakeEvent::default(), &script, async || Ok(()))
        .await
        .expect("succeeds");
    assert_eq!(
        script.log(),
        [
            "conclude: Succeeded",
            "conclude: Succeeded",
            "release: Reuse",
            "settle",
            "release: Reuse",
            "settle",
        ]
    );
}

#[tokio::test]
async fn after_an_error_all_is_undone_and_the_error_is_the_answer() {
    let (site, script) = two!(err);
    let failing = call(site, FakeEvent::default(), &script, async || {
        Err(Error::other("no tea"))
    });
    let error = failing.await.expect_err("fails");
    assert_eq!(error.to_string(), "handler: no tea");
    assert_eq!(script.log()[..2], ["conclude: Failed", "conclude: Failed"]);
}

#[tokio::test]
async fn a_commit_that_fails_is_the_answer_and_the_rest_is_undone() {
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
    assert_eq!(
        error.to_string(),
        "it::conclusions::commit: commit: scripted"
    );
    assert_eq!(
        script.log()[..2],
        ["conclude: Succeeded", "conclude: Failed"]
    );
}

/// Nothing was concluded, and what was lent serves nobody any more.
fn nothing_lasts(script: &Script) {
    let log = script.log();
    assert!(
        !log.iter().any(|what| what.starts_with("conclude")),
        "{log:?}"
    );
    assert!(log.contains(&"release: Discard".to_owned()), "{log:?}");
}

#[tokio::test]
async fn after_a_panic_nothing_is_made_to_last() {
    let (site, script) = two!(panic);
    let panicking = call(site, FakeEvent::default(), &script, async || {
        panic!("scripted")
    });
    AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    nothing_lasts(&script);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_nothing_is_made_to_last() {
    let (site, script) = two!(deadline);
    let event = FakeEvent::with_ms_left(1_000);
    let error = call(site, event, &script, async || pending().await)
        .await
        .expect_err("is stopped");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    nothing_lasts(&script);
}

#[tokio::test(start_paused = true)]
async fn stopped_in_the_middle_of_it_the_caller_is_told_that_nobody_knows() {
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
    assert!(said.contains("nobody knows whether it was"), "{said}");
    let log = script.log();
    assert_eq!(log[0], "conclude: Succeeded");
    assert!(!log.contains(&"conclude: Failed".to_owned()), "{log:?}");
    let discarded = log.iter().filter(|what| *what == "release: Discard");
    assert_eq!(discarded.count(), 2, "{log:?}");
}

#[tokio::test]
async fn after_a_panic_in_it_nothing_is_used_again() {
    for succeeds in [true, false] {
        let (site, script) = two!(panics_in_it);
        script.faults(Faults {
            panics_in: Some("conclude"),
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
