//! What goes over the wire, exchange by exchange, and who takes the time in between.

use sandbox::{Environment, Invocation, PhaseKind};
use serde_json::json;
use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use super::{TIMEOUT, caller_ms};
use crate::{
    bed::{Bed, Failure, Product, Server},
    contender::{self, Contender},
    protocol::Reader,
    record::{Step, Trace, Traces, write},
    wiretap::{From, Piece, Wiretap},
};

const RTT: Duration = Duration::from_millis(1);
/// What is kept of a kept connection is not what one invocation shows: the first one after the cold start still
/// prepares its statements in pools with a second connection.
const WARM_UPS: usize = 3;
/// The one at the first quartile is shown: what a busy machine adds is not what this is about.
const WARM: usize = 16;
/// After the answer something may still be on its way: a closing that nobody waits for. So long after the last of
/// it nothing more comes.
const SILENCE: Duration = RTT.saturating_mul(10);
/// A wire that is not silent by then is never.
const LONGEST_FAREWELL: Duration = Duration::from_secs(1);

pub(crate) async fn run(servers: &[Server], bed: &Bed, folder: &Path) -> Result<(), Failure> {
    let mut traces = Vec::new();
    for server in servers {
        for tls in [false, true] {
            for contender in contender::with(server.product()) {
                traces.extend(of(contender, server, tls, bed).await?);
            }
            println!(
                "trace, {}, {}",
                server.product(),
                if tls { "TLS" } else { "plain" }
            );
        }
    }
    let rtt_ms = RTT.as_secs_f64() * 1000.0;
    write(folder, "trace", &Traces { rtt_ms, traces })
}

/// A cold invocation and a warm one.
async fn of(
    contender: &Contender,
    server: &Server,
    tls: bool,
    bed: &Bed,
) -> Result<[Trace; 2], Failure> {
    let product = server.product();
    let wiretap = Wiretap::before(server.port()).await?;
    let url = server.url(tls).replace(
        &format!("127.0.0.1:{}", server.port()),
        &format!("127.0.0.1:{}", wiretap.port()),
    );
    let environment = bed.start(contender, product, &url, RTT, TIMEOUT).await?;
    let mut scene = Scene {
        contender,
        product,
        tls,
        wiretap,
        environment,
        readers: Readers::default(),
    };
    let cold = scene.invoke(true).await?;
    for _ in 0..WARM_UPS {
        scene.invoke(false).await?;
    }
    let mut warm = Vec::new();
    for _ in 0..WARM {
        warm.push(scene.invoke(false).await?);
    }
    scene.environment.shutdown().await;
    warm.sort_by(|a, b| a.caller_ms.total_cmp(&b.caller_ms));
    Ok([cold, warm.swap_remove(WARM / 4)])
}

struct Scene<'a> {
    contender: &'a Contender,
    product: Product,
    tls: bool,
    wiretap: Wiretap,
    environment: Environment,
    readers: Readers,
}

/// Each direction of each connection, as far as it has been read.
type Readers = HashMap<(usize, From), Reader>;

impl Scene<'_> {
    async fn invoke(&mut self, cold: bool) -> Result<Trace, Failure> {
        self.wiretap.take();
        let before: Vec<_> = self.environment.networks()[0].connections();
        let (now, now_ms) = (Instant::now(), self.environment.now_ms());
        let invocation = self.environment.invoke(json!({"queries": 1})).await;
        if !invocation.is_answered() {
            return Err(format!("{}: {}", self.contender.name, invocation.outcome).into());
        }
        if !self.wiretap.falls_silent(SILENCE, LONGEST_FAREWELL).await {
            return Err(format!("{} goes on while it is frozen", self.contender.name).into());
        }
        let pieces = self.wiretap.take();
        let after = self.environment.networks()[0].connections();
        let bytes = |count: fn(&sandbox::ConnectionRecord) -> u64| {
            after.iter().map(count).sum::<u64>() - before.iter().map(count).sum::<u64>()
        };
        let to_ms = |at: Instant| now_ms + at.saturating_duration_since(now).as_secs_f64() * 1000.0;
        let course = Course::of(&invocation).ok_or("an invocation without a handler's phase")?;
        let exchanges = exchanges(self.product, &pieces, &mut self.readers, to_ms);
        let opened = after.len() - before.len();
        Ok(course.trace(
            self,
            cold,
            &invocation,
            exchanges,
            opened,
            [bytes(|c| c.sent), bytes(|c| c.received)],
        ))
    }
}

/// When the handler had the event, and when its answer was there.
struct Course {
    from: f64,
    to: f64,
}

