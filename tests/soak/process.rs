//! What a process uses of its machine.

use std::fs;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) kib: u64,
    pub(crate) files: usize,
}

impl Use {
    pub(crate) fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("our own child");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        let files = fs::read_dir(format!("/proc/{process}/fd")).expect("our own child");
        Self {
            kib: kib.expect("a resident set"),
            files: files.count(),
        }
    }

    /// Whether this is no more than that, but for what allocators and one more connection or two use.
    pub(crate) fn is_flat_since(self, before: Self) -> bool {
        self.kib <= before.kib + before.kib / 4 + 4_096 && self.files <= before.files + 6
    }
}
