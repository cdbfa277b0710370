//! The start of a process: extensions, the function, its init, and for SnapStart the snapshot and restore.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{process::Child, sync::watch};

use super::{Journal, Life, wait_on};
use crate::{
    api::{Board, Desk, Identity, Restore, Server, scf_variables},
    clock::WallClock,
    function::Function,
    limits::Limits,
    platform::Platform,
    process::{Group, Logs, Watchdog, describe},
    record::{InitFailure, Phase, PhaseKind},
};

/// The configuration that a process is started from.
#[derive(Debug)]
pub(crate) struct Blueprint {
    pub(crate) function: Function,
    pub(crate) extensions: Vec<Function>,
    pub(crate) identity: Identity,
    /// Variables of this environment only: the database's address behind the proxy.
    pub(crate) env: Vec<(String, String)>,
    /// Time between snapshot and restore; `None` without SnapStart.
    pub(crate) snap_start: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) log_prefix: Option<String>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) wall: Arc<WallClock>,
    pub(crate) journal: Arc<Journal>,
}

/// A started process, and its phases.
pub(crate) struct Init {
    pub(crate) life: Life,
    pub(crate) phases: Vec<Phase>,
}

impl Blueprint {
    /// Starts the processes and waits for the first poll, within `limit`.
    pub(crate) async fn start(&self, limit: Duration) -> Result<Init, InitFailure> {
        let began = Instant::now();
        let until = began + limit;
        let logs = Logs::new(self.log_prefix.clone());
        let result = match self.spawn(&logs, until).await {
            Ok(life) => match life.init(self, began, until).await {
                Ok(phases) => return Ok(Init { life, phases }),
                Err(failure) => {
                    life.end("FAILURE").await;
                    Err(failure)
                }
            },
            Err(error) => match error.downcast::<InitFailure>() {
                Ok(failure) => Err(failure),
                Err(error) => Err(failure(
                    "Runtime.InvalidEntrypoint",
                    error.to_string(),
                    &logs,
                )),
            },
        };
        self.journal.enter(PhaseKind::Init, began, Instant::now());
        result
    }

    async fn spawn(&self, logs: &Logs, until: Instant) -> io::Result<Life> {
        let (board, _) = watch::channel(Board::default());
        let desk = Arc::new(Desk {
            board,
            identity: self.identity.clone(),
            wall: Arc::clone(&self.wall),
            epoch: self.journal.epoch,
        });
        let server = Server::start(Arc::clone(&desk)).await?;
        let mut env = self.variables(&server);
        let mut group: Option<Group> = None;
        for extension in &self.extensions {
            let (leader, child) =
                Group::spawn(extension, &env, group.as_ref(), &self.watchdog, logs)?;
            group = group.or(leader);
            watch_extension(&desk, child, extension.name());
        }
        if !self.extensions.is_empty() {
            self.registered(&desk, until, logs)
                .await
                .map_err(io::Error::other)?;
        }
        env.extend(self.wall.env());
        let (leader, child) =
            Group::spawn(&self.function, &env, group.as_ref(), &self.watchdog, logs)?;
        let pid = child.id().unwrap_or_default();
        watch_function(&desk, child);
        let group = group
            .or(leader)
            .ok_or_else(|| io::Error::other("no process group"))?;
        Ok(Life {
            desk,
            group,
            logs: logs.clone(),
            limits: self.limits,
            journal: Arc::clone(&self.journal),
            wall: Arc::clone(&self.wall),
            pid,
            frozen: tokio::sync::Mutex::default(),
            in_flight: 0.into(),
            _server: server,
        })
    }

    /// As on Lambda, the function starts after every external extension has registered.
    async fn registered(
        &self,
        desk: &Desk,
        until: Instant,
        logs: &Logs,
    ) -> Result<(), InitFailure> {
        let names = &self.identity.external;
        let all = |board: &Board| {
            let known = |name| {
                board
                    .extensions
                    .iter()
                    .any(|extension| &extension.name == name)
            };
            match (board.helpers < names.len(), names.iter().all(known)) {
                (true, _) => Some(Err("Extension.Crash")),
                (false, true) => Some(Ok(())),
                (false, false) => None,
            }
        };
        match wait_on(desk, until, all).await {
            Some(Ok(())) => Ok(()),
            Some(Err(kind)) => Err(failure(kind, "an extension ended during the init", logs)),
            None => Err(failure(
                "Sandbox.Timedout",
                "an extension did not register in time",
                logs,
            )),
        }
    }

    fn variables(&self, server: &Server) -> Vec<(String, String)> {
        let mut env = match self.identity.platform {
            Platform::Lambda => self.lambda_variables(server),
            Platform::Scf => scf_variables(&self.identity, server.addr.port()),
        };
        env.extend(self.env.iter().cloned());
        env
    }

