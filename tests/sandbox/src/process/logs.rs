//! The function's output: shown on demand, and the last lines kept for error messages.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{ChildStderr, ChildStdout},
    task::AbortHandle,
};

use crate::{clock::lock, limits::LOG_TAIL};

/// The output of one environment's processes.
#[derive(Clone, Debug)]
pub(crate) struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Prefix of every line on standard error; `None` shows nothing.
    prefix: Option<String>,
    tail: Mutex<VecDeque<String>>,
    readers: Mutex<Vec<AbortHandle>>,
}

impl Logs {
    pub(crate) fn new(prefix: Option<String>) -> Self {
        Self(Arc::new(Inner {
            prefix,
            tail: Mutex::default(),
            readers: Mutex::default(),
        }))
    }

    /// Reads both pipes until they are closed.
    pub(crate) fn follow(&self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) {
        let mut readers = lock(&self.0.readers);
        readers.extend(stdout.map(|pipe| self.spawn(pipe)));
        readers.extend(stderr.map(|pipe| self.spawn(pipe)));
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        lock(&self.0.tail).iter().cloned().collect()
    }

    /// Stops reading: a grandchild of the function may hold the pipes open.
    pub(crate) fn close(&self) {
        lock(&self.0.readers)
            .drain(..)
            .for_each(|reader| reader.abort());
    }

    fn spawn(&self, pipe: impl AsyncRead + Unpin + Send + 'static) -> AbortHandle {
        // Weak, so that the reader does not keep its owner alive.
        let inner = Arc::downgrade(&self.0);
        let mut lines = BufReader::new(pipe).split(b'\n');
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_segment().await {
                let Some(inner) = inner.upgrade() else { break };
                inner.take(String::from_utf8_lossy(&line).into_owned());
            }
        });
        reader.abort_handle()
    }
}

impl Inner {
    fn take(&self, line: String) {
        if let Some(prefix) = &self.prefix {
            eprintln!("{prefix} | {line}");
        }
        let mut tail = lock(&self.tail);
        if tail.len() == LOG_TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&self.readers)
            .drain(..)
            .for_each(|reader| reader.abort());
    }
}
