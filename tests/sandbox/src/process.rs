//! The processes of one environment: started in their own group, stopped, continued, ended.

mod logs;
mod watchdog;

use std::{
    io,
    os::unix::process::CommandExt,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

pub(crate) use self::{logs::Logs, watchdog::Watchdog};
use crate::function::Function;

/// Waits for the word "go" and becomes the function. Before that, the shell is marked and its group is added to
/// the watchdog's list. If the simulator is killed in between, the shell reads the end of its input and exits,
/// so that no process is ever unwatched.
const LAUNCH: &str = r#"read -r go && exec "$@" </dev/null"#;

/// A process group: the function, its external extensions, and all their children.
#[derive(Debug)]
pub(crate) struct Group {
    id: Pid,
    watchdog: Arc<Watchdog>,
    ended: AtomicBool,
}

impl Group {
    /// Starts a program as the leader of a new group, or as a member of `group`.
    pub(crate) fn spawn(
        function: &Function,
        env: &[(String, String)],
        group: Option<&Self>,
        watchdog: &Arc<Watchdog>,
        logs: &Logs,
    ) -> io::Result<(Option<Self>, Child)> {
        let program = function.locate()?;
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", LAUNCH, "sandbox-launch"])
            .arg(program)
            .args(&function.args);
        command
            .env_clear()
            .envs(inherited())
            .envs(env.iter().cloned());
        command.envs(function.env.iter().cloned());
        command.process_group(group.map_or(0, |group| group.id.as_raw_nonzero().get()));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Command::from(command).spawn()?;
        logs.follow(child.stdout.take(), child.stderr.take());

        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("the function's process has no id"))?;
        let leader = group.is_none().then(|| Self {
            id: pid,
            watchdog: Arc::clone(watchdog),
            ended: AtomicBool::new(false),
        });
        if leader.is_some() {
            watchdog.watch(pid)?;
        }
        watchdog.mark(pid)?;
        release(&mut child)?;
        Ok((leader, child))
    }

    /// The number in the names of libfaketime's files.
    pub(crate) fn id(&self) -> Pid {
        self.id
    }

    /// Stops every process, and waits until the kernel reports it.
    pub(crate) async fn stop(&self, limit: Duration) -> bool {
        let _ = kill_process_group(self.id, Signal::STOP);
        let until = Instant::now() + limit;
        loop {
            let states = self.states();
            if states
                .iter()
                .all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
            {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Continues every process.
    pub(crate) fn cont(&self) {
        let _ = kill_process_group(self.id, Signal::CONT);
    }

    /// SIGKILL for every process, also the stopped ones.
    pub(crate) fn kill(&self) {
        if !self.ended.swap(true, Ordering::SeqCst) {
            let _ = kill_process_group(self.id, Signal::KILL);
            self.watchdog.unwatch(self.id);
        }
    }

    /// The kernel's state letters of the group's processes.
    fn states(&self) -> Vec<char> {
        let group = self.id.as_raw_nonzero().get().to_string();
        let Ok(folders) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        folders
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(|c: char| c.is_ascii_digit())
            })
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
            .filter_map(|stat| {
                // "pid (name) state ppid pgrp ...", and a name may hold blanks and brackets.
                let mut fields = stat.rsplit_once(") ")?.1.split(' ');
                let state = fields.next()?.chars().next()?;
                (fields.nth(1)? == group).then_some(state)
            })
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends SIGTERM to the function only, not to its children, as the platform does.
pub(crate) fn terminate(child: u32) {
    if let Some(pid) = Pid::from_raw(child.cast_signed()) {
        // An error means that it has already ended.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// SIGKILL for one process of the group.
pub(crate) fn kill_one(child: u32) {
    if let Some(pid) = Pid::from_raw(child.cast_signed()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Says "go" and closes the pipe: the function's standard input is `/dev/null`, as on Lambda.
fn release(child: &mut Child) -> io::Result<()> {
    let stdin = child
        .stdin
        .take()
        .ok_or_else(|| io::Error::other("the launcher has no input"))?;
    let mut pipe = std::fs::File::from(stdin.into_owned_fd()?);
    io::Write::write_all(&mut pipe, b"go\n")
}

/// The machine's variables that a function inherits; the platform sets the rest.
fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    [
        "PATH",
        "HOME",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "RUST_BACKTRACE",
        "LLVM_PROFILE_FILE",
    ]
    .into_iter()
    .filter_map(|name| std::env::var_os(name).map(|value| (name, value)))
}

/// A readable description: "exited with status 3", "was killed by signal 9".
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".into(),
    }
}
