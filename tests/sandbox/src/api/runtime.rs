//! The Runtime API: delivers events to the function, and receives errors of its init and restore.

use std::{sync::Arc, time::Instant};

use http::Request;
use hyper::body::Incoming;

use super::{
    Desk,
    answer::{collect, error_type, reported},
    board::{Answer, Board, Call, CallState, Restore},
    reply::Reply,
};
use crate::{limits::MAX_ANSWER, platform::Platform, record::InitFailure};

/// `GET /runtime/invocation/next`: waits for an event, without a limit, as the real one does.
pub(super) async fn next(desk: &Arc<Desk>, name: &str) -> Reply {
    if let Some(reply) = repeat(desk) {
        return desk.refuse(
            name,
            reply,
            "asked for the next event before answering this one",
        );
    }
    wait(desk, name).await
}

/// Waits for an event.
pub(super) async fn wait(desk: &Arc<Desk>, name: &str) -> Reply {
    let mut seen = desk.board.subscribe();
    // The poll is counted until it gets a reply or its connection is closed.
    let _poll = Poll::begin(desk);
    // With a concurrency of 1, a second poll is a client that has reconnected.
    let slots = desk.identity.concurrency;
    if slots > 1 && desk.board.borrow().polls > slots {
        let message = format!("more polls at once than the {slots} allowed");
        return desk.refuse(name, Reply::invalid_state("Ready", "Ready"), message);
    }
    loop {
        if let Some(reply) = take(desk) {
            return reply;
        }
        if seen.changed().await.is_err() {
            return Reply::not_found();
        }
    }
}

/// With a concurrency of 1, a poll before the response gets the same event again.
pub(super) fn repeat(desk: &Desk) -> Option<Reply> {
    if desk.identity.concurrency > 1 {
        return None;
    }
    let board = desk.board.borrow();
    let (id, call) = board
        .calls
        .iter()
        .find(|(_, call)| matches!(call.state, CallState::Running))?;
    Some(hand_over(desk, id, call))
}

/// Takes the first call out of the queue; its deadline starts here.
fn take(desk: &Desk) -> Option<Reply> {
    let mut reply = None;
    desk.board.send_if_modified(|board| {
        let Some(id) = board.queue.pop_front() else {
            return false;
        };
        let Some(call) = board.calls.get_mut(&id) else {
            return false;
        };
        let timeout = u64::try_from(desk.identity.timeout.as_millis()).unwrap_or(u64::MAX);
        call.dispatched = Some(Instant::now());
        call.deadline_ms = desk.wall.epoch_ms().saturating_add(timeout);
        call.state = CallState::Running;
        reply = Some(hand_over(desk, &id, call));
        let event = super::extensions::invoke_event(desk, &id, call);
        for extension in board
            .extensions
            .iter_mut()
            .filter(|extension| extension.invoke)
        {
            extension.events.push_back(event.clone());
        }
        true
    });
    reply
}

fn hand_over(desk: &Desk, id: &str, call: &Call) -> Reply {
    match desk.identity.platform {
        Platform::Lambda => {}
        Platform::Scf => return super::scf::hand_over(desk, id, call),
    }
    Reply::event(call.event.payload.clone())
        .header("lambda-runtime-aws-request-id", id)
        .header("lambda-runtime-deadline-ms", &call.deadline_ms.to_string())
        .header("lambda-runtime-invoked-function-arn", &desk.identity.arn)
        .header("lambda-runtime-trace-id", &call.trace)
        .header(
            "lambda-runtime-aws-tenant-id",
            call.event.tenant.as_deref().unwrap_or_default(),
        )
        .header(
            "lambda-runtime-client-context",
            call.event.client_context.as_deref().unwrap_or_default(),
        )
        .header(
            "lambda-runtime-cognito-identity",
            call.event.cognito_identity.as_deref().unwrap_or_default(),
        )
}

/// A waiting poll, on the board while it waits.
struct Poll<'a>(&'a Desk);

impl<'a> Poll<'a> {
    fn begin(desk: &'a Desk) -> Self {
        desk.board.send_modify(Board::poll_begins);
        Self(desk)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.0.board.send_modify(|board| board.polls -= 1);
    }
}

/// `POST /runtime/init/error`.
pub(super) async fn init_error(desk: &Desk, name: &str, request: Request<Incoming>) -> Reply {
    if desk.board.borrow().first_poll.is_some() {
        let reply = Reply::invalid_state("Ready", "InitError");
        return desk.refuse(name, reply, "an init error after the first poll");
    }
    fail_init(desk, request).await
}

/// `GET /runtime/restore/next`: held until the snapshot has been restored.
pub(super) async fn restore_next(desk: &Desk, name: &str) -> Reply {
    if !desk.identity.snap_start {
        return desk.refuse(
            name,
            Reply::not_found(),
            "asked for a restore without SnapStart",
        );
    }
    let mut seen = desk.board.subscribe();
    if desk.board.borrow().first_poll.is_some() {
        let reply = Reply::invalid_state("Ready", "RestoreReady");
        return desk.refuse(name, reply, "asked for the restore after the first poll");
    }
    desk.board
        .send_modify(|board| board.restore = Restore::Waiting);
    match seen
        .wait_for(|board| board.restore == Restore::Released)
        .await
    {
        Ok(_) => Reply::text(""),
        Err(_) => Reply::not_found(),
    }
}

/// `POST /runtime/restore/error`.
pub(super) async fn restore_error(desk: &Desk, name: &str, request: Request<Incoming>) -> Reply {
    if desk.board.borrow().restore != Restore::Released {
        let reply = Reply::invalid_state("Started", "RestoreError");
        return desk.refuse(name, reply, "a restore error outside of a restore");
    }
    fail_init(desk, request).await
}

async fn fail_init(desk: &Desk, request: Request<Incoming>) -> Reply {
    let header = error_type(request.headers());
    let body = collect(request.into_body(), MAX_ANSWER)
        .await
        .map(|(body, _)| body)
        .unwrap_or_default();
    if let Answer::Error {
        error_type,
        message,
    } = reported(header, &body)
    {
        let failure = InitFailure {
            error_type,
            message,
            output: Vec::new(),
        };
        desk.board
            .send_modify(|board| board.init_error = Some(failure));
    }
    Reply::accepted()
}
