//! The clocks: one epoch for all times of a run, and a wall clock that can be made to jump.
//!
//! The jump is made by libfaketime, preloaded into the function, and not by a seam in the
//! function's own code: a release build needs no test-only branch, the drivers inside it see the
//! jump too, and it works for any dynamically linked binary. It reads its offset from a file, so
//! the offset can change while the function is stopped. Statically linked binaries and Go
//! programs ask the kernel directly and see no jump.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

/// The moment from which all times of a run are counted.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(Instant);

impl Epoch {
    /// Starts counting.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds from the epoch to `at`.
    #[must_use]
    pub fn ms(self, at: Instant) -> f64 {
        millis(at.saturating_duration_since(self.0))
    }
}

/// A duration as milliseconds with three decimals, as every report has it.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Where Debian, Fedora, Arch and Homebrew put the library.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// The wall clock of one environment: the machine's, plus what it was made to jump.
#[derive(Debug)]
pub(crate) struct WallClock {
    offset: Mutex<Duration>,
    fake: Option<Fake>,
}

#[derive(Debug)]
struct Fake {
    library: PathBuf,
    folder: TempDir,
}

impl WallClock {
    pub(crate) fn real() -> Self {
        Self {
            offset: Mutex::default(),
            fake: None,
        }
    }

    /// A clock that can jump; an error where libfaketime is not installed.
    pub(crate) fn faked() -> io::Result<Self> {
        let library = LIBRARIES.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "jumping the wall clock needs libfaketime (Debian: `apt-get install libfaketime`)",
            )
        })?;
        let folder = tempfile::Builder::new()
            .prefix("sandbox-clock-")
            .tempdir()?;
        let clock = Self {
            offset: Mutex::default(),
            fake: Some(Fake {
                library: library.to_owned(),
                folder,
            }),
        };
        clock.jump(Duration::ZERO)?;
        Ok(clock)
    }

    /// Moves the wall clock on; the monotonic clock does not notice.
    pub(crate) fn jump(&self, by: Duration) -> io::Result<()> {
        let Some(fake) = &self.fake else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this sandbox was built without `.wall_clock_jumps(true)`",
            ));
        };
        let mut offset = lock(&self.offset);
        *offset += by;
        // Renamed into place, so that the function never reads half an offset.
        let fresh = fake.folder.path().join("offset.new");
        std::fs::write(&fresh, format!("+{:.3}\n", offset.as_secs_f64()))?;
        std::fs::rename(fresh, fake.folder.path().join("offset"))
    }

    /// What the function needs in its environment.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let Some(fake) = &self.fake else {
            return Vec::new();
        };
        let file = fake.folder.path().join("offset");
        [
            ("LD_PRELOAD", fake.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            // Timers must go on as after a real freeze; the name changed between versions.
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // The jump must be seen by the very next look at the clock.
            ("FAKETIME_NO_CACHE", "1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Removes what libfaketime leaves in shared memory when its process is killed.
    pub(crate) fn forget(&self, pid: impl std::fmt::Display) {
        if self.fake.is_some() {
            for name in ["faketime_shm", "sem.faketime_sem"] {
                // Most often it is not there: nothing to do then.
                let _ = std::fs::remove_file(format!("/dev/shm/{name}_{pid}"));
            }
        }
    }

    /// The platform's idea of the time, in milliseconds since 1970: deadlines follow the jump.
    pub(crate) fn epoch_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from((since + *lock(&self.offset)).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Locks, and goes on with the value when a panic poisoned it: a report of what happened before
/// the panic is worth more than a second panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
