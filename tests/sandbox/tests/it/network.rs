//! The proxy: its round-trip time and its faults.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::common::{self, PATIENCE};
use crate::turn;
use sandbox::{Fault, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Long enough to be sure that no bytes arrive.
const SILENCE: Duration = Duration::from_millis(150);

/// An echo server.
async fn echo() -> SocketAddr {
    turn::measures_time();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn proxy() -> Proxy {
    Proxy::start(echo().await.to_string()).await.unwrap()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn ping(stream: &mut TcpStream) -> std::io::Result<Duration> {
    let began = Instant::now();
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .expect("an echo in time")?;
    Ok(began.elapsed())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"ping").await;
    timeout(SILENCE, stream.read(&mut [0; 4])).await.is_err()
}

/// Reads to the end of the connection, and returns the kind of its error.
async fn failure(stream: &mut TcpStream) -> ErrorKind {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("an end in time");
    read.map_or_else(|error| error.kind(), |_| ErrorKind::UnexpectedEof)
}

#[tokio::test]
async fn every_reply_takes_one_round_trip() {
    let proxy = proxy().await;
    for rtt in [1, 10].map(Duration::from_millis) {
        proxy.apply(Fault::Rtt(rtt));
        let mut stream = connect(&proxy).await;
        let first = ping(&mut stream).await.unwrap();
        assert!(first >= rtt * 2, "the handshake counts: {first:?}");
        let mut times = Vec::new();
        for _ in 0..50 {
            times.push(ping(&mut stream).await.unwrap());
        }
        times.sort();
        // The minimum: a busy machine delays the others.
        assert!(
            times[0] >= rtt && times[0] < rtt + Duration::from_micros(900),
            "{rtt:?}: {:?}",
            times[0]
        );
    }
}

#[tokio::test]
async fn delay_does_not_limit_throughput() {
    let proxy = proxy().await;
    proxy.apply(Fault::Rtt(Duration::from_millis(40)));
    let stream = connect(&proxy).await;
    let (mut from, mut to) = stream.into_split();
    let total = 32 * 1024 * 1024;
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        to.write_all(&vec![7; total]).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut received = Vec::with_capacity(total);
    timeout(PATIENCE, from.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    sending.await.unwrap();
    assert_eq!(received.len(), total);
    assert!(received.iter().all(|byte| *byte == 7));
    // One window per round trip would be 64 KiB each 40 ms: 20 s.
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(proxy.stats().sent, total as u64);
}

#[tokio::test]
async fn dark_existing_connection_stays_dark_and_new_ones_work() {
    let proxy = proxy().await;
    let mut old = connect(&proxy).await;
    ping(&mut old).await.unwrap();
    proxy.apply(Fault::DarkExisting);
    assert!(is_silent(&mut old).await);
    assert!(ping(&mut connect(&proxy).await).await.is_ok());
    proxy.apply(Fault::Heal);
    assert!(is_silent(&mut old).await, "it stays forgotten");
    assert_eq!((proxy.stats().opened, proxy.stats().dark), (2, 1));
}

#[tokio::test]
async fn dark_network_delivers_bytes_after_heal() {
    let proxy = proxy().await;
    let mut old = connect(&proxy).await;
    ping(&mut old).await.unwrap();
    proxy.apply(Fault::Dark);
    let mut new = connect(&proxy).await;
    assert!(is_silent(&mut old).await && is_silent(&mut new).await);
    proxy.apply(Fault::Heal);
    for stream in [&mut old, &mut new] {
        let mut late = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut late))
            .await
            .unwrap()
            .unwrap();
        assert!(ping(stream).await.is_ok());
    }
}

#[tokio::test]
async fn reset_connection_fails_and_new_ones_work() {
    let proxy = proxy().await;
    let mut old = connect(&proxy).await;
    ping(&mut old).await.unwrap();
    proxy.apply(Fault::ResetExisting);
    assert_eq!(failure(&mut old).await, ErrorKind::ConnectionReset);
    assert!(ping(&mut connect(&proxy).await).await.is_ok());
}

#[tokio::test]
async fn cut_transfers_given_number_of_bytes() {
    let proxy = proxy().await;
    let mut old = connect(&proxy).await;
    ping(&mut old).await.unwrap();
    proxy.apply(Fault::CutExisting(6));
    old.write_all(b"0123456789").await.unwrap();
    let mut part = [0; 6];
    timeout(PATIENCE, old.read_exact(&mut part))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&part, b"012345");
    assert_eq!(failure(&mut old).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn refuse_and_silence_affect_only_new_connections() {
    let proxy = proxy().await;
    let mut old = connect(&proxy).await;
    ping(&mut old).await.unwrap();
    proxy.apply(Fault::Refuse);
    let until = Instant::now() + PATIENCE;
    // While the listener closes, a connection may still be reset.
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    while !TcpStream::connect(proxy.addr()).await.is_err_and(refused) {
        assert!(Instant::now() < until);
    }
    assert!(ping(&mut old).await.is_ok());
    proxy.apply(Fault::Silence);
    let mut silent = loop {
        // Reopening the port takes some time.
        if let Ok(stream) = TcpStream::connect(proxy.addr()).await {
            break stream;
        }
        assert!(Instant::now() < until);
    };
    assert!(is_silent(&mut silent).await);
    assert!(ping(&mut old).await.is_ok());
    proxy.apply(Fault::Heal);
    assert!(ping(&mut connect(&proxy).await).await.is_ok());
}

#[tokio::test]
async fn close_is_forwarded_to_other_side() {
    let proxy = proxy().await;
    let mut stream = connect(&proxy).await;
    ping(&mut stream).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(
        failure(&mut stream).await,
        ErrorKind::UnexpectedEof,
        "an orderly end"
    );
    common::eventually("the end in the books", || {
        (proxy.stats().open == 0).then_some(())
    })
    .await;
    // A database that does not listen causes an immediate reset.
    let nobody = Proxy::start("127.0.0.1:1").await.unwrap();
    assert_eq!(
        failure(&mut connect(&nobody).await).await,
        ErrorKind::ConnectionReset
    );
}

#[test]
fn faults_are_parsed_from_text() {
    for text in [
        "dark-existing",
        "dark-new",
        "dark",
        "reset",
        "cut:7",
        "cut-new:1",
        "refuse",
        "silence",
        "heal",
    ] {
        assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
    }
    for text in ["reset@freeze:3", "dark@invocation:2+20ms", "heal@thaw:1"] {
        assert_eq!(text.parse::<sandbox::Incident>().unwrap().to_string(), text);
    }
    for bad in ["drak", "cut", "cut:many", "rtt:fast", "rtt:"] {
        assert!(bad.parse::<Fault>().is_err(), "{bad}");
    }
    for bad in [
        "reset",
        "reset@",
        "reset@freeze",
        "reset@freeze:x",
        "reset@lunch:1",
        "reset@freeze:1+x",
    ] {
        assert!(bad.parse::<sandbox::Incident>().is_err(), "{bad}");
    }
}
