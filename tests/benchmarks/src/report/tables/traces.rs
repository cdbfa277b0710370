//! What went over the wire, as tables.

use std::fmt::Write;

use super::{Page, label};
use crate::{
    contender::{FRESH_FLOOR, GUIDE},
    record::{Step, Trace, Traces},
    report::chart::short,
};

/// Who took the time of one invocation.
#[allow(clippy::struct_field_names, reason = "a figure is named with its unit")]
pub(in crate::report) struct Spent {
    pub(in crate::report) network_ms: f64,
    pub(in crate::report) held_ms: f64,
    pub(in crate::report) server_ms: f64,
    pub(in crate::report) function_ms: f64,
}

impl Spent {
    pub(in crate::report) fn of(trace: &Trace, rtt_ms: f64) -> Self {
        let sum = |part: fn(&Step) -> f64| -> f64 {
            let awaited = trace.steps.iter().filter(|step| step.awaited);
            awaited.map(part).sum()
        };
        let server_ms = sum(|step| step.server_ms);
        let held_ms = sum(|step| step.held_ms);
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let trips = trace.round_trips as f64;
        // A new connection is held for half a round trip more than a real one: see the sandbox's README.
        let function_first = trace
            .steps
            .iter()
            .any(|step| step.awaited && step.says.is_empty());
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let opened = if function_first {
            0.0
        } else {
            trace.opened as f64
        };
        let network_ms = (trips + opened / 2.0) * rtt_ms;
        Self {
            network_ms,
            server_ms,
            held_ms,
            function_ms: (trace.caller_ms - network_ms - held_ms - server_ms).max(0.0),
        }
    }
}

/// Every invocation that was traced, and where its time went.
pub(super) fn of(page: &mut Page, traces: &Traces) {
    let _ = writeln!(
        page.0,
        "\n## On the wire\n\nOne invocation with one query, {} ms round trip; of the warm ones that at the first quartile of the latencies. Bytes and connections as the sandbox's proxy counts them, round trips (TCP's included) as a tap right before the server sees them.\n",
        traces.rtt_ms
    );
    page.head(&[
        "",
        "server",
        "",
        "",
        "opened",
        "round trips",
        "after the answer",
        "bytes out",
        "bytes in",
        "caller",
        "network",
        "held back",
        "server's time",
        "function's time",
    ]);
    for trace in &traces.traces {
        let spent = Spent::of(trace, traces.rtt_ms);
        page.row([
            label(&trace.contender).to_owned(),
            trace.product.to_string(),
            if trace.tls { "TLS" } else { "plain" }.into(),
            if trace.cold { "cold" } else { "warm" }.into(),
            trace.opened.to_string(),
            trace.round_trips.to_string(),
            trace.round_trips_after.to_string(),
            trace.sent.to_string(),
            trace.received.to_string(),
            short(trace.caller_ms),
            short(spent.network_ms),
            short(spent.held_ms),
            short(spent.server_ms),
            short(spent.function_ms),
        ]);
    }
    let interesting = [
        "raw_open_close",
        FRESH_FLOOR,
        "connection_always",
        "pool_always",
        GUIDE,
        "pool_never",
        "plain",
    ];
    for trace in &traces.traces {
        let wanted = interesting.contains(&trace.contender.as_str());
        if wanted && !trace.cold {
            let plain = traces.traces.iter().find(|plain| {
                !plain.tls
                    && !plain.cold
                    && plain.product == trace.product
                    && plain.contender == trace.contender
            });
            steps_of(page, trace, plain.filter(|_| trace.tls));
        }
    }
}

fn steps_of(page: &mut Page, trace: &Trace, plain: Option<&Trace>) {
    let tls = if trace.tls { "TLS" } else { "plain" };
    let _ = writeln!(
        page.0,
        "\n### {}, {tls}, warm: {}\n\n{} ms in all. First the function took {} ms, and {} ms after the last word.\n",
        trace.product,
        label(&trace.contender),
        short(trace.caller_ms),
        short(trace.before_ms),
        short(trace.rest_ms)
    );
    page.head(&[
        "#",
        "function, ms",
        "says",
        "bytes",
        "held back, ms",
        "server, ms",
        "answers",
        "bytes",
    ]);
    let many = trace
        .steps
        .iter()
        .any(|step| step.connection != trace.steps[0].connection);
    for (number, step) in trace.steps.iter().enumerate() {
        let connection = if many {
            format!(" (connection {})", step.connection)
        } else {
            String::new()
        };
        let after = if step.awaited {
            ""
        } else {
            " *after the answer*"
        };
        let inside = plain.and_then(|plain| Some(&plain.steps[inside(trace, plain, number)?]));
        let guess = |said: &str, meant: fn(&Step) -> &str| match inside.map(meant) {
            Some(meant) if !meant.is_empty() => format!("{said} ({meant})"),
            _ => said.to_owned(),
        };
        page.row([
            format!("{}{connection}{after}", number + 1),
            short(step.function_ms),
            guess(&step.says, |step| &step.says),
            step.sent.to_string(),
            short(step.held_ms),
            short(step.server_ms),
            guess(&step.answer, |step| &step.answer),
            step.received.to_string(),
        ]);
    }
}

/// Which step of the same invocation without encryption an encrypted step must be: behind the handshake both have the
/// same steps, but for the farewell.
fn inside(trace: &Trace, plain: &Trace, number: usize) -> Option<usize> {
    let handshake = trace
        .steps
        .iter()
        .rposition(|step| step.answer.contains("ServerHello"));
    let greeted = usize::from(plain.steps.first()?.says.is_empty());
    let at = match handshake {
        None => number,
        Some(handshake) => number.checked_sub(handshake + 1)? + greeted,
    };
    (at < plain.steps.len()).then_some(at)
}
