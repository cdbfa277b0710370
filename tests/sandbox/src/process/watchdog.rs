//! The keeper of last resort: no child outlives the sandbox, whatever ends it.
//!
//! `Drop` ends the children on an orderly way out and on a panic. Nothing of ours runs when the
//! sandbox itself is killed with SIGKILL, or aborts. So a shell, in a group of its own and deaf
//! to the terminal's signals, keeps a book of the groups, read from a pipe; when the kernel closes
//! the pipe, for whatever reason, the shell kills every group in its book, and then every process
//! that carries the sandbox's mark, which finds those that left their group.
//!
//! The mark is the value of a resource limit, `RLIMIT_LOCKS`, of which Linux has made no use since
//! 2.4.25. It is inherited across `fork`, `exec` and `setsid`, and cannot be shed by a process that drops its
//! environment. A subreaper would be told of orphans only as long as the sandbox lives, and could not tell them from
//! the other children of the process that the sandbox runs in.

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

/// How long the shell may take for its last work before we no longer wait for it.
const LAST_WORK: Duration = Duration::from_secs(2);

/// One keeper per sandbox.
#[derive(Debug)]
pub(crate) struct Watchdog {
    mark: u64,
    book: Mutex<Option<ChildStdin>>,
    shell: Mutex<Child>,
}

impl Watchdog {
    pub(crate) fn start() -> io::Result<Self> {
        // Within a sandbox within a sandbox: only the mighty may raise a limit.
        let most = getrlimit(Resource::Locks).maximum.unwrap_or(u64::MAX >> 2);
        let mark = crate::ids::bits() % most.max(1) + 1;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "sandbox-watchdog"])
            .arg(mark.to_string());
        // Its own group: a Ctrl-C in the terminal must not reach it before the children are gone.
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

    /// Marks a process, and all that it will start.
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
            // Should the shell be gone, there is nothing left that could kill a stranger's group.
            let _ = writeln!(pipe, "unwatch {}", group.as_raw_nonzero());
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // The end of the book is the word to do the last work.
        drop(lock(&self.book).take());
        let until = Instant::now() + LAST_WORK;
        let mut shell = lock(&self.shell);
        while matches!(shell.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
