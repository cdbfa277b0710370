//! sqlx's pool returns the same errors as `&Db<..>`, where it would return none or different ones.

use crate::world::{Product, Running, SERVERS, World};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use support::{mariadb, wait_for};
use tokio::net::{TcpListener, TcpStream};

/// The server rejects a setting of the URL: the error is returned immediately, with the server's text.
#[tokio::test]
async fn rejected_setting_is_reported() {
    support::measures_time();
    for (option, word) in [
        ("timezone=Mars/Olympus", "Mars/Olympus"),
        ("collation=klingon_ci", "klingon_ci"),
    ] {
        let world = World::new(Product::MariaDb).await;
        let mut said = Vec::new();
        for kind in ["db", "pool", "single", "transaction"] {
            let url = format!("{}&{option}", world.server().url());
            let sandbox = world
                .sandbox_with(kind, "never", |function| function)
                .database("DATABASE_URL", &url)
                .expect("a URL with a host");
            let running = Running::of(sandbox).await;
            // A failure is not cached: the server may accept the setting the next time.
            for number in 0..2 {
                let steps = json!([{ "ask": world.product.session() }]);
                let (error_type, text) = running.fail(steps).await;
                let place = format!("{kind} {number}: {error_type}: {text}");
                assert!(text.contains(word), "{place}");
                assert!(!text.contains("firewall"), "{place}");
                said.push(error_type);
            }
            assert_eq!(running.opened(), 2, "{kind}: one try for each invocation");
            running.end().await;
        }
        assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    }
}

/// The same over TLS: with rustls, sqlx's pool waits until the server has closed such a connection, which took 1.5 s.
/// With all features the system's TLS library is used and this test has no effect; the next one has.
#[tokio::test]
async fn rejected_setting_is_reported_over_tls() {
    support::measures_time();
    let world = World::new(Product::MariaDb).await;
    let url = format!("{}&collation=klingon_ci", world.server().tls_url());
    for kind in ["pool", "transaction"] {
        let sandbox = world
            .sandbox_with(kind, "never", |function| function)
            .database("DATABASE_URL", &url)
            .expect("a URL with a host");
        let running = Running::of(sandbox).await;
        let begun = Instant::now();
        let (error_type, text) = running
            .fail(json!([{ "ask": world.product.session() }]))
            .await;
        let took = begun.elapsed();
        assert!(text.contains("klingon_ci"), "{kind}: {error_type}: {text}");
        assert!(took < Duration::from_secs(1), "{kind}: after {took:?}");
        running.end().await;
    }
}

/// sqlx over rustls waits for the server to close the connection first. The relay hides the client's close from the
/// server, so that the test does not depend on the TLS library.
#[tokio::test]
async fn rejected_session_is_closed_by_server() {
    support::measures_time();
    let world = World::new(Product::MariaDb).await;
    for url in [world.server().url(), world.server().tls_url()] {
        for kind in ["pool", "transaction"] {
            let relay = HalfRelay::start(mariadb().port()).await;
            let url = format!("{url}&collation=klingon_ci").replace(
                &format!(":{}/", mariadb().port()),
                &format!(":{}/", relay.port),
            );
            let sandbox =
                world.sandbox_with(kind, "never", |function| function.env("DATABASE_URL", &url));
            let running = Running::of(sandbox).await;
            let (error_type, text) = running
                .fail(json!([{ "ask": world.product.session() }]))
                .await;
            assert!(text.contains("klingon_ci"), "{kind}: {error_type}: {text}");
            let ended = wait_for(
                "the server to end the session",
                async || relay.ended_by_the_server.load(Ordering::Acquire),
                |ended| *ended == 1,
            );
            ended.await;
            running.end().await;
        }
    }
}

/// A relay that does not forward the client's close to the server.
struct HalfRelay {
    port: u16,
    ended_by_the_server: Arc<AtomicUsize>,
}

impl HalfRelay {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let ended_by_the_server = Arc::<AtomicUsize>::default();
        let ended = Arc::clone(&ended_by_the_server);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let ended = Arc::clone(&ended);
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await?;
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let up = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                        // Kept alive: dropping it would close it.
                        to_server
                    });
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                    ended.fetch_add(1, Ordering::AcqRel);
                    drop(up.await);
                    std::io::Result::Ok(())
                });
            }
        });
        Self {
            port,
            ended_by_the_server,
        }
    }
}

/// A clone of a closed pool returns the same error as one that is used after its invocation, whatever `close` is.
#[tokio::test]
async fn clone_of_closed_pool_reports_use_after_invocation() {
    support::measures_time();
    for product in SERVERS {
        let mut said = Vec::new();
        for kind in ["db", "pool"] {
            let world = World::new(product).await;
            let running = world.start(kind, "always").await;
            let escape = json!({ "escape": { "sql": product.session(), "ms": 300 } });
            running.succeed(json!([escape])).await;
            // The clone runs during another invocation, which has its own database.
            let ask = json!({ "ask": product.session() });
            running.succeed(json!([ask, { "linger": 400 }, ask])).await;
            world.wait_for_log("the clone: ").await;
            let log = world.log();
            let line = log.lines().find(|line| line.contains("the clone: "));
            let line = line.expect("it is there");
            assert!(line.contains(r#"escaped="UsedAfterInvocation""#), "{line}");
            let (_, text) = line.split_once("cleanup: ").expect("the stage");
            said.push(text.to_owned());
            running.end().await;
        }
        assert_eq!(said[0], said[1], "{product:?}");
    }
}
