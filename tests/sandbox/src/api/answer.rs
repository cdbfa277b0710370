//! The Runtime API: the function's responses, buffered or streamed, and errors.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    Desk,
    board::{Answer, CallState},
    reply::Reply,
};
use crate::limits::{MAX_ANSWER, MAX_STREAMED_ANSWER};

const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";

/// `POST /runtime/invocation/{id}/response`, buffered or streamed.
pub(super) async fn response(
    desk: &Desk,
    name: &str,
    id: &str,
    request: Request<Incoming>,
) -> Reply {
    let mode = request.headers().get(RESPONSE_MODE).cloned();
    let answering = match Answering::begin(desk, name, id) {
        Ok(answering) => answering,
        Err(reply) => return reply,
    };
    let streamed = mode.is_some();
    if mode.is_some_and(|mode| mode != "streaming") {
        // The real platform ends the invocation, too.
        let message = "unknown response mode: only `streaming` exists";
        answering.finish(failed("Runtime.InvalidResponseModeHeader", message));
        return desk.refuse(name, Reply::invalid_response_mode(), message);
    }
    let limit = if streamed {
        MAX_STREAMED_ANSWER
    } else {
        MAX_ANSWER
    };
    match collect(request.into_body(), limit).await {
        Ok((body, trailers)) => {
            let failure = trailer_error(&trailers)
                .or_else(|| streamed.then(|| trailer_in_body(&body)).flatten());
            answering.finish(failure.unwrap_or(Answer::Response { body, streamed }));
            Reply::accepted()
        }
        Err(Incomplete::TooLarge) => {
            let message = format!(
                "Response payload size exceeded maximum allowed payload size ({limit} bytes)."
            );
            answering.finish(failed("Function.ResponseSizeTooLarge", &message));
            desk.refuse(name, Reply::too_large(limit), message)
        }
        // A streaming runtime without trailers has no other way to report a failure.
        Err(Incomplete::Broken) if streamed => {
            drop(answering);
            Reply::truncated()
        }
        Err(Incomplete::Broken) => {
            drop(answering);
            desk.refuse(
                name,
                Reply::truncated(),
                "the answer broke off in the middle",
            )
        }
    }
}

/// `POST /runtime/invocation/{id}/error`.
pub(super) async fn error(desk: &Desk, name: &str, id: &str, request: Request<Incoming>) -> Reply {
    let answering = match Answering::begin(desk, name, id) {
        Ok(answering) => answering,
        Err(reply) => return reply,
    };
    let header = error_type(request.headers());
    match collect(request.into_body(), MAX_ANSWER).await {
        Ok((body, _)) => {
            answering.finish(reported(header, &body));
            Reply::accepted()
        }
        Err(_) => desk.refuse(
            name,
            Reply::truncated(),
            "the error broke off in the middle",
        ),
    }
}

/// The right to respond to one call. Dropped without [`finish`](Self::finish), the response is truncated.
pub(super) struct Answering<'a> {
    desk: &'a Desk,
    id: &'a str,
    finished: bool,
}

impl<'a> Answering<'a> {
    pub(super) fn begin(desk: &'a Desk, name: &str, id: &'a str) -> Result<Self, Reply> {
        let mut refusal = None;
        desk.board.send_modify(|board| {
            refusal = match board.calls.get_mut(id) {
                None => Some((Reply::invalid_request_id(), "an unknown request id".into())),
                Some(call) => match call.state {
                    CallState::Running => {
                        call.state = CallState::Answering;
                        call.first_byte = Some(Instant::now());
                        None
                    }
                    CallState::Queued => Some((
                        Reply::invalid_request_id(),
                        "an answer before the event was taken".into(),
                    )),
                    CallState::Expired => Some((
                        Reply::timed_out(),
                        format!("an answer after the deadline to {id}"),
                    )),
                    // The real platform forgets a call at the next poll.
                    CallState::Answered(_) if call.polled.is_some() => Some((
                        Reply::invalid_request_id(),
                        format!("a second answer to {id}"),
                    )),
                    CallState::Answering | CallState::Answered(_) => Some((
                        Reply::invalid_state("InvocationResponse", "InvocationResponse"),
                        format!("a second answer to {id}"),
                    )),
                },
            };
        });
        match refusal {
            None => Ok(Self {
                desk,
                id,
                finished: false,
            }),
            Some((reply, message)) => Err(desk.refuse(name, reply, message)),
        }
    }

