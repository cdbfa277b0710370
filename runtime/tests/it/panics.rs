//! A panic in a resource's own code fails at most its own invocation: it is logged, the other resources are
//! cleaned up, and the next invocation succeeds.

use crate::fake::{self, Fake, FakeEvent, Faults, Line, Script, logs::Logs};
use db_handler::{
    __private::{Close, Config, Ref, RefMut, Site, handle, signature},
    Error, ErrorKind, Stage,
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tracing::Level;

fn panic_in(script: &Script, method: &'static str) {
    script.faults(Faults {
        panics_in: Some(method),
        ..Faults::default()
    });
}

/// Calls a handler that takes `&mut Line`, and records that it ran.
async fn call(site: &'static Site, script: &Arc<Script>) -> Result<(), Error> {
    let script = Arc::clone(script);
    handle::<(RefMut<Line>,), _, _, _, _>(
        site,
        signature(),
        FakeEvent::default(),
        async move |_, _| {
            script.note("ran");
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn panic_in_open_or_connect_fails_its_invocation_only() {
    for method in ["open", "connect"] {
        let (site, script) = site!(opening, Config::new().close(Close::OnError).min(1));
        panic_in(&script, method);
        let error = call(site, &script).await.expect_err("panics");
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert_eq!(error.stage(), Stage::Acquire);
        assert_eq!(
            error.to_string(),
            format!(
                "it::panics::opening: acquire: fake panicked in its `{method}`: scripted panic in {method}"
            )
        );
        script.faults(Faults::default());
        script.log();
        call(site, &script).await.expect("opens now");
        let log = script.log();
        assert_eq!(
            log,
            ["open", "acquire", "ran", "release: Reuse", "recycle"],
            "{method}"
        );
        // Closes the resource before the next round.
        panic_in(&script, "recycle");
        call(site, &script).await.expect("succeeds");
    }
}

#[tokio::test]
async fn panic_in_acquire_fails_its_invocation_and_replaces_resource() {
    let (site, script) = site!(taking, Config::new().close(Close::Never));
    call(site, &script).await.expect("succeeds");
    script.log();
    panic_in(&script, "acquire");
    let error = call(site, &script).await.expect_err("panics");
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(
        error.to_string(),
        "it::panics::taking: acquire: fake panicked in its `acquire`: scripted panic in acquire"
    );
    let log = script.log();
    assert_eq!(
        log[1..],
        ["acquire", "closing", "recycle", "close", "gone"],
        "{log:?}"
    );
    script.faults(Faults::default());
    call(site, &script).await.expect("the next one works");
    assert_eq!(script.log()[0], "open");
}

#[tokio::test]
async fn panic_in_check_replaces_resource_within_same_acquire() {
    let (site, script) = site!(resetting, Config::new().close(Close::Never));
    let logs = Logs::listen();
    call(site, &script).await.expect("succeeds");
    script.log();
    panic_in(&script, "check");
    call(site, &script).await.expect("succeeds all the same");
    let log = script.log();
    assert_eq!(log[..3], ["open", "acquire", "ran"], "{log:?}");
    assert!(log.contains(&"close".to_owned()), "{log:?}");
    let line = logs.find(Level::ERROR, "scripted panic in check");
    assert!(line.expect("reported").contains("it::panics::resetting"));
}

#[tokio::test]
async fn panic_in_cleanup_is_logged_and_resource_is_closed() {
    for method in ["release", "recycle"] {
        let (site, script) = site!(finishing, Config::new().close(Close::Never));
        let logs = Logs::listen();
        panic_in(&script, method);
        call(site, &script).await.expect("succeeds");
        let log = script.log();
        assert_eq!(log[log.len() - 2..], ["close", "gone"], "{method}: {log:?}");
        let hook = if method == "recycle" {
            "clean_up"
        } else {
            method
        };
        let line = logs.find(Level::ERROR, &format!("fake panicked in its `{hook}`"));
        assert!(line.expect("reported").contains("it::panics::finishing"));
        script.faults(Faults::default());
        call(site, &script).await.expect("the next one works");
        panic_in(&script, "recycle");
        call(site, &script)
            .await
            .expect("closed for the next round");
        script.log();
    }
}

#[tokio::test]
async fn panic_does_not_skip_cleanup_of_other_resources() {
    for method in ["release", "closing", "recycle", "close"] {
        static CONFIGS: [Config; 2] = [Config::new(), Config::new()];
        static SITE: Site = Site::new(module_path!(), "several", &CONFIGS);
        let script = Script::of("it::panics::several");
        script.faults(Faults {
            panics_in: Some(method),
            close_panics: method == "close",
            ..Faults::default()
        });
        handle::<(RefMut<Line>, Ref<Fake>), _, _, _, _>(
            &SITE,
            signature(),
            FakeEvent::default(),
            async |_, _| Ok::<(), Error>(()),
        )
        .await
        .expect("succeeds");
        let log = script.log();
        let gone = log.iter().filter(|line| *line == "gone").count();
        let closed = log.iter().filter(|line| *line == "close").count();
        assert_eq!(gone, 2, "{method}: {log:?}");
        assert_eq!(closed, if method == "close" { 0 } else { 2 }, "{log:?}");
        script.faults(Faults::default());
    }
}

/// A second panic during unwinding would abort the process.
#[tokio::test]
async fn panic_in_stop_is_logged_after_handler_panic() {
    let (site, script) = site!(abandoning, Config::new().close(Close::Never));
    let logs = Logs::listen();
    panic_in(&script, "stop");
    let panicking = fake::shared::<()>(site, FakeEvent::default(), async |_| panic!("scripted"));
    AssertUnwindSafe(panicking)
        .catch_unwind()
        .await
        .expect_err("panics");
    assert!(
        logs.find(Level::ERROR, "fake panicked in its `stop`")
            .is_some()
    );
    assert!(script.log().contains(&"close".to_owned()));
    script.faults(Faults::default());
    call(site, &script).await.expect("the next one works");
}
