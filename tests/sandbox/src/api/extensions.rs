//! The Extensions API: register, events, errors.

use std::{collections::VecDeque, time::Instant};

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::{
    Desk,
    board::{Call, Extension, Shutdown},
    reply::Reply,
};
use crate::limits::{MAX_ANSWER, MAX_EXTENSIONS};

const NAME: &str = "lambda-extension-name";
const ID: &str = "lambda-extension-identifier";
const FEATURES: &str = "lambda-extension-accept-feature";
const ERROR_TYPE: &str = "lambda-extension-function-error-type";

/// The account of every simulated function.
pub(crate) const ACCOUNT: &str = "123456789012";

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    events: Vec<String>,
}

/// `POST /extension/register`.
pub(super) async fn register(desk: &Desk, name: &str, request: Request<Incoming>) -> Reply {
    let Some(extension) = header(request.headers(), NAME).filter(|name| !name.is_empty()) else {
        let reply = Reply::forbidden("Extension.InvalidExtensionName", "Empty extension name");
        return desk.refuse(name, reply, "an extension without a name");
    };
    let with_account = header(request.headers(), FEATURES).is_some_and(|features| {
        features
            .split(',')
            .any(|feature| feature.trim() == "accountId")
    });
    let body = Limited::new(request.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let events = match serde_json::from_slice::<Registration>(&body) {
        Ok(registration) => registration.events,
        Err(error) => {
            let reply = Reply::forbidden("InvalidRequestFormat", &error.to_string());
            return desk.refuse(name, reply, "a registration that is not JSON");
        }
    };
    match enter(desk, &extension, &events) {
        Ok(id) => {
            let identity = &desk.identity;
            let mut body = json!({
                "functionName": identity.name,
                "functionVersion": "$LATEST",
                "handler": identity.handler,
            });
            if with_account {
                body["accountId"] = ACCOUNT.into();
            }
            Reply::json(StatusCode::OK, &body).header(ID, &id)
        }
        Err((kind, message)) => desk.refuse(name, Reply::forbidden(kind, &message), message),
    }
}

/// Checks in the order of the real platform, and adds the extension to the board.
fn enter(desk: &Desk, name: &str, events: &[String]) -> Result<String, (&'static str, String)> {
    let external = desk.identity.external.iter().any(|known| known == name);
    for event in events {
        match event.as_str() {
            "INVOKE" => {}
            "SHUTDOWN" if external => {}
            "SHUTDOWN" => {
                let message = "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension";
                return Err(("Extension.InvalidEventType", message.into()));
            }
            other => {
                return Err((
                    "Extension.InvalidEventType",
                    format!("{other}: ErrorInvalidEventType"),
                ));
            }
        }
    }
    let id = crate::ids::uuid();
    let mut result = Ok(id.clone());
    desk.board.send_modify(|board| {
        if board.first_poll.is_some() {
            let message = "Extension registration closed already";
            result = Err(("Extension.RegistrationClosed", message.into()));
        } else if board.extensions.iter().any(|known| known.name == name) {
            let message = "Extension with this name already registered";
            result = Err(("Extension.InvalidExtensionState", message.into()));
        } else if board.extensions.len() >= MAX_EXTENSIONS {
            let message = format!("Extension limit ({MAX_EXTENSIONS}) reached");
            result = Err(("Extension.TooManyExtensions", message));
        } else {
            board.extensions.push(Extension {
                id,
                name: name.to_owned(),
                external,
                invoke: events.iter().any(|event| event == "INVOKE"),
                shutdown: events.iter().any(|event| event == "SHUTDOWN"),
                events: VecDeque::new(),
                waiting: None,
                error: None,
            });
        }
    });
    result
}

/// `GET /extension/event/next`: the next event, or the shutdown.
pub(super) async fn next(desk: &Desk, name: &str, request: &Request<Incoming>) -> Reply {
    let id = match known(desk, request.headers()) {
        Ok(id) => id,
        Err((reply, message)) => return desk.refuse(name, reply, message),
    };
    let mut seen = desk.board.subscribe();
    set_waiting(desk, &id, Some(Instant::now()));
    let _waiting = Waiting { desk, id: &id };
    loop {
        let mut event = None;
        desk.board.send_if_modified(|board| {
            let shutdown = board.shutdown;
            let Some(extension) = board.extensions.iter_mut().find(|known| known.id == id) else {
                return false;
            };
            event = extension.events.pop_front();
            if event.is_none() && extension.shutdown {
                event = shutdown.map(shutdown_event);
            }
            event.is_some()
        });
        if let Some(event) = event {
            return Reply::event(event.into())
                .header("lambda-extension-event-identifier", &crate::ids::uuid());
        }
        if seen.changed().await.is_err() {
            return Reply::not_found();
        }
    }
}

fn set_waiting(desk: &Desk, id: &str, since: Option<Instant>) {
    desk.board.send_modify(|board| {
        if let Some(extension) = board.extensions.iter_mut().find(|known| known.id == id) {
            extension.waiting = since;
        }
    });
}

/// An extension that waits for its next event, on the board while it waits.
struct Waiting<'a> {
    desk: &'a Desk,
    id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        set_waiting(self.desk, self.id, None);
    }
}

/// `POST /extension/init/error` and `/extension/exit/error`: both end the environment.
pub(super) fn error(desk: &Desk, name: &str, phase: &str, request: &Request<Incoming>) -> Reply {
    let id = match known(desk, request.headers()) {
        Ok(id) => id,
        Err((reply, message)) => return desk.refuse(name, reply, message),
    };
    let Some(kind) = header(request.headers(), ERROR_TYPE) else {
        let message = "Lambda-Extension-Function-Error-Type not found";
        return desk.refuse(
            name,
            Reply::forbidden("Extension.MissingHeader", message),
            message,
        );
    };
    let error = if phase == "init" {
        "Extension.InitError"
    } else {
        "Extension.ExitError"
    };
    desk.board.send_modify(|board| {
        if let Some(extension) = board.extensions.iter_mut().find(|known| known.id == id) {
            extension.error = Some(format!("{error}: {kind}"));
        }
    });
    Reply::accepted()
}

fn known(desk: &Desk, headers: &HeaderMap) -> Result<String, (Reply, String)> {
    let Some(id) = header(headers, ID) else {
        let message = "Missing Lambda-Extension-Identifier header";
        return Err((
            Reply::forbidden("Extension.MissingExtensionIdentifier", message),
            message.into(),
        ));
    };
    if desk
        .board
        .borrow()
        .extensions
        .iter()
        .any(|extension| extension.id == id)
    {
        Ok(id)
    } else {
        let message = format!("Unknown extension {id}");
        Err((
            Reply::forbidden("Extension.UnknownExtensionIdentifier", &message),
            message,
        ))
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The event that announces an invocation to extensions.
pub(super) fn invoke_event(desk: &Desk, id: &str, call: &Call) -> String {
    json!({
        "eventType": "INVOKE",
        "deadlineMs": call.deadline_ms,
        "requestId": id,
        "invokedFunctionArn": desk.identity.arn,
        "tracing": {"type": "X-Amzn-Trace-Id", "value": call.trace},
    })
    .to_string()
}

fn shutdown_event(shutdown: Shutdown) -> String {
    json!({
        "eventType": "SHUTDOWN",
        "deadlineMs": shutdown.deadline_ms,
        "shutdownReason": shutdown.reason,
    })
    .to_string()
}
