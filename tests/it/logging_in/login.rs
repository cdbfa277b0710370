//! Calls of the login function, and relays that reach the servers at a non-loopback address.

use crate::FUNCTION;
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
};
use support::{
    MariaDb, Postgres,
    caller::{Called, call, local},
    mongodb,
};
use tokio::net::{TcpListener, TcpStream};

/// The signer of IAM tokens.
const SIGNER: [(&str, &str); 4] = [
    ("AWS_REGION", "eu-west-1"),
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "hunter2-signs-with-this"),
    ("AWS_SESSION_TOKEN", "hunter2-is-the-session"),
];

/// Sends one event to `handler` with these variables, and asserts that no output contains a secret.
pub(crate) async fn log_in(handler: &str, variables: &[(&str, &str)]) -> Called {
    let mut function = local(Path::new(FUNCTION))
        .env("FUNCTION", "iam")
        .env("HANDLER", handler);
    for (name, value) in SIGNER.iter().chain(variables) {
        function = function.env(name, value);
    }
    let called = call(function, &[json!(null)]).await;
    let shown = format!("{called:?}");
    for secret in [
        Postgres::PASSWORD,
        MariaDb::PASSWORD,
        "hunter2",
        "X-Amz-Signature",
    ] {
        assert!(!shown.contains(secret), "{secret} is shown in {shown}");
    }
    called
}

/// Checks that `handler` logs in with `url`, over TLS or not.
pub(crate) async fn assert_in(handler: &str, url: &str, tls: bool) -> Called {
    let called = log_in(handler, &[("DATABASE_URL", url)]).await;
    assert_eq!(
        called.answer()["tls"],
        Value::Bool(tls),
        "{handler}: {called:?}"
    );
    called
}

/// The URL of an empty database of the shared MongoDB, at `address`.
pub(crate) fn mongodb_url_at(address: SocketAddr) -> String {
    let here = format!("127.0.0.1:{}", mongodb().port());
    mongodb().fresh_url().replace(&here, &address.to_string())
}

/// Inserts one document with the function for MongoDB.
pub(crate) async fn insert_into_mongodb(url: &str) -> Called {
    let function = local(Path::new(FUNCTION))
        .env("FUNCTION", "mongodb")
        .env("HANDLER", "kept")
        .env("MONGODB_URI", url);
    call(function, &[json!({ "do": "insert" })]).await
}

/// Checks that `handler` returns `error_type` with every one of `words`, and returns the message.
pub(crate) async fn assert_refused(
    handler: &str,
    url: &str,
    error_type: &str,
    words: &[&str],
) -> String {
    let called = log_in(handler, &[("DATABASE_URL", url)]).await;
    let (seen, message) = called.error();
    assert_eq!(seen, error_type, "{handler}, {url}: {message}");
    for word in words {
        assert!(
            message.contains(word),
            "{handler}: no {word:?} in {message:?}"
        );
    }
    message.to_owned()
}

/// A non-loopback address of this machine that forwards to a local server, as if it were on another machine. The
/// relay stops with the test.
pub(crate) async fn from_elsewhere(port: u16) -> SocketAddr {
    relayed(own_address(), port).await
}

/// A port of the local `address` that forwards to a server on loopback. The relay stops with the test.
pub(crate) async fn relayed(address: IpAddr, port: u16) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its port");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    address
}

/// A non-loopback address of this machine.
fn own_address() -> IpAddr {
    // Connecting a UDP socket selects the local address without sending anything.
    let chosen = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .into_iter()
        .find_map(|(any, elsewhere)| {
            let socket = UdpSocket::bind(any).ok()?;
            socket.connect(elsewhere).ok()?;
            let address = socket.local_addr().ok()?.ip();
            (!address.is_loopback()).then_some(address)
        });
    chosen.expect("a network interface beside the loopback one")
}
