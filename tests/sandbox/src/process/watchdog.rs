//! Kills leftover child processes when the simulator exits, however it exits.
//!
//! `Drop` ends the children on an orderly exit and on a panic, but does not run when the simulator is killed
//! with SIGKILL or aborts. So a shell, in its own process group and without the terminal's signals, reads a
//! list of groups from a pipe. When the pipe is closed, the shell kills every group on the list, and then
//! every process with the simulator's mark, which finds processes that left their group.
//!
//! The mark is the value of a resource limit, `RLIMIT_LOCKS`, which Linux has not used since 2.4.25. It is
//! inherited across `fork`, `exec` and `setsid`, also by a process that clears its environment. A subreaper
//! would get orphans only while the simulator runs, and could not distinguish them from other children of the
//! process that the simulator runs in.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::clock::lock;

const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
mark=$1
groups=
while read -r verb id; do
  case $verb in
    watch) groups="$groups $id" ;;
    unwatch)
      rest=
      for group in $groups; do [ "$group" = "$id" ] || rest="$rest $group"; done
      groups=$rest ;;
  esac
done
for group in $groups; do
  kill -s KILL -- "-$group" 2>/dev/null
  # What libfaketime leaves behind when its process is killed; most often nothing.
  rm -f "/dev/shm/faketime_shm_$group" "/dev/shm/sem.faketime_sem_$group"
done
# Once more as long as some are found: one of them may just have started another.
for turn in 1 2 3 4 5 6 7 8 9; do
  found=
  for file in $(grep -lsE "^Max file locks +$mark " /proc/[0-9]*/limits 2>/dev/null); do
    pid=${file#/proc/}
    kill -s KILL -- "${pid%/limits}" 2>/dev/null && found=yes
  done
  [ "$found" ] || break
done
exit 0
"#;

/// Time limit for the shell's final kills.
const LAST_WORK: Duration = Duration::from_secs(2);

/// One watchdog per simulator.
#[derive(Debug)]
pub(crate) struct Watchdog {
    mark: u64,
    book: Mutex<Option<ChildStdin>>,
    shell: Mutex<Child>,
}

impl Watchdog {
    pub(crate) fn start() -> io::Result<Self> {
        // In a nested simulator the limit is already low, and only a privileged process may raise it.
        let most = getrlimit(Resource::Locks).maximum.unwrap_or(u64::MAX >> 2);
        let mark = crate::ids::bits() % most.max(1) + 1;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "sandbox-watchdog"])
            .arg(mark.to_string());
        // Its own group: Ctrl-C must not end it before the children.
        command.process_group(0).current_dir("/");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut shell = command.spawn()?;
        let book = Mutex::new(shell.stdin.take());
        Ok(Self {
            mark,
            book,
            shell: Mutex::new(shell),
        })
    }

    /// Marks a process and all its future descendants.
    pub(super) fn mark(&self, process: Pid) -> io::Result<()> {
        let limit = Rlimit {
            current: Some(self.mark),
            maximum: Some(self.mark),
        };
        prlimit(Some(process), Resource::Locks, limit)?;
        Ok(())
    }

    pub(super) fn watch(&self, group: Pid) -> io::Result<()> {
        let mut book = lock(&self.book);
        let pipe = book
            .as_mut()
            .ok_or_else(|| io::Error::other("the watchdog is gone"))?;
        writeln!(pipe, "watch {}", group.as_raw_nonzero())
    }

    pub(super) fn unwatch(&self, group: Pid) {
        if let Some(pipe) = lock(&self.book).as_mut() {
            // If the shell is gone, it cannot kill an unrelated group.
            let _ = writeln!(pipe, "unwatch {}", group.as_raw_nonzero());
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Closing the pipe starts the final kills.
        drop(lock(&self.book).take());
        let until = Instant::now() + LAST_WORK;
        let mut shell = lock(&self.shell);
        while matches!(shell.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
