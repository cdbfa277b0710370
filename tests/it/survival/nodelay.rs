//! Every socket to a database has `TCP_NODELAY`, although sqlx 0.9.0 does not set it.

use crate::FUNCTION;
use crate::world::{KINDS, Product, Running, SERVERS, World};
use rustix::{
    net::{getpeername, sockopt::tcp_nodelay},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use sandbox::{Fault, Function, Sandbox};
use serde_json::json;
use std::{fs, net::SocketAddr};

/// For each socket of the process to `port`: whether `TCP_NODELAY` is set.
fn sockets(process: u32, port: u16) -> Vec<bool> {
    let raw = i32::try_from(process).expect("a process id");
    let pid = Pid::from_raw(raw).expect("a process id");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a kernel with pidfd_open");
    let files = fs::read_dir(format!("/proc/{process}/fd")).expect("our own child");
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|number| {
            let file = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()?;
            let peer = SocketAddr::try_from(getpeername(&file).ok()??).ok()?;
            (peer.port() == port).then(|| tcp_nodelay(&file).ok())?
        })
        .collect()
}

async fn check(running: &Running, port: u16, place: &str) {
    let process = running.0.pid().await.expect("a process");
    assert_eq!(sockets(process, port), [true], "{place}");
}

#[tokio::test]
async fn nodelay_is_set_with_and_without_tls() {
    for product in SERVERS {
        let world = World::new(product).await;
        for url in [world.server().url(), world.server().tls_url()] {
            for kind in KINDS {
                let handler = format!("{}/{kind}/never", product.name());
                let function = Function::new(FUNCTION)
                    .env("FUNCTION", "survival")
                    .env("HANDLER", &handler);
                // The certificate is valid for the server's own address.
                let sandbox = Sandbox::new(function)
                    .database("DATABASE_URL", url)
                    .expect("a URL with a host");
                let running = Running::of(sandbox).await;
                running.ask(product.session()).await;
                let port = running.0.networks()[0].addr().port();
                let place = format!(
                    "{handler} {}",
                    url.split_once('?').map_or("", |(_, query)| query)
                );
                check(&running, port, &place).await;
                running.end().await;
            }
        }
    }
}

/// A failed connection attempt does not show whether sqlx sets the option: it is still set on the next connection.
#[tokio::test]
async fn nodelay_is_set_after_refused_connection() {
    let product = Product::Postgres;
    let world = World::new(product).await;
    for kind in ["db", "single"] {
        let running = world.start(kind, "never").await;
        let port = running.0.networks()[0].addr().port();
        let session = json!({ "ask": product.session() });
        running.succeed(json!([session])).await;
        // One connection is open, and another one is refused.
        if kind == "db" {
            running.0.apply(Fault::Refuse);
            let guards = json!({ "guards": { "count": 2, "sql": product.session() } });
            running.fail(json!([guards])).await;
            running.heal().await;
        }
        running.0.apply(Fault::ResetExisting);
        running.invoke(json!([session])).await;
        running.succeed(json!([session])).await;
        check(&running, port, kind).await;
        running.end().await;
    }
}
