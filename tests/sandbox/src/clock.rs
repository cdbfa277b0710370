//! The clocks: one epoch for all times of a run, and a wall clock that can jump.
//!
//! libfaketime is preloaded into the function and makes the clock jump. The function needs no test-only code,
//! its drivers see the jump as well, and it works for any dynamically linked binary. libfaketime reads the
//! offset from a file, so the offset can change while the function is stopped. Statically linked binaries and
//! Go programs call the kernel directly and see no jump.

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

/// A duration in milliseconds with three decimals, as in reports.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Where Debian, Fedora, Arch and Homebrew install the library.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// The wall clock of one environment: the machine's plus all jumps.
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

    /// Advances the wall clock, but not the monotonic clock.
    pub(crate) fn jump(&self, by: Duration) -> io::Result<()> {
        let Some(fake) = &self.fake else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this sandbox was built without `.wall_clock_jumps(true)`",
            ));
        };
        let mut offset = lock(&self.offset);
        *offset += by;
        // Replaced atomically, so that the function never reads a partial offset.
        let fresh = fake.folder.path().join("offset.new");
        std::fs::write(&fresh, format!("+{:.3}\n", offset.as_secs_f64()))?;
        std::fs::rename(fresh, fake.folder.path().join("offset"))
    }

    /// The variables that the function needs.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let Some(fake) = &self.fake else {
            return Vec::new();
        };
        let file = fake.folder.path().join("offset");
        [
            ("LD_PRELOAD", fake.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            // Timers must behave as after a real freeze. The name differs between versions.
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // The next read of the clock must see the jump.
            ("FAKETIME_NO_CACHE", "1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Removes what libfaketime leaves in shared memory when its process is killed.
    pub(crate) fn forget(&self, pid: impl std::fmt::Display) {
        if self.fake.is_some() {
            for name in ["faketime_shm", "sem.faketime_sem"] {
                // The file usually does not exist.
                let _ = std::fs::remove_file(format!("/dev/shm/{name}_{pid}"));
            }
        }
    }

    /// The platform's time in milliseconds since 1970: deadlines follow the jump.
    pub(crate) fn epoch_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from((since + *lock(&self.offset)).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Locks, and ignores poisoning: a report of the events before the panic is more useful than a second
/// panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
