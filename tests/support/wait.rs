//! Waiting for an event, with a bound.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen: far above what a loaded machine needs, far below a CI's time limit.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often the state is looked at.
pub(crate) const INTERVAL: Duration = Duration::from_millis(5);

/// Looks again and again until `is_there` likes what `look` sees, and returns that.
///
/// # Panics
/// After [`PATIENCE`], with `what` was waited for and what was seen last.
pub async fn wait_for<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    is_there: impl Fn(&T) -> bool,
) -> T {
    let patience = Patience::new(what);
    loop {
        let seen = look().await;
        if is_there(&seen) {
            return seen;
        }
        patience.pause(&seen).await;
    }
}

/// The bound of a loop that waits. Such a loop can be spawned; a future with an asynchronous closure in it mostly cannot.
pub(crate) struct Patience<'a> {
    what: &'a str,
    end: Instant,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(what: &'a str) -> Self {
        Self {
            what,
            end: Instant::now() + PATIENCE,
        }
    }

    /// Waits a little before the next look, or panics when it is too late for one.
    pub(crate) async fn pause(&self, seen: &impl Debug) {
        let in_time = Instant::now() < self.end;
        assert!(
            in_time,
            "waited {PATIENCE:?} for {}; last seen: {seen:#?}",
            self.what
        );
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Starts a server on a free port; on another one if somebody else was faster on the first.
pub(crate) fn on_any_free_port<T>(
    free_port: fn() -> u16,
    start_on: impl Fn(u16) -> Result<T, String>,
) -> T {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match start_on(free_port()) {
            Ok(server) => return server,
            Err(error) if attempts < 5 && error.to_lowercase().contains("already in use") => {}
            Err(error) => panic!("no test server: {error}"),
        }
    }
}

/// Runs a future to its end from code that is not asynchronous, which may itself be running inside a runtime.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(future)
    };
    // A runtime does not start inside another one: a thread of its own has none.
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
