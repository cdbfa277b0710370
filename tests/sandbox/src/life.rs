//! One process of an environment's function, from its start to its end.

mod call;
mod end;
mod start;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub use self::end::Ended;
pub(crate) use self::{
    call::Order,
    start::{Blueprint, Init},
};
use crate::{
    api::{Board, Desk, Server},
    clock::{Epoch, WallClock, lock},
    limits::Limits,
    process::{Group, Logs},
    record::{Phase, PhaseKind, Violation},
};

/// The records of an environment across its processes.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) epoch: Epoch,
    phases: Mutex<Vec<Phase>>,
    violations: Mutex<Vec<Violation>>,
}

impl Journal {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            phases: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub(crate) fn phase(&self, kind: PhaseKind, from: Instant, to: Instant) -> Phase {
        Phase {
            kind,
            from: self.epoch.ms(from),
            to: self.epoch.ms(to),
        }
    }

    fn enter(&self, kind: PhaseKind, from: Instant, to: Instant) -> Phase {
        let phase = self.phase(kind, from, to);
        lock(&self.phases).push(phase);
        phase
    }

    pub(crate) fn phases(&self) -> Vec<Phase> {
        lock(&self.phases).clone()
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }
}

/// A running function.
#[derive(Debug)]
pub(crate) struct Life {
    desk: Arc<Desk>,
    group: Group,
    logs: Logs,
    limits: Limits,
    journal: Arc<Journal>,
    wall: Arc<WallClock>,
    /// The function's own process.
    pid: u32,
    /// When it was stopped. Locked during every stop and continue, so that they never overlap.
    frozen: tokio::sync::Mutex<Option<Instant>>,
    in_flight: AtomicUsize,
    _server: Server,
}

impl Life {
    /// Whether the process runs and has not been ended by the platform.
    pub(crate) fn is_alive(&self) -> bool {
        let board = self.desk.board.borrow();
        board.exited.is_none() && board.extension_error().is_none()
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.desk.board.borrow().violations.clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until `ready` returns a value, at most until `until`.
    async fn wait<T>(&self, until: Instant, ready: impl FnMut(&Board) -> Option<T>) -> Option<T> {
        wait_on(&self.desk, until, ready).await
    }

    /// Stops every process, unless an invocation is running. Returns whether it is frozen.
    pub(crate) async fn freeze(&self) -> bool {
        let mut frozen = self.frozen.lock().await;
        if frozen.is_some() {
            return true;
        }
        if self.in_flight.load(Ordering::SeqCst) > 0 || !self.is_alive() {
            return false;
        }
        let stopped = self.group.stop(self.limits.stop).await;
        *frozen = Some(Instant::now());
        stopped
    }

    /// Continues every process.
    pub(crate) async fn thaw(&self) {
        let mut frozen = self.frozen.lock().await;
        if let Some(since) = frozen.take() {
            self.journal.enter(PhaseKind::Frozen, since, Instant::now());
            self.group.cont();
        }
    }

    /// How long the process has been frozen.
    pub(crate) async fn frozen_for(&self) -> Option<Duration> {
        self.frozen.lock().await.map(|since| since.elapsed())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.group.kill();
        self.wall.forget(self.group.id());
        self.logs.close();
        lock(&self.journal.violations).extend(self.violations());
    }
}

async fn wait_on<T>(
    desk: &Desk,
    until: Instant,
    mut ready: impl FnMut(&Board) -> Option<T>,
) -> Option<T> {
    let mut seen = desk.board.subscribe();
    loop {
        if let Some(found) = ready(&seen.borrow_and_update()) {
            return Some(found);
        }
        match tokio::time::timeout_at(until.into(), seen.changed()).await {
            Ok(Ok(())) => {}
            // The desk lives as long as `self`, so this is always a timeout.
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}