impl Course {
    fn of(invocation: &Invocation) -> Option<Self> {
        let handler = invocation
            .phases
            .iter()
            .find(|phase| phase.kind == PhaseKind::Handler)?;
        Some(Self {
            from: handler.from,
            to: handler.to,
        })
    }

    fn trace(
        &self,
        scene: &Scene<'_>,
        cold: bool,
        invocation: &Invocation,
        exchanges: Vec<Exchange>,
        opened: usize,
        [sent, received]: [u64; 2],
    ) -> Trace {
        let way = RTT.as_secs_f64() * 1000.0 / 2.0;
        let mut trace = Trace {
            product: scene.product,
            contender: scene.contender.name.to_owned(),
            tls: scene.tls,
            cold,
            caller_ms: caller_ms(invocation),
            opened,
            round_trips: 0,
            round_trips_after: 0,
            sent,
            received,
            before_ms: 0.0,
            rest_ms: 0.0,
            steps: Vec::new(),
        };
        let mut heard = self.from;
        let mut known = Vec::new();
        for exchange in exchanges {
            // What is answered only after the function's own answer was not waited for, though it may have been said
            // before. A farewell has no answer: it counts when it was said before.
            let heard_at = exchange.ends_at.map(|at| at + way);
            let awaited = heard_at.unwrap_or(exchange.says_at - way) <= self.to;
            let is_new = !known.contains(&exchange.connection);
            if is_new {
                known.push(exchange.connection);
            }
            let opens = is_new && opened > 0;
            let trips = usize::from(exchange.ends_at.is_some()) + usize::from(opens);
            if awaited {
                trace.round_trips += trips;
            } else {
                trace.round_trips_after += trips;
            }
            let said = exchange.says_at - way;
            // The sandbox's proxy holds a new connection for one and a half round trips; what the function says
            // first waits for that, and what a server says first follows it.
            let tcp = match (opens, exchange.says.is_empty()) {
                (false, _) => 0.0,
                (true, false) => 3.0 * way,
                (true, true) => 2.0 * way,
            };
            let function_ms = (said - heard - tcp).max(0.0);
            if trace.steps.is_empty() {
                trace.before_ms = function_ms;
            }
            let ends_at = exchange
                .ends_at
                .unwrap_or(exchange.says_at.max(exchange.said_at));
            let held_ms = (exchange.said_at - exchange.says_at).max(0.0);
            trace.steps.push(Step {
                connection: exchange.connection,
                says: exchange.says.join(", "),
                sent: exchange.sent,
                answer: exchange.answer.join(", "),
                received: exchange.received,
                function_ms,
                held_ms,
                server_ms: ends_at - exchange.says_at - held_ms,
                awaited,
            });
            heard = ends_at
                + if exchange.ends_at.is_some() {
                    way
                } else {
                    -way
                };
            if awaited {
                trace.rest_ms = (self.to - heard).max(0.0);
            }
        }
        trace
    }
}

/// What the function said without hearing anything, and what it heard then.
#[derive(Default)]
struct Exchange {
    connection: usize,
    says_at: f64,
    says: Vec<String>,
    sent: usize,
    /// When the last of it passed: later than the first, where the sender's kernel held it back.
    said_at: f64,
    ends_at: Option<f64>,
    answer: Vec<String>,
    received: usize,
}

fn exchanges(
    product: Product,
    pieces: &[Piece],
    readers: &mut Readers,
    to_ms: impl Fn(Instant) -> f64,
) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for piece in pieces {
        let reader = readers
            .entry((piece.connection, piece.from))
            .or_insert_with(|| Reader::new(product, piece.from));
        let said = reader.read(&piece.bytes);
        let at = to_ms(piece.at);
        let current = exchanges
            .iter()
            .rposition(|exchange| exchange.connection == piece.connection);
        let current = match (current, piece.from) {
            (Some(current), From::Server) => current,
            (Some(current), From::Function) if exchanges[current].ends_at.is_none() => current,
            // MariaDB speaks first.
            _ => {
                exchanges.push(Exchange {
                    connection: piece.connection,
                    says_at: at,
                    ..Exchange::default()
                });
                exchanges.len() - 1
            }
        };
        let exchange = &mut exchanges[current];
        match piece.from {
            From::Function => {
                exchange.said_at = at;
                exchange.says.extend(said);
                exchange.sent += piece.bytes.len();
            }
            From::Server => {
                exchange.answer.extend(said);
                exchange.received += piece.bytes.len();
                exchange.ends_at = Some(at);
            }
        }
    }
    exchanges
}
