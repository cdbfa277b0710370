//! Ctrl-C, SIGTERM and SIGHUP (a terminal that is closed): what still runs on a server would outlive this process.

use crate::config::LOCAL_STOP;
use std::{io, process, thread};
use tokio::{runtime, sync::watch, time::sleep};

/// What ends the process from outside, turned into something to be awaited.
#[derive(Debug)]
pub(super) struct Signals(watch::Receiver<Option<i32>>);

impl Signals {
    /// Listens on a thread of its own: a handler that blocks this one must not keep its process from being
    /// ended, at the latest after [`LOCAL_STOP`].
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
        // Without it, the signals do what they do to any process.
        let _ = named.spawn(listening);
        Self(receiver)
    }

    /// Resolves with the exit code that the first signal stands for.
    pub(super) async fn first(&self) -> i32 {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await.map(|code| *code) {
            Ok(Some(code)) => code,
            // Nobody listens.
            _ => std::future::pending().await,
        }
    }

    /// The same if it is here already.
    pub(super) fn received(&self) -> Option<i32> {
        *self.0.borrow()
    }
}

/// The exit code by which a shell tells that a signal has ended a process: 128 and its number.
#[cfg(unix)]
async fn received() -> io::Result<i32> {
    use futures_util::future::select_all;
    use tokio::signal::unix::{SignalKind, signal};

    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // `nohup` ignores it, and listening would undo that.
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

/// Whether this process ignores a signal, as far as the system tells: Linux does, in hexadecimal.
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
