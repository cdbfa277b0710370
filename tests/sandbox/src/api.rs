//! The platform's HTTP API: one server per process of a function, on its own port, so that a late response of an
//! earlier process cannot reach a later one.

mod answer;
mod board;
mod extensions;
mod reply;
mod runtime;
mod scf;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub(crate) use self::board::{Answer, Board, Call, CallState, Restore, Shutdown};
pub(crate) use self::extensions::ACCOUNT;
use self::reply::Reply;
pub(crate) use self::scf::variables as scf_variables;
use crate::{
    clock::{Epoch, WallClock},
    platform::Platform,
    record::Violation,
};

/// The function's identity, as the platform reports it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) platform: Platform,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) handler: String,
    pub(crate) timeout: Duration,
    /// In MB; reported, but not enforced.
    pub(crate) memory: u32,
    pub(crate) concurrency: usize,
    /// Whether SnapStart is enabled.
    pub(crate) snap_start: bool,
    /// Names of the external extensions; all others are internal.
    pub(crate) external: Vec<String>,
}

/// The shared state of all request handlers.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) board: watch::Sender<Board>,
    pub(crate) identity: Identity,
    pub(crate) wall: Arc<WallClock>,
    pub(crate) epoch: Epoch,
}

impl Desk {
    /// Records a violation by the function, and returns its reply.
    fn refuse(&self, request: &str, reply: Reply, message: impl Into<String>) -> Reply {
        let violation = Violation {
            at: self.epoch.ms(std::time::Instant::now()),
            request: request.to_owned(),
            status: reply.status(),
            message: message.into(),
        };
        self.board
            .send_modify(|board| board.violations.push(violation));
        reply
    }
}

/// The server; dropping it closes its port and every connection.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(desk: Arc<Desk>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // All connections end with this task.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(serve(stream, Arc::clone(&desk)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { addr, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, desk: Arc<Desk>) {
    // Without it, replies to small requests wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move {
            let reply = match desk.identity.platform {
                Platform::Lambda => route(&desk, request).await,
                Platform::Scf => scf::route(&desk, request).await,
            };
            Ok::<_, Infallible>(reply.into_response())
        }
    });
    // The guards of its requests record a broken connection on the board.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn route(desk: &Arc<Desk>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let name = format!("{} {path}", request.method());
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, ["2018-06-01", "ping"]) => Reply::text("pong"),
        (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => {
            runtime::next(desk, &name).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
            answer::response(desk, &name, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            answer::error(desk, &name, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
            runtime::init_error(desk, &name, request).await
        }
        (&Method::GET, ["2018-06-01", "runtime", "restore", "next"]) => {
            runtime::restore_next(desk, &name).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "restore", "error"]) => {
            runtime::restore_error(desk, &name, request).await
        }
        (&Method::POST, ["2020-01-01", "extension", "register"]) => {
            extensions::register(desk, &name, request).await
        }
        (&Method::GET, ["2020-01-01", "extension", "event", "next"]) => {
            extensions::next(desk, &name, &request).await
        }
        (
            &Method::POST,
            [
                "2020-01-01",
                "extension",
                phase @ ("init" | "exit"),
                "error",
            ],
        ) => extensions::error(desk, &name, phase, &request),
        // The telemetry and logs APIs are accepted without effect, as outside Lambda's network.
        (&Method::PUT, ["2022-07-01", "telemetry"] | ["2020-08-15", "logs"]) => Reply::accepted(),
        _ => desk.refuse(&name, Reply::not_found(), "no such call in the Runtime API"),
    }
}
