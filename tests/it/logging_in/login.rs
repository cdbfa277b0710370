//! Calls of the function that logs in, and a way to the servers that leads over another address than
//! loopback's.

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

/// What an IAM token is signed with.
const SIGNER: [(&str, &str); 4] = [
    ("AWS_REGION", "eu-west-1"),
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "hunter2-signs-with-this"),
    ("AWS_SESSION_TOKEN", "hunter2-is-the-session"),
];

/// One event for `handler`, with these variables. Nothing secret is shown anywhere.
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

/// The URL of an empty database of the shared MongoDB, which is reached at `address`.
pub(crate) fn mongodb_url_at(address: SocketAddr) -> String {
    let here = format!("127.0.0.1:{}", mongodb().port());
    mongodb().fresh_url().replace(&here, &address.to_string())
}

/// One document, by the function for MongoDB.
pub(crate) async fn insert_into_mongodb(url: &str) -> Called {
    let function = local(Path::new(FUNCTION))
        .env("FUNCTION", "mongodb")
        .env("HANDLER", "kept")
        .env("MONGODB_URI", url);
    call(function, &[json!({ "do": "insert" })]).await
}

/// Checks that `handler` reports `error_type` with every one of `words`; the message.
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

/// An address of this machine at which a server of its loopback interface can be reached, as if it were on
/// another machine. It ends with the test.
pub(crate) async fn from_elsewhere(port: u16) -> SocketAddr {
    relayed(own_address(), port).await
}

/// A port of `address`, of this machine, at which a server of its loopback interface can be reached. It ends with
/// the test.
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

/// An address of this machine's that is not loopback's.
fn own_address() -> IpAddr {
    // Connecting a UDP socket chooses the address, and sends nothing.
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
