//! Tencent Cloud Functions (SCF): its custom runtime, four calls over HTTP.
//!
//! * `POST /runtime/init/ready`, once. The body must not be empty; a blank is enough.
//! * `GET /runtime/invocation/next` waits for an event. Called again before a response, it returns the same
//!   event again.
//! * `POST /runtime/invocation/response` or `.../error`: only the first one counts.
//!
//! The time limit is a duration. There is no call for a failed init: the process ends, and writes the reason to
//! its standard error. From Tencent's documentation, "Custom Runtime" (product 583).

use super::{
    Handler, SCF_API,
    serve::{error_body, respond},
};
use crate::{
    config::{SCF_CALL, SCF_DISPATCH, SCF_POLL_PAUSE, SCF_POLLS},
    error::{Error, ErrorKind, Stage},
    lifecycle::scope::InvocationScope,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use lambda_runtime::{Config, Context, Diagnostic};
use lambda_runtime_api_client::{PooledClient, body::Body};
use std::{
    env, fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{sleep, timeout};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The port of the interface.
const SCF_PORT: &str = "SCF_RUNTIME_API_PORT";

const READY: &str = "/runtime/init/ready";
const NEXT: &str = "/runtime/invocation/next";
const RESPONSE: &str = "/runtime/invocation/response";
const ERROR: &str = "/runtime/invocation/error";

/// A non-empty body, because SCF rejects an empty one.
const SOMETHING: &str = " ";

/// Maximum number of characters of the platform's response that an error quotes.
const QUOTED: usize = 200;

/// Serves events until the platform ends the process, if the handler is `ready`.
pub(super) async fn run<Kind, H: Handler<Kind>>(
    handler: H,
    ready: Result<(), Error>,
) -> Result<(), Error> {
    let api = Api::from_env()?;
    ready?;
    api.post(READY, SOMETHING.into()).await?;
    let identity = Identity::from_env();
    let mut last: Option<Answered> = None;
    loop {
        let event = api.next().await?;
        match last.take().filter(|last| last.is_for(&event)) {
            // The response was lost: it is sent again, and the event is not handled twice.
            Some(responded) => {
                api.post(responded.path, responded.body.clone()).await?;
                last = Some(responded);
            }
            None => last = Some(serve(&api, &handler, &identity, event).await),
        }
    }
}

/// Handles one event, from its arrival to the end of its cleanup.
async fn serve<Kind, H: Handler<Kind>>(
    api: &Api,
    handler: &H,
    identity: &Identity,
    event: Arrived,
) -> Answered {
    let scope = InvocationScope::new();
    let response = match std::str::from_utf8(&event.payload) {
        Ok(payload) => respond(&scope, handler, payload, identity.context(&event)).await,
        Err(error) => Err(Diagnostic::from(Error::new(
            ErrorKind::Event,
            format!("the event is not valid UTF-8: {error}"),
        ))),
    };
    let (path, body) = match response {
        Ok(response) => (RESPONSE, Bytes::from(response)),
        Err(diagnostic) => (ERROR, Bytes::from(error_body(&diagnostic))),
    };
    if let Err(error) = api.post(path, body.clone()).await {
        // The next poll shows whether the response arrived.
        tracing::error!(%error, request_id = event.request_id, "the response could not be posted");
    }
    scope.finish().await;
    Answered {
        request_id: event.request_id,
        path,
        body,
    }
}

/// The response to an event.
struct Answered {
    request_id: String,
    path: &'static str,
    body: Bytes,
}

impl Answered {
    fn is_for(&self, event: &Arrived) -> bool {
        !event.request_id.is_empty() && self.request_id == event.request_id
    }
}

/// An event and its headers.
struct Arrived {
    request_id: String,
    /// When the platform ends the invocation, in milliseconds since 1970; 0 if it is unknown.
    deadline_ms: u64,
    memory: Option<i32>,
    payload: Bytes,
}

impl Arrived {
    fn new(headers: &HeaderMap, received: SystemTime, payload: Bytes) -> Self {
        let limit = number(headers, "time_limit_in_ms").map(Duration::from_millis);
        Self {
            request_id: text(headers, "request_id").unwrap_or_default().to_owned(),
            deadline_ms: limit.map_or(0, |limit| deadline_ms(received, limit)),
            memory: number(headers, "memory_limit_in_mb"),
            payload,
        }
    }
}

/// Returns the deadline. The limit counts from before the event's arrival.
fn deadline_ms(received: SystemTime, limit: Duration) -> u64 {
    let left = limit.saturating_sub(SCF_DISPATCH.min(limit / 2));
    received
        .checked_add(left)
        .and_then(|deadline| deadline.duration_since(UNIX_EPOCH).ok())
        .and_then(|deadline| u64::try_from(deadline.as_millis()).ok())
        .unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    text(headers, name)?.trim().parse().ok()
}

/// The function's identity, from environment variables.
struct Identity {
    config: Config,
    /// In the format of Tencent's access management.
    resource: String,
}

impl Identity {
    fn from_env() -> Self {
        let read = |name| env::var(name).unwrap_or_default();
        let config = Config {
            function_name: read("SCF_FUNCTIONNAME"),
            version: read("SCF_FUNCTIONVERSION"),
            log_group: read("SCF_NAMESPACE"),
            ..Config::default()
        };
        Self {
            resource: format!(
                "qcs::scf:{}:uin/{}:namespace/{}/function/{}",
                read("TENCENTCLOUD_REGION"),
                read("TENCENTCLOUD_UIN"),
                config.log_group,
                config.function_name
            ),
            config,
        }
    }

    fn context(&self, event: &Arrived) -> Context {
        let mut config = self.config.clone();
        if let Some(memory) = event.memory {
            config.memory = memory;
        }
        let mut context = Context::default();
        context.request_id.clone_from(&event.request_id);
        context.deadline = event.deadline_ms;
        context.invoked_function_arn.clone_from(&self.resource);
        context.env_config = Arc::new(config);
        context
    }
}

/// A client of the platform's interface.
struct Api(PooledClient);

impl Api {
    fn from_env() -> Result<Self, Error> {
        let read = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let (host, port) = match (read(SCF_API), read(SCF_PORT)) {
            (Some(host), Some(port)) => (host, port),
            (Some(_), None) => return Err(half_set(SCF_API, SCF_PORT)),
            (None, _) => return Err(half_set(SCF_PORT, SCF_API)),
        };
        let (host, port) = (host.trim(), port.trim());
        let base: Uri = format!("http://{host}:{port}").parse().map_err(|error| {
            failed(format_args!(
                "{SCF_API} and {SCF_PORT} are no address (`{host}`, `{port}`): {error}"
            ))
        })?;
        Ok(Self(PooledClient::builder().with_endpoint(base).build()))
    }

    /// Waits for the next event, without a timeout. Retries a failed poll.
    async fn next(&self) -> Result<Arrived, Error> {
        let mut failures = 0;
        loop {
            match self.poll().await {
                Ok(event) => return Ok(event),
                Err(error) => {
                    failures += 1;
                    if failures == SCF_POLLS {
                        return Err(error);
                    }
                    tracing::warn!(%error, "asking for the next event again");
                    sleep(SCF_POLL_PAUSE).await;
                }
            }
        }
    }

    async fn poll(&self) -> Result<Arrived, Error> {
        let wrong =
            |error: BoxError| failed(format_args!("GET {NEXT} failed: {error}")).caused_by(error);
        let request = request(Method::GET, NEXT, Body::empty())?;
        let response = self.0.call(request).await.map_err(wrong)?;
        let received = SystemTime::now();
        let (parts, body) = response.into_parts();
        let payload = body.collect().await.map_err(|error| wrong(error.into()))?;
        let payload = payload.to_bytes();
        if !parts.status.is_success() {
            return Err(refused(&Method::GET, NEXT, parts.status, &payload));
        }
        Ok(Arrived::new(&parts.headers, received, payload))
    }

    async fn post(&self, path: &'static str, body: Bytes) -> Result<(), Error> {
        let posting = async {
            let wrong = |error: BoxError| {
                failed(format_args!("POST {path} failed: {error}")).caused_by(error)
            };
            let request = request(Method::POST, path, Body::from(body))?;
            let response = self.0.call(request).await.map_err(wrong)?;
            let status = response.status();
            // Read to its end, so that the connection can be reused for the next call.
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| wrong(error.into()))?.to_bytes();
            if status.is_success() {
                Ok(())
            } else {
                Err(refused(&Method::POST, path, status, &body))
            }
        };
        timeout(SCF_CALL, posting).await.unwrap_or_else(|_| {
            Err(failed(format_args!(
                "POST {path} got no response within {} ms",
                SCF_CALL.as_millis()
            )))
        })
    }
}

fn request(method: Method, path: &'static str, body: Body) -> Result<Request<Body>, Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .map_err(|error| failed(format_args!("{path}: {error}")).caused_by(error))
}

fn failed(message: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Platform,
        format!("the SCF runtime interface: {message}"),
    )
    .at(Stage::Platform)
}

fn half_set(set: &str, missing: &str) -> Error {
    Error::new(
        ErrorKind::Platform,
        format!("{set} is set, but {missing} is not: is this Tencent SCF?"),
    )
    .at(Stage::Platform)
}

fn refused(method: &Method, path: &str, status: StatusCode, body: &[u8]) -> Error {
    let body: String = String::from_utf8_lossy(body).chars().take(QUOTED).collect();
    failed(format_args!(
        "{method} {path} was refused: {status} {}",
        body.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_a_duration_from_receipt_with_a_margin() {
        let received = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(
            deadline_ms(received, Duration::from_secs(3)),
            1_002_980,
            "20 ms may have gone by already"
        );
        assert_eq!(deadline_ms(received, Duration::from_millis(10)), 1_000_005);
    }

    #[test]
    fn headers_may_be_missing() {
        let event = Arrived::new(&HeaderMap::new(), UNIX_EPOCH, Bytes::new());
        assert_eq!((event.request_id.as_str(), event.deadline_ms), ("", 0));
        assert_eq!(event.memory, None);
    }
}
