//! Reads files at paths from the configuration.

use std::{
    fs::{self, FileType, Metadata},
    io,
    path::Path,
};

/// Reads a regular file; follows symbolic links.
///
/// Blocks: call it in [`spawn_blocking`](tokio::task::spawn_blocking).
///
/// # Errors
/// If it is not a regular file: reading a FIFO may wait forever, and a device may have no end. Otherwise those
/// of [`fs::read`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    match other_kind(&metadata) {
        Some(kind) => Err(io::Error::other(format!(
            "it is {kind}, and not a regular file"
        ))),
        None => fs::read(path),
    }
}

fn other_kind(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_file() {
        None
    } else if metadata.is_dir() {
        Some("a directory")
    } else {
        Some(special_kind(metadata.file_type()))
    }
}

#[cfg(unix)]
fn special_kind(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn special_kind(_: FileType) -> &'static str {
    "something else"
}
