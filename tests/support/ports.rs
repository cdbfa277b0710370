//! Free, refusing and silent ports.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// A loopback port that was free a moment ago.
///
/// Another process may take it first: a server that cannot bind it must retry with another port.
///
/// # Panics
/// When no loopback port is free.
#[must_use]
pub fn free_port() -> u16 {
    loopback_listener().1.port()
}

/// A loopback port that refuses every connection until the test process ends.
///
/// # Panics
/// When no loopback port is free.
#[must_use]
pub fn refused_port() -> u16 {
    let socket = tokio::net::TcpSocket::new_v4().expect("a TCP socket");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(any_port).expect("a free loopback port");
    let port = socket.local_addr().expect("the bound port").port();
    // Bound but not listening: connections are refused, and no other process can take the port.
    std::mem::forget(socket);
    port
}

/// A server that accepts connections and never replies: see [`SilentListener`].
///
/// # Panics
/// When no loopback port is free.
#[must_use]
pub fn silent_listener() -> SilentListener {
    let (listener, address) = loopback_listener();
    listener
        .set_nonblocking(true)
        .expect("a non-blocking listener");
    SilentListener {
        listener,
        address,
        accepted: Vec::new(),
    }
}

/// A listener that accepts connections and never replies, until it is dropped.
///
/// The kernel completes the handshakes: no thread or task can delay them.
#[derive(Debug)]
pub struct SilentListener {
    listener: TcpListener,
    address: SocketAddr,
    accepted: Vec<TcpStream>,
}

impl SilentListener {
    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The number of connections so far.
    ///
    /// # Panics
    /// When the listener fails, which a loopback listener does not.
    pub fn connections(&mut self) -> usize {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.accepted.push(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.accepted.len(),
                Err(error) => panic!("the silent listener on {} failed: {error}", self.address),
            }
        }
    }
}

fn loopback_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    let address = listener.local_addr().expect("the bound port");
    (listener, address)
}
