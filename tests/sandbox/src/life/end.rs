//! The end of a process: SIGTERM if an extension is registered, SHUTDOWN for the extensions, SIGKILL.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Life;
use crate::{api::Shutdown, process, record::PhaseKind};

/// How an environment ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ended {
    /// Whether the function got SIGTERM (only if an extension is registered).
    pub asked: bool,
    /// Whether the function exited before SIGKILL.
    pub in_time: bool,
    /// From the first signal to the end of the process.
    #[serde(skip)]
    pub took: Duration,
}

impl Life {
    /// Ends every process, with the grace periods of the real platform.
    pub(crate) async fn end(&self, reason: &'static str) -> Ended {
        self.thaw().await;
        let began = Instant::now();
        let (registered, external, alive) = {
            let board = self.desk.board.borrow();
            let external = board.has_external_extension();
            (
                !board.extensions.is_empty(),
                external,
                board.exited.is_none(),
            )
        };
        if registered && alive {
            process::terminate(self.pid);
            let limits = &self.limits;
            let grace = if external {
                limits.grace_external
            } else {
                limits.grace_internal
            };
            self.wait(began + grace, |board| board.exited).await;
        }
        let in_time = self.desk.board.borrow().exited.is_some();
        if external {
            if !in_time {
                process::kill_one(self.pid);
            }
            self.tell_extensions(reason, began + self.limits.shutdown_external)
                .await;
        }
        self.group.kill();
        self.wait(Instant::now() + self.limits.reap, |board| board.exited)
            .await;
        if alive && reason == "SPINDOWN" {
            self.journal
                .enter(PhaseKind::Shutdown, began, Instant::now());
        }
        Ended {
            asked: registered && alive,
            in_time,
            took: began.elapsed(),
        }
    }

    /// Sends the shutdown event to external extensions, and waits for the rest of the time.
    async fn tell_extensions(&self, reason: &'static str, until: Instant) {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let deadline_ms = self.wall.epoch_ms() + u64::try_from(left).unwrap_or_default();
        let shutdown = Shutdown {
            reason,
            deadline_ms,
        };
        self.desk
            .board
            .send_modify(|board| board.shutdown = Some(shutdown));
        self.wait(until, |board| (board.helpers == 0).then_some(()))
            .await;
    }
}
