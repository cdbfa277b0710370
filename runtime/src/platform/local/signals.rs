//! Ctrl-C, SIGTERM and SIGHUP (a closed terminal): without a handler for them, queries on the server would
//! outlive this process.

use crate::config::LOCAL_STOP;
use std::{io, process, thread};
use tokio::{runtime, sync::watch, time::sleep};

/// Signals that end the process, as a future.
#[derive(Debug)]
pub(super) struct Signals(watch::Receiver<Option<i32>>);

impl Signals {
    /// Listens on a thread of its own: a handler that blocks its thread must not prevent the process from
    /// ending. It ends after [`LOCAL_STOP`] at the latest.
    pub(super) fn listen() -> Self {
        let (sender, receiver) = watch::channel(None);
        let listening = move || -> io::Result<()> {
            runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(async {
                    let code = received().await?;
                    sender.send_replace(Some(code));
                    sleep(LOCAL_STOP).await;
                    process::exit(code)
                })
        };
        let named = thread::Builder::new().name("db-handler-signals".to_owned());
        // Without this thread, the signals have their default action.
        let _ = named.spawn(listening);
        Self(receiver)
    }

    /// Waits for the first signal, and returns its exit code.
    pub(super) async fn first(&self) -> i32 {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await.map(|code| *code) {
            Ok(Some(code)) => code,
            // The listening thread has ended.
            _ => std::future::pending().await,
        }
    }

    /// Returns the exit code if a signal has already arrived.
    pub(super) fn received(&self) -> Option<i32> {
        *self.0.borrow()
    }
}

/// Returns the exit code that a shell uses for a process ended by a signal: 128 plus the signal's number.
#[cfg(unix)]
async fn received() -> io::Result<i32> {
    use futures_util::future::select_all;
    use tokio::signal::unix::{SignalKind, signal};

    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // `nohup` ignores SIGHUP; listening would undo that.
    if !is_ignored(SignalKind::hangup()) {
        kinds.push(SignalKind::hangup());
    }
    let mut received = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let mut signals = signal(kind)?;
        received.push(Box::pin(async move {
            signals.recv().await;
            128 + kind.as_raw_value()
        }));
    }
    let (code, ..) = select_all(received).await;
    Ok(code)
}

/// Returns whether this process ignores a signal. Known on Linux only, which shows the mask in hexadecimal.
#[cfg(unix)]
fn is_ignored(kind: tokio::signal::unix::SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(not(unix))]
async fn received() -> io::Result<i32> {
    tokio::signal::ctrl_c().await?;
    Ok(130)
}
