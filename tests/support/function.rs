//! A function as a child process.
//!
//! The variables are set for the child only: a test process cannot set its own without `unsafe`, and runs many tests.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::runtime_api::RuntimeApi;
use crate::turn;
use crate::wait::{PATIENCE, wait_for};

/// Builds and starts a [`Function`].
#[derive(Debug)]
#[must_use = "a builder starts nothing until `start` is called"]
pub struct FunctionBuilder {
    command: Command,
    input: Vec<u8>,
}

/// A running function; killed when dropped.
#[derive(Debug)]
pub struct Function {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Function {
    /// A function served by `api`, with the variables that Lambda sets. It inherits only `PATH` from this process.
    pub fn builder(api: &RuntimeApi, binary: &Path) -> FunctionBuilder {
        let builder = FunctionBuilder::bare(binary);
        let address = api.address().to_string();
        [
            ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "function-under-test"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            (
                "AWS_LAMBDA_LOG_GROUP_NAME",
                "/aws/lambda/function-under-test",
            ),
            (
                "AWS_LAMBDA_LOG_STREAM_NAME",
                "2025/01/01/[$LATEST]0123456789abcdef",
            ),
            ("AWS_REGION", "eu-central-1"),
        ]
        .into_iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
    }

    /// A program without a platform.
    pub fn without_platform(binary: &Path) -> FunctionBuilder {
        FunctionBuilder::bare(binary)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("the function still runs")
    }

    /// Its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Standard output and error together.
    #[must_use]
    pub fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Waits until it has printed or logged `text`.
    ///
    /// # Panics
    /// When it does not, with what it wrote.
    pub async fn wait_for_output(&self, text: &str) {
        let what = format!("the function to write {text:?}");
        wait_for(
            &what,
            async || self.output(),
            |output| output.contains(text),
        )
        .await;
    }

    /// Sends it a signal: `TERM`, `STOP`, `CONT` ...
    ///
    /// # Panics
    /// When it has ended.
    pub async fn signal(&self, signal: &str) {
        // The shell's built-in `kill`: the program is not installed everywhere.
        let done = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal])
            .arg(self.id().to_string())
            .status()
            .await;
        assert!(
            done.is_ok_and(|status| status.success()),
            "the function takes no signal {signal}"
        );
    }

    /// Stops it for `pause`, as a platform does between two events.
    ///
    /// # Panics
    /// When it has ended.
    pub async fn freeze(&self, pause: Duration) {
        self.signal("STOP").await;
        tokio::time::sleep(pause).await;
    }

    /// Continues it.
    ///
    /// # Panics
    /// When it has ended.
    pub async fn thaw(&self) {
        self.signal("CONT").await;
    }

    /// Waits until it has exited and its output has been read.
    ///
    /// # Panics
    /// When it does not end, with what it wrote.
    pub async fn ended(&mut self) -> ExitStatus {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!(
                "the function did not end within {PATIENCE:?}; it wrote:\n{}",
                self.output()
            );
        };
        // Both pipes close when it exits, unless it has left a child process.
        let both = async || self.stdout.is_complete() && self.stderr.is_complete();
        wait_for("the end of the function's output", both, |complete| {
            *complete
        })
        .await;
        status.expect("our own child")
    }
}

impl FunctionBuilder {
    fn bare(binary: &Path) -> Self {
        turn::beside();
        let mut command = Command::new(binary);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self {
            command,
            input: Vec::new(),
        }
    }

    /// Sets a variable, such as `DATABASE_URL`.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets its standard input, which is empty by default.
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// Lets it handle up to `n` events concurrently, as on Lambda Managed Instances.
    pub fn concurrency(self, n: usize) -> Self {
        self.env("AWS_LAMBDA_MAX_CONCURRENCY", n.to_string())
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut self) -> Function {
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command.as_std()));
        let mut stdin = child.stdin.take().expect("a piped input");
        // A function that does not read may exit before everything is written.
        tokio::spawn(async move { drop(stdin.write_all(&self.input).await) });
        let stdout = child.stdout.take().expect("a piped output");
        let stderr = child.stderr.take().expect("a piped output");
        Function {
            child,
            stdout: Captured::read(stdout),
            stderr: Captured::read(stderr),
        }
    }
}

/// Text that is still being written.
#[derive(Clone, Debug, Default)]
struct Captured(Arc<Mutex<(String, bool)>>);

impl Captured {
    fn read(pipe: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let captured = Self::default();
        let Self(written) = captured.clone();
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .await
                .is_ok_and(|bytes| bytes > 0)
            {
                let text = String::from_utf8_lossy(&line);
                written
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
                    .push_str(&text);
                line.clear();
            }
            written.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        });
        captured
    }

    fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    fn is_complete(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