    pub(super) fn finish(mut self, answer: Answer) {
        self.finished = true;
        self.enter(answer);
    }

    fn enter(&self, answer: Answer) {
        self.desk.board.send_modify(|board| {
            // A response that was incomplete at the deadline is too late.
            if let Some(call) = board
                .calls
                .get_mut(self.id)
                .filter(|call| call.is_running())
            {
                call.answer(answer);
            }
        });
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.enter(failed(
                "Runtime.TruncatedResponse",
                "the answer broke off in the middle",
            ));
        }
    }
}

fn failed(error_type: &str, message: &str) -> Answer {
    Answer::Error {
        error_type: error_type.into(),
        message: message.into(),
    }
}

pub(super) fn error_type(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(ERROR_TYPE)?.to_str().ok()?.to_owned())
}

/// The function's error: the fields of the body take precedence over the header.
pub(super) fn reported(header: Option<String>, body: &[u8]) -> Answer {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
    Answer::Error {
        error_type: field("errorType")
            .or(header)
            .unwrap_or_else(|| "Function.Unknown".into()),
        message: field("errorMessage")
            .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()),
    }
}

/// A streamed response reports a failure in its trailers, in base64.
fn trailer_error(trailers: &HeaderMap) -> Option<Answer> {
    let error_type = error_type(trailers)?;
    let body = trailers
        .get(ERROR_BODY)
        .map(|value| decode_base64(value.as_bytes()));
    Some(reported(Some(error_type), &body.unwrap_or_default()))
}

/// `lambda_runtime` writes the trailers to the end of the body.
fn trailer_in_body(body: &[u8]) -> Option<Answer> {
    let name = format!("{ERROR_TYPE}:");
    let mut lines = body.rsplit(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let field = |line: &[u8], name: &str| {
        // The type may follow a part of the body.
        let from = line
            .windows(name.len())
            .rposition(|part| part.eq_ignore_ascii_case(name.as_bytes()))?;
        let value = line[from + name.len()..].trim_ascii();
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let details = lines.by_ref().find(|line| !line.is_empty())?;
    let details = field(details, &format!("{ERROR_BODY}:"))?;
    let error_type = field(lines.next()?, &name)?;
    let message = decode_base64(details.as_bytes());
    Some(reported(Some(error_type), &message))
}

/// Enough of base64 for one header; other characters are skipped.
fn decode_base64(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .iter()
        .filter_map(|c| DIGITS.iter().position(|digit| digit == c));
    let (mut bytes, mut pending, mut bits) = (Vec::new(), 0_usize, 0);
    for digit in digits {
        pending = (pending << 6 | digit) & 0x3fff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.extend(u8::try_from(pending >> bits & 0xff));
        }
    }
    bytes
}

pub(super) enum Incomplete {
    TooLarge,
    Broken,
}

/// Reads a body to its end, with its trailers.
pub(super) async fn collect(
    mut body: Incoming,
    limit: usize,
) -> Result<(Bytes, HeaderMap), Incomplete> {
    let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Incomplete::Broken)?.into_data() {
            Ok(data) if bytes.len() + data.len() > limit => return Err(Incomplete::TooLarge),
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes.freeze(), trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_in_body_are_an_error() {
        let body = b"1 2 Lambda-Runtime-Function-Error-Type: Runtime.StreamError\r\nLambda-Runtime-Function-Error-Body: b29wcw==\r\n";
        match trailer_in_body(body) {
            Some(Answer::Error {
                error_type,
                message,
            }) => assert_eq!(
                (error_type.as_str(), message.as_str()),
                ("Runtime.StreamError", "oops")
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn other_bodies_are_not_errors() {
        for body in [
            &b""[..],
            b"1 2 3\n",
            b"Lambda-Runtime-Function-Error-Type: x\n4 5\n",
        ] {
            assert!(trailer_in_body(body).is_none());
        }
    }
}
