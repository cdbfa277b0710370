//! A kernel timer: tokio's timers have a resolution of one millisecond, which is as long as the simulated round
//! trips.

use std::{io, os::fd::OwnedFd, time::Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Waits for instants with microsecond resolution.
#[derive(Debug)]
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(
        deprecated,
        reason = "its successor is unsafe because of descriptors that change under it: this one is owned here, and no one else has it"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Sleeps until `at`. Cancel safe.
    pub(super) async fn until(&self, at: Instant) {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // Setting it again also clears an unread expiry.
        let spec = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec).is_err() {
            return tokio::time::sleep_until(at.into()).await;
        }
        while Instant::now() < at {
            let Ok(mut ready) = self.0.readable().await else {
                return;
            };
            let mut expiries = [0; 8];
            // "Would block" means stale readiness: wait again.
            let _ = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expiries)?));
        }
    }
}
