//! Where sqlx's pool would say nothing, or something else, it says what our own handle says.

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

/// What the URL asks for is refused by the server: at once, and in its own words.
#[tokio::test]
async fn what_the_server_refuses_to_set() {
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
            // A failure is not remembered: the server may know the time zone by the next time.
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

/// The same over TLS: with rustls, sqlx's pool waits until the server has ended such a connection, too, which took
/// 1.5 s. With all features, where the system's library is used, this shows nothing; the test below does.
#[tokio::test]
async fn what_the_server_refuses_to_set_over_tls() {
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

/// Where the client waits for the server's end before it closes its own, as sqlx does over rustls, the server has
/// to end it. Which TLS library is compiled in does not matter here: the relay keeps the client's end from the server.
#[tokio::test]
async fn refused_session_is_ended_by_the_server() {
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

/// A way to a server that does not tell it when the client closes its end.
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
                        // Not dropped: that would close it.
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

/// A clone that is used when its pool has been closed is used after its invocation, whatever `close` is.
#[tokio::test]
async fn a_clone_that_outlives_its_pool() {
    support::measures_time();
    for product in SERVERS {
        let mut said = Vec::new();
        for kind in ["db", "pool"] {
            let world = World::new(product).await;
            let running = world.start(kind, "always").await;
            let escape = json!({ "escape": { "sql": product.session(), "ms": 300 } });
            running.succeed(json!([escape])).await;
            // It wakes up in another invocation, which has a database of its own.
            let ask = json!({ "ask": product.session() });
            running.succeed(json!([ask, { "linger": 400 }, ask])).await;
            world.wait_for_log("the clone: ").await;
            let log = world.log();
            let line = log.lines().find(|line| line.contains("the clone: "));
            let line = line.expect("it is there");
            assert!(
                line.contains(r#"escaped="EscapedFromInvocation""#),
                "{line}"
            );
            let (_, text) = line.split_once("finally: ").expect("the stage");
            said.push(text.to_owned());
            running.end().await;
        }
        assert_eq!(said[0], said[1], "{product:?}");
    }
}
