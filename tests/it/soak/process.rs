//! Memory and files of a process.

use std::fs;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) kib: u64,
    pub(crate) files: usize,
}

impl Use {
    /// Returns `None` if the process has ended.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        let files = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        Some(Self {
            kib: kib?,
            files: files.count(),
        })
    }

    /// Whether usage has not grown, with a tolerance for allocators and a few more connections.
    pub(crate) fn is_flat_since(self, before: Self) -> bool {
        self.kib <= before.kib + before.kib / 4 + 4_096 && self.files <= before.files + 6
    }
}
