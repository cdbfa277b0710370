//! The function's calls and their replies.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Answer, Call, Shared};

const ARN: &str = "arn:aws:lambda:eu-central-1:123456789012:function:function-under-test";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";

/// Serves until it is dropped.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // All connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, Arc::clone(&shared)));
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(request, &shared).await) }
    });
    // A killed function closes the connection, which is not an error.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => next(shared).await,
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
            answered(request, shared, id, false).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            answered(request, shared, id, true).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
            let answer = read(request, "init", Instant::now()).await;
            shared.lock().init_errors.push(answer);
            shared.record(Call::InitError).await;
            accepted()
        }
        (&Method::POST, ["2020-01-01", "extension", "register"]) if shared.extensions => {
            shared.record(Call::Extension).await;
            let function = r#"{"functionName":"function-under-test","functionVersion":"$LATEST","handler":"bootstrap"}"#;
            let mut response = Response::new(Full::from(function));
            let header = HeaderName::from_static("lambda-extension-identifier");
            response
                .headers_mut()
                .insert(header, HeaderValue::from_static("extension-1"));
            response
        }
        // Extensions never get an event: the shutdown is announced with SIGTERM.
        (&Method::GET, ["2020-01-01", "extension", "event", "next"]) => {
            std::future::pending().await
        }
        (method, _) => status(
            StatusCode::NOT_FOUND,
            format!("no such call: {method} {path}"),
        ),
    }
}

async fn next(shared: &Shared) -> Response<Full<Bytes>> {
    shared.record(Call::Next).await;
    // A function that closes the connection while it waits drops this future.
    let waiting = Waiting::new(shared);
    let event = shared.until(|state| state.queue.pop_front()).await;
    drop(waiting);
    shared
        .lock()
        .started
        .insert(event.id.clone(), Instant::now());

    let deadline = SystemTime::now() + event.limit;
    let deadline = deadline
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_millis();
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let response = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", event.id)
        .header("lambda-runtime-deadline-ms", deadline.to_string())
        .header("lambda-runtime-invoked-function-arn", ARN)
        .header("lambda-runtime-trace-id", trace);
    response.body(Full::new(event.body)).expect("valid headers")
}

struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.lock().waiting += 1;
        shared.changed.notify_waiters();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

async fn answered(
    request: Request<Incoming>,
    shared: &Shared,
    id: &str,
    is_error: bool,
) -> Response<Full<Bytes>> {
    let started = shared.lock().started.get(id).copied();
    let Some(started) = started else {
        return status(
            StatusCode::BAD_REQUEST,
            format!("no event {id} was handed out"),
        );
    };
    if !is_error {
        shared.record(Call::Response(id.to_owned())).await;
    }
    let answer = Answer {
        is_error,
        ..read(request, id, started).await
    };
    let end = if is_error {
        Call::Error
    } else {
        Call::ResponseEnd
    };
    shared.record(end(id.to_owned())).await;
    // The first response wins, as on the real platform.
    shared.lock().answers.entry(id.to_owned()).or_insert(answer);
    shared.changed.notify_waiters();
    accepted()
}

async fn read(request: Request<Incoming>, id: &str, started: Instant) -> Answer {
    let (head, mut body) = request.into_parts();
    let mut chunks = Vec::new();
    let mut error_type = head.headers.get(ERROR_TYPE).cloned();
    let mut is_complete = true;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            is_complete = false;
            break;
        };
        match frame.into_data() {
            Ok(data) => chunks.push((Instant::now(), data)),
            Err(frame) => {
                let trailer = frame
                    .trailers_ref()
                    .and_then(|trailers| trailers.get(ERROR_TYPE));
                error_type = trailer.cloned().or(error_type);
            }
        }
    }
    let pieces: Vec<&[u8]> = chunks.iter().map(|(_, data)| &data[..]).collect();
    Answer {
        id: id.to_owned(),
        is_error: true,
        error_type: error_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        headers: head.headers,
        body: pieces.concat().into(),
        is_complete,
        chunks,
        started,
        finished: Instant::now(),
    }
}

fn accepted() -> Response<Full<Bytes>> {
    status(StatusCode::ACCEPTED, r#"{"status":"OK"}"#.to_owned())
}

fn status(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
