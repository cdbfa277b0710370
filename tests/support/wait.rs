//! Bounded waits for events.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of every wait: much longer than a busy machine needs, much shorter than CI's time limit.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The polling interval.
pub(crate) const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `look` repeatedly until `is_there` accepts its result, and returns the result.
///
/// # Panics
/// After [`PATIENCE`], with `what` and the last result.
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

/// The bound of a polling loop. Unlike most futures that contain an async closure, such a loop can be spawned.
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

    /// Waits for one interval, or panics after the time limit.
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

/// Starts a server on a free port; tries another port if the first has been taken meanwhile.
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

/// Runs a future from synchronous code, which may itself run inside a runtime.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(future)
    };
    // A runtime cannot start inside another one, so this uses a separate thread.
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
