//! The local runtime: events from arguments or standard input, to try a handler without a platform.

mod render;
mod signals;

use self::signals::Signals;
use super::{
    Handler,
    serve::{error_body, respond},
};
use crate::{
    error::{Error, ErrorKind, Stage},
    lifecycle::{scope::InvocationScope, timeline::Phase},
};
use futures_util::future::{Either, select};
use lambda_runtime::Context;
use serde_json::value::RawValue;
use std::{
    env,
    ffi::OsString,
    io::{IsTerminal, Write, stderr, stdin, stdout},
    pin::pin,
    process,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::Instant,
};

/// The exit code for input that is not valid JSON.
const BAD_INPUT: i32 = 2;

/// The number of events, and of those that failed.
#[derive(Debug, Default)]
struct Tally {
    events: usize,
    failures: usize,
}

pub(super) async fn run<Kind, H: Handler<Kind>>(handler: H) -> Result<(), Error> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let signals = Signals::listen();
    let mut tally = Tally::default();
    if arguments.is_empty() {
        if stdin().is_terminal() {
            say("waiting for events: one line of JSON each on the standard input\n");
        }
        // Bytes rather than text: invalid Unicode is reported as invalid JSON, with the number of its line.
        let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
        let mut number = 0;
        while let Some(line) = unless_stopped(&signals, lines.next_segment())
            .await
            .map_err(|error| {
                Error::new(
                    ErrorKind::Platform,
                    format!("the standard input cannot be read after line {number}: {error}"),
                )
                .at(Stage::Platform)
            })?
        {
            number += 1;
            if !line.trim_ascii().is_empty() {
                let event = json(&line, &format!("line {number}")).await;
                tally.add(invoke(&handler, event, tally.events + 1, &signals).await?);
            }
        }
    } else {
        let mut events = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.iter().enumerate() {
            let place = format!("argument {}", index + 1);
            events.push(json(argument.as_encoded_bytes(), &place).await);
        }
        for event in events {
            tally.add(invoke(&handler, event, tally.events + 1, &signals).await?);
        }
    }
    tally.result()
}

impl Tally {
    fn add(&mut self, succeeded: bool) {
        self.events += 1;
        self.failures += usize::from(!succeeded);
    }

    fn result(&self) -> Result<(), Error> {
        if self.failures == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Handler,
            format!("{} of {} events failed", self.failures, self.events),
        )
        .at(Stage::Platform))
    }
}

/// Returns `event` as text. Ends the process if it is not valid JSON; `place` is its position in the input.
async fn json<'a>(event: &'a [u8], place: &str) -> &'a str {
    match serde_json::from_slice::<&RawValue>(event) {
        Ok(event) => event.get(),
        Err(error) => {
            say(&format!("{place} is not valid JSON: {error}\n"));
            crate::lifecycle::shutdown::shutdown().await;
            process::exit(BAD_INPUT);
        }
    }
}

/// Handles one event. Returns whether it succeeded.
async fn invoke<Kind, H: Handler<Kind>>(
    handler: &H,
    event: &str,
    number: usize,
    signals: &Signals,
) -> Result<bool, Error> {
    let mut context = Context::default();
    context.request_id = format!("local-{number}");

    let scope = InvocationScope::observed();
    let started = Instant::now();
    let responded = {
        let responding = pin!(respond(&scope, handler, event, context));
        match select(responding, pin!(signals.first())).await {
            Either::Left((response, _)) => Ok(response),
            Either::Right((code, _)) => Err(code),
        }
    };
    let response = match responded {
        Ok(response) => response,
        // The handler has been dropped. The cleanup cancels the queries that it was waiting for.
        Err(code) => {
            scope.finish().await;
            stop(code).await
        }
    };

    let responding = Instant::now();
    let (succeeded, line) = match response {
        Ok(response) => (true, response),
        Err(diagnostic) => (false, error_body(&diagnostic)),
    };
    print_line(&line)?;
    let responded = Instant::now();
    if let Some(timeline) = scope.timeline() {
        let how = if succeeded { "response" } else { "error" };
        let what = format!("{how}, {} bytes", line.len());
        timeline.add(Phase::Response, responding, what);
    }
    scope.finish().await;
    if let Some(code) = signals.received() {
        stop(code).await;
    }
    if let Some(timeline) = scope.timeline() {
        say(&render::render(
            number,
            started,
            responded,
            &timeline.take(),
        ));
    }
    Ok(succeeded)
}

/// Awaits `work`; stops the process if a signal arrives first.
async fn unless_stopped<W: Future>(signals: &Signals, work: W) -> W::Output {
    match select(pin!(work), pin!(signals.first())).await {
        Either::Left((done, _)) => done,
        Either::Right((code, _)) => stop(code).await,
    }
}

/// Closes all connections, and ends the process.
async fn stop(code: i32) -> ! {
    crate::lifecycle::shutdown::shutdown().await;
    process::exit(code)
}

/// Writes to the standard error. A closed pipe (`2>&1 >/dev/null | head -1`) is ignored.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

fn print_line(line: &[u8]) -> Result<(), Error> {
    let mut out = stdout().lock();
    out.write_all(line)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(|error| {
            Error::new(
                ErrorKind::Platform,
                format!("the response cannot be written to the standard output: {error}"),
            )
            .at(Stage::Platform)
        })
}
