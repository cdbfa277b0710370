//! Cold starts: from the start of the process to its first poll, and the first answer.

use sandbox::{Function, PhaseKind, Sandbox};
use serde_json::json;
use std::{collections::BTreeMap, fs, path::Path};

use super::{TIMEOUT, caller_ms};
use crate::{
    bed::{Bed, Failure, Link, Product, Server, on_network},
    contender,
    record::{Cold, ColdStarts, write},
};

const LINK: Link = Link::plain(1.0);
/// Ours as the hand-written one is: nothing closes what is kept when the platform ends the process.
const WITHOUT_HOOK: &str = "cold-ours, without the shutdown hook";
/// Beside the twins: what the same costs in Node.
const PEERS: [&str; 2] = ["node_postgres", contender::GUIDE];

pub(crate) async fn run(
    server: &Server,
    bed: &Bed,
    folder: &Path,
    quick: bool,
) -> Result<(), Failure> {
    let starts = if quick { 20 } else { 100 };
    let mut programs = BTreeMap::new();
    let mut sandboxes: Vec<(String, Sandbox)> = Vec::new();
    for (twin, name) in [
        ("handwritten", "cold-handwritten"),
        ("ours", "cold-ours"),
        ("ours", WITHOUT_HOOK),
    ] {
        let file = bed.twin(twin);
        let size = fs::metadata(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let cold = ColdStarts {
            bytes: Some(size.len()),
            ..ColdStarts::default()
        };
        programs.insert(name.to_owned(), cold);
        let mut function = Function::new(file);
        if name == WITHOUT_HOOK {
            function = function.env("WITHOUT_HOOK", "1");
        }
        sandboxes.push((name.to_owned(), Sandbox::new(function)));
    }
    for name in PEERS {
        let Some(contender) = contender::named(name) else {
            return Err(format!("no contender {name}").into());
        };
        programs.insert(name.to_owned(), ColdStarts::default());
        let function = contender.function(Product::Postgres, bed, TIMEOUT);
        sandboxes.push((name.to_owned(), Sandbox::new(function)));
    }
    let url = server.url(LINK.tls);
    let sandboxes = sandboxes
        .into_iter()
        .map(|(name, sandbox)| Ok((name, on_network(sandbox, &url, LINK.rtt(), TIMEOUT)?)))
        .collect::<Result<Vec<_>, String>>()?;
    for _ in 0..starts {
        for (name, sandbox) in &sandboxes {
            let environment = sandbox.start().await?;
            let ready: f64 = environment
                .phases()
                .iter()
                .filter(|phase| phase.kind == PhaseKind::Init)
                .map(|phase| phase.to - phase.from)
                .sum();
            let first = environment.invoke(json!({"id": 1, "queries": 1})).await;
            if !first.is_answered() {
                return Err(format!("{name}: {}", first.outcome).into());
            }
            environment.shutdown().await;
            if let Some(program) = programs.get_mut(name) {
                program.ready_ms.push(ready);
                program.first_ms.push(caller_ms(&first));
            }
        }
    }
    println!("cold: {starts} starts of each");
    write(folder, "cold", &Cold { programs })
}
