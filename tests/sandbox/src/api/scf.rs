//! Tencent SCF's custom runtime: four calls, no request id in any path, the first response wins.
//!
//! Documented behaviour is simulated. Where the documentation says nothing, the function gets the milder
//! reply, and the report lists what it did.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use hyper::body::Incoming;

use super::{
    Desk, Identity,
    answer::{Answering, collect, reported},
    board::{Answer, Call, CallState},
    reply::Reply,
    runtime,
};
use crate::limits::MAX_ANSWER;

const NAMESPACE: &str = "default";
const REGION: &str = "ap-guangzhou";

/// Only the variables that SCF sets: a function must not assume that it runs on Lambda.
pub(crate) fn variables(identity: &Identity, port: u16) -> Vec<(String, String)> {
    [
        ("SCF_RUNTIME_API", "127.0.0.1".to_owned()),
        ("SCF_RUNTIME_API_PORT", port.to_string()),
        ("SCF_FUNCTIONNAME", identity.name.clone()),
        ("SCF_FUNCTIONVERSION", "$LATEST".into()),
        ("SCF_NAMESPACE", NAMESPACE.into()),
        ("SCF_RUNTIME", "CustomRuntime".into()),
        ("TENCENTCLOUD_RUNENV", "SCF".into()),
        ("TENCENTCLOUD_REGION", REGION.into()),
        ("TENCENTCLOUD_APPID", super::ACCOUNT.into()),
        ("TENCENTCLOUD_UIN", super::ACCOUNT.into()),
        ("TENCENTCLOUD_TZ", "Asia/Shanghai".into()),
        ("USER_CODE_ROOT", "/var/user/".into()),
        ("TRIGGER_SRC", "timer".into()),
        ("_HANDLER", identity.handler.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

pub(super) async fn route(desk: &Arc<Desk>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let name = format!("{} {path}", request.method());
    match (request.method(), path.as_str()) {
        (&Method::POST, "/runtime/init/ready") => ready(desk, &name, request).await,
        (&Method::GET, "/runtime/invocation/next") => next(desk, &name).await,
        (&Method::POST, "/runtime/invocation/response") => {
            let answer = |body| Answer::Response {
                body,
                streamed: false,
            };
            settle(desk, &name, request, answer).await
        }
        (&Method::POST, "/runtime/invocation/error") => {
            settle(desk, &name, request, |body| reported(None, &body)).await
        }
        _ => desk.refuse(
            &name,
            Reply::not_found(),
            "no such call in SCF's custom runtime",
        ),
    }
}

/// Called once after the init. Further calls have no effect.
async fn ready(desk: &Desk, name: &str, request: Request<Incoming>) -> Reply {
    match collect(request.into_body(), MAX_ANSWER).await {
        Ok((body, _)) if !body.is_empty() => {
            desk.board.send_modify(|board| board.ready = true);
            Reply::text("OK")
        }
        Ok(_) => desk.refuse(
            name,
            Reply::bad_request("empty body"),
            "a ready call without a body",
        ),
        Err(_) => desk.refuse(
            name,
            Reply::truncated(),
            "the ready call broke off in the middle",
        ),
    }
}

/// A poll before the response gets the same event again, as documented.
async fn next(desk: &Arc<Desk>, name: &str) -> Reply {
    if !desk.board.borrow().ready {
        let reply = Reply::bad_request("not ready");
        return desk.refuse(name, reply, "asked for an event before it was ready");
    }
    match runtime::repeat(desk) {
        Some(reply) => reply,
        None => runtime::wait(desk, name).await,
    }
}

pub(super) fn hand_over(desk: &Desk, id: &str, call: &Call) -> Reply {
    let limit = desk.identity.timeout.as_millis().to_string();
    Reply::event(call.event.payload.clone())
        .header("request_id", id)
        .header("memory_limit_in_mb", &desk.identity.memory.to_string())
        .header("time_limit_in_ms", &limit)
}

/// The first result wins: without an id, a second one cannot be assigned to an event.
async fn settle(
    desk: &Desk,
    name: &str,
    request: Request<Incoming>,
    answer: impl FnOnce(Bytes) -> Answer,
) -> Reply {
    let Some(id) = running(desk) else {
        let reply = Reply::text("OK");
        return desk.refuse(name, reply, "an answer, and no event that waits for one");
    };
    let answering = match Answering::begin(desk, name, &id) {
        Ok(answering) => answering,
        Err(reply) => return reply,
    };
    let Ok((body, _)) = collect(request.into_body(), MAX_ANSWER).await else {
        drop(answering);
        let message = "the answer broke off in the middle";
        return desk.refuse(name, Reply::truncated(), message);
    };
    answering.finish(answer(body));
    Reply::text("OK")
}

fn running(desk: &Desk) -> Option<String> {
    let board = desk.board.borrow();
    let mut calls = board.calls.iter();
    let (id, _) = calls.find(|(_, call)| matches!(call.state, CallState::Running))?;
    Some(id.clone())
}
