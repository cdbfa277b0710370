//! Programs that never outlive this process, and their working directory.
//!
//! A destructor does not run when a test is killed. So each program is the child of a small shell script (`guard.sh`),
//! which ends the program when the pipe to this process breaks.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::wait::INTERVAL;

/// A server starts in about a second, but may take much longer while the machine runs builds.
const STARTUP: Duration = Duration::from_mins(1);

/// The signal that ends a program when this process ends.
#[derive(Clone, Copy)]
pub(crate) enum EndWith {
    /// PostgreSQL's immediate shutdown, which also ends its children and removes its shared memory.
    Quit,
    /// Kills the program.
    Kill,
    /// A request, for programs that clean up.
    Term,
}

/// A temporary directory, owned by an unprivileged user if we are root: database servers refuse to run as root.
pub(crate) struct Workplace {
    folder: TempDir,
    user: Option<(u32, u32)>,
}

impl Workplace {
    pub(crate) fn create(name: &str) -> Self {
        let mut workplace = Self::create_for_us(name);
        let owner = fs::metadata(workplace.path())
            .expect("the folder just made")
            .uid();
        workplace.user = (owner == 0).then(|| (id(&["-u", "nobody"]), id(&["-g", "nobody"])));
        workplace.hand_over(workplace.path());
        workplace
    }

    /// For a program that runs as root, too, and may be installed where only root can read it.
    pub(crate) fn create_for_us(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("db-handler-{name}-"))
            .tempdir()
            .expect("room for a temporary folder; see TMPDIR");
        Self { folder, user: None }
    }

    /// The same for a program in our own directories, which other users may not be able to run.
    pub(crate) fn create_for_ourselves(name: &str) -> Self {
        let mut workplace = Self::create(name);
        if workplace.user.take().is_some() {
            chown(workplace.path(), Some(0), None).expect("our own folder");
        }
        workplace
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the programs' user the only one who can read `file`.
    pub(crate) fn hand_over(&self, file: &Path) {
        let mode = if file.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("our own file");
        if let Some((user, group)) = self.user {
            chown(file, Some(user), Some(group)).expect("root may give files away");
        }
    }

    /// Runs a program to its end.
    pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        program: &Path,
        arguments: I,
    ) -> Result<(), String> {
        let mut running = self.guard(EndWith::Term, "keep", program, arguments);
        let status = running.wait_for_exit(STARTUP);
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!(
                "{} ended with {status}:\n{}",
                program.display(),
                running.last_words()
            )),
            None => Err(format!(
                "{} did not end within {STARTUP:?}:\n{}",
                program.display(),
                self.log()
            )),
        }
    }

    /// Starts a server and waits until it is ready.
    pub(crate) fn serve<I: IntoIterator<Item: AsRef<OsStr>>>(
        self,
        end_with: EndWith,
        program: &Path,
        arguments: I,
        is_ready: impl Fn() -> bool,
    ) -> Result<Server, String> {
        let mut running = self.guard(end_with, "remove", program, arguments);
        let end = Instant::now() + STARTUP;
        while !is_ready() {
            if let Some(status) = running.wait_for_exit(INTERVAL) {
                return Err(format!(
                    "{} ended with {status}:\n{}",
                    program.display(),
                    running.last_words()
                ));
            }
            if Instant::now() > end {
                return Err(format!(
                    "{} was not ready within {STARTUP:?}:\n{}",
                    program.display(),
                    self.log()
                ));
            }
        }
        Ok(Server {
            running,
            workplace: self,
        })
    }

    fn log(&self) -> String {
        let log = fs::read(self.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn guard<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        end_with: EndWith,
        after: &str,
        program: &Path,
        arguments: I,
    ) -> Guarded {
        let signal = match end_with {
            EndWith::Quit => "QUIT",
            EndWith::Kill => "KILL",
            EndWith::Term => "TERM",
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", include_str!("guard.sh"), "guard.sh", signal, after])
            .arg(self.path())
            .arg(program)
            .args(arguments)
            // The caller's PGPORT, MYSQL_HOME, LANG and the like must not reach these servers.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env("LC_ALL", "C")
            .current_dir(self.path())
            // Ctrl-C and a killed process group end the test; the guard then ends the program.
            .process_group(0)
            // The guard must not hold the test's output open: its reader would wait for the server.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        Guarded(command.spawn().expect("/bin/sh"))
    }
}

/// A running server and its directory. Both are removed when this is dropped or the process ends.
pub(crate) struct Server {
    // Dropped before the folder is.
    running: Guarded,
    workplace: Workplace,
}

impl Server {
    /// Everything that the server has logged.
    pub(crate) fn log(&self) -> String {
        self.workplace.log()
    }

    /// The folder that the server works in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.workplace.path().to_path_buf()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("guard", &self.running.0.id())
            .field("folder", &self.workplace.path())
            .finish()
    }
}

struct Guarded(Child);

impl Guarded {
    fn wait_for_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            let status = self.0.try_wait().expect("our own child");
            if status.is_some() || Instant::now() >= end {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The end of the log, which the guard prints when the program has ended.
    fn last_words(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(mut output) = self.0.stdout.take() {
            // Unreadable output is only missing from a failure message.
            let _ = output.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Its output is no longer needed, and it must not wait for a reader.
        drop(self.0.stdout.take());
        // The pipe breaks, and the guard ends the program.
        drop(self.0.stdin.take());
        if self.wait_for_exit(Duration::from_secs(10)).is_none() {
            eprintln!(
                "a test server did not end within 10 s (guard: process {})",
                self.0.id()
            );
        }
    }
}

/// Runs `id` and parses its number.
fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id")
        .args(arguments)
        .output()
        .expect("the program `id`");
    let text = String::from_utf8_lossy(&output.stdout);
    // macOS prints the ids of `nobody` as -2.
    let number: i64 = text
        .trim()
        .parse()
        .expect("a user `nobody`: servers do not run as root; run the tests as another user");
    u32::try_from(number & 0xffff_ffff).expect("cut to 32 bits")
}