    fn lambda_variables(&self, server: &Server) -> Vec<(String, String)> {
        let identity = &self.identity;
        let initialization = if self.snap_start.is_some() {
            "snap-start"
        } else {
            "on-demand"
        };
        let mut env: Vec<(String, String)> = [
            ("AWS_LAMBDA_RUNTIME_API", server.addr.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", identity.name.clone()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
            (
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                identity.memory.to_string(),
            ),
            (
                "AWS_LAMBDA_LOG_GROUP_NAME",
                format!("/aws/lambda/{}", identity.name),
            ),
            (
                "AWS_LAMBDA_LOG_STREAM_NAME",
                format!("[$LATEST]{}", crate::ids::uuid()),
            ),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", initialization.into()),
            ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023".into()),
            ("AWS_REGION", "eu-central-1".into()),
            ("AWS_DEFAULT_REGION", "eu-central-1".into()),
            ("_HANDLER", identity.handler.clone()),
            ("LANG", "en_US.UTF-8".into()),
            ("TZ", ":UTC".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if identity.concurrency > 1 {
            env.push((
                "AWS_LAMBDA_MAX_CONCURRENCY".into(),
                identity.concurrency.to_string(),
            ));
        }
        env
    }
}

impl Life {
    async fn init(
        &self,
        plan: &Blueprint,
        began: Instant,
        until: Instant,
    ) -> Result<Vec<Phase>, InitFailure> {
        let snap_start = plan.snap_start.is_some();
        let initialised = |board: &Board| {
            let polled = board.first_poll.is_some();
            (polled || snap_start && board.restore == Restore::Waiting) && board.extensions_ready()
        };
        self.ready(until, "init", initialised).await?;
        let mut phases = vec![self.journal.enter(PhaseKind::Init, began, Instant::now())];
        if let Some(shelf) = plan.snap_start {
            self.freeze().await;
            tokio::time::sleep(shelf).await;
            self.thaw().await;
            let restored = Instant::now();
            self.desk
                .board
                .send_modify(|board| board.restore = Restore::Released);
            let until = restored + self.limits.restore;
            // A function that did not request the restore has no hooks, and already polls.
            self.ready(until, "restore", |board| board.first_poll.is_some())
                .await?;
            phases.push(
                self.journal
                    .enter(PhaseKind::Restore, restored, Instant::now()),
            );
        }
        Ok(phases)
    }

    /// Waits for `is_ready`, and describes a failure.
    async fn ready(
        &self,
        until: Instant,
        what: &str,
        is_ready: impl Fn(&Board) -> bool,
    ) -> Result<(), InitFailure> {
        let limit = until.saturating_duration_since(Instant::now());
        let seen = self.wait(until, |board| {
            if let Some(failure) = &board.init_error {
                return Some(Err(failure.clone()));
            }
            if let Some((status, _)) = board.exited {
                let message = format!(
                    "the function ended during its {what} ({}), before it asked for an event",
                    describe(status)
                );
                return Some(Err(failure("Runtime.ExitError", message, &self.logs)));
            }
            if let Some(error) = board.extension_error() {
                return Some(Err(failure(error, "an extension gave up", &self.logs)));
            }
            is_ready(board).then_some(Ok(()))
        });
        let result = seen.await.unwrap_or_else(|| {
            let asking = match self.desk.identity.platform {
                Platform::Lambda => "GET /2018-06-01/runtime/invocation/next",
                Platform::Scf => "POST /runtime/init/ready, GET /runtime/invocation/next",
            };
            let message = format!(
                "the function did not ask for an event ({asking}) within the {what}'s {:.1} s",
                limit.as_secs_f64()
            );
            Err(failure("Sandbox.Timedout", message, &self.logs))
        });
        if result.is_err() {
            // Its last output may still be in the pipe.
            tokio::time::sleep(self.limits.last_words).await;
        }
        result.map_err(|failure| InitFailure {
            output: self.logs.tail(),
            ..failure
        })
    }
}

fn failure(error_type: &str, message: impl Into<String>, logs: &Logs) -> InitFailure {
    InitFailure {
        error_type: error_type.into(),
        message: message.into(),
        output: logs.tail(),
    }
}

fn watch_function(desk: &Arc<Desk>, mut child: Child) {
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        // An error means that the status was already collected: the process has ended, too.
        let status = child.wait().await.unwrap_or_default();
        desk.board
            .send_modify(|board| board.exited = Some((status, Instant::now())));
    });
}

fn watch_extension(desk: &Arc<Desk>, mut child: Child, name: String) {
    desk.board.send_modify(|board| board.helpers += 1);
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        let _ = child.wait().await;
        desk.board.send_modify(|board| {
            board.helpers -= 1;
            let known = board
                .extensions
                .iter_mut()
                .find(|extension| extension.name == name);
            if let (None, Some(extension)) = (board.shutdown, known) {
                extension
                    .error
                    .get_or_insert_with(|| "Extension.Crash".into());
            }
        });
    });
}
