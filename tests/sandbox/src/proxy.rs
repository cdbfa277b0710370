//! The network between function and database: a TCP proxy with a round-trip time, which can fail at a chosen moment
//! and records every connection.

mod fault;
mod link;
mod pump;
mod timer;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub use self::fault::Fault;
use crate::{
    clock::{Epoch, lock},
    limits::Limits,
};

/// What happens to the bytes of one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    Pass,
    /// Transfers nothing and closes nothing. `forgotten`: for ever, like a dropped NAT entry.
    Dark {
        forgotten: bool,
    },
    /// This many more bytes from the database, then a reset.
    Cut(u64),
    Reset,
}

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Welcome {
    Pass,
    /// Accepted, without a reply.
    Silence,
    /// Refused: `ECONNREFUSED`.
    Refuse,
    Cut(u64),
}

/// The rules for new connections.
#[derive(Clone, Copy, Debug)]
struct Rules {
    rtt: Duration,
    welcome: Welcome,
}

/// One connection, as in the report.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectionRecord {
    /// When the function opened it, in milliseconds since the start of the run.
    pub opened: f64,
    /// When it was closed; `None` while it is open.
    pub closed: Option<f64>,
    /// When it first went dark.
    pub dark: Option<f64>,
    /// Bytes from the function to the database.
    pub sent: u64,
    /// Bytes from the database to the function.
    pub received: u64,
    /// The port that the database sees.
    pub port: Option<u16>,
}

/// Statistics of one proxy's connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ProxyStats {
    /// Opened by the function so far.
    pub opened: usize,
    /// Open now.
    pub open: usize,
    /// Of these, dark.
    pub dark: usize,
    /// Maximum number of open connections.
    pub peak: usize,
    /// Bytes from the function to the database.
    pub sent: u64,
    /// Bytes from the database to the function.
    pub received: u64,
}

/// A TCP proxy on its own loopback port. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    limits: Limits,
    epoch: Epoch,
    rules: watch::Sender<Rules>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    records: Vec<ConnectionRecord>,
    open: HashMap<usize, watch::Sender<Flow>>,
    /// Connections that the function has closed, although the close may still be in flight.
    let_go: HashSet<usize>,
    peak: usize,
}

impl Proxy {
    /// Starts a proxy in front of `target` (`host:port`), with default limits and an epoch of now.
    ///
    /// # Errors
    /// If no loopback port is free.
    pub async fn start(target: impl Into<String>) -> io::Result<Self> {
        Self::start_with(target, Duration::ZERO, Limits::default(), Epoch::now()).await
    }

    pub(crate) async fn start_with(
        target: impl Into<String>,
        rtt: Duration,
        limits: Limits,
        epoch: Epoch,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let (rules, _) = watch::channel(Rules {
            rtt,
            welcome: Welcome::Pass,
        });
        let book = Mutex::default();
        let shared = Arc::new(Shared {
            target: target.into(),
            limits,
            epoch,
            rules,
            book,
        });
        let task = tokio::spawn(listen(listener, addr, Arc::clone(&shared)));
        Ok(Self { addr, shared, task })
    }

    /// The address that the function connects to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Applies a fault from now on.
    pub fn apply(&self, fault: Fault) {
        let shared = &self.shared;
        match fault {
            Fault::DarkExisting => shared.existing(|_| Flow::Dark { forgotten: true }),
            Fault::DarkNew | Fault::Silence => shared.welcome(Welcome::Silence),
            Fault::Dark => {
                shared.welcome(Welcome::Silence);
                shared.existing(|flow| match flow {
                    Flow::Dark { forgotten: true } => flow,
                    _ => Flow::Dark { forgotten: false },
                });
            }
            Fault::ResetExisting => shared.existing(|_| Flow::Reset),
            Fault::CutExisting(bytes) => shared.existing(|_| Flow::Cut(bytes)),
            Fault::CutNew(bytes) => shared.welcome(Welcome::Cut(bytes)),
            Fault::Refuse => shared.welcome(Welcome::Refuse),
            Fault::Heal => {
                shared.welcome(Welcome::Pass);
                shared.existing(|flow| match flow {
                    Flow::Dark { forgotten: false } => Flow::Pass,
                    _ => flow,
                });
            }
            Fault::Rtt(rtt) => shared.rules.send_modify(|rules| rules.rtt = rtt),
        }
    }

    /// Statistics of the connections.
    #[must_use]
    pub fn stats(&self) -> ProxyStats {
        let book = lock(&self.shared.book);
        let is_dark = |flow: &&watch::Sender<Flow>| matches!(*flow.borrow(), Flow::Dark { .. });
        ProxyStats {
            opened: book.records.len(),
            open: book.open.len(),
            dark: book.open.values().filter(is_dark).count(),
            peak: book.peak,
            sent: book.records.iter().map(|record| record.sent).sum(),
            received: book.records.iter().map(|record| record.received).sum(),
        }
    }

    /// All connections so far.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionRecord> {
        lock(&self.shared.book).records.clone()
    }

    /// Connections that are open and not dark.
    pub(crate) fn alive(&self) -> HashSet<usize> {
        let book = lock(&self.shared.book);
        let alive = book
            .open
            .iter()
            .filter(|(_, flow)| !matches!(*flow.borrow(), Flow::Dark { .. }));
        alive.map(|(number, _)| *number).collect()
    }

    /// The number of these that the function has not closed.
    pub(crate) fn not_let_go(&self, numbers: &HashSet<usize>) -> usize {
        numbers.difference(&lock(&self.shared.book).let_go).count()
    }

    /// The ports that the database sees of connections that are (`true`) or are not dark.
    pub(crate) fn ports(&self, dark: bool) -> HashSet<u16> {
        let book = lock(&self.shared.book);
        let wanted = book
            .records
            .iter()
            .filter(|record| record.dark.is_some() == dark);
        wanted.filter_map(|record| record.port).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn welcome(&self, welcome: Welcome) {
        self.rules.send_modify(|rules| rules.welcome = welcome);
    }

    fn existing(&self, change: impl Fn(Flow) -> Flow) {
        let mut book = lock(&self.book);
        let now = self.epoch.ms(Instant::now());
        let Book { records, open, .. } = &mut *book;
        for (&number, flow) in open {
            flow.send_modify(|flow| *flow = change(*flow));
            if matches!(*flow.borrow(), Flow::Dark { .. }) {
                records[number].dark.get_or_insert(now);
            }
        }
    }

    /// Adds a new connection; its flow can be changed from now on.
    fn enter(&self, flow: Flow) -> (usize, watch::Receiver<Flow>) {
        let mut book = lock(&self.book);
        let (control, seen) = watch::channel(flow);
        let number = book.records.len();
        let opened = self.epoch.ms(Instant::now());
        let dark = matches!(flow, Flow::Dark { .. }).then_some(opened);
        book.records.push(ConnectionRecord {
            opened,
            dark,
            ..ConnectionRecord::default()
        });
        book.open.insert(number, control);
        book.peak = book.peak.max(book.open.len());
        (number, seen)
    }

    fn update(&self, number: usize, change: impl FnOnce(&mut ConnectionRecord)) {
        change(&mut lock(&self.book).records[number]);
    }

    fn let_go(&self, number: usize) {
        lock(&self.book).let_go.insert(number);
    }

    fn leave(&self, number: usize) {
        let now = self.epoch.ms(Instant::now());
        let mut book = lock(&self.book);
        book.open.remove(&number);
        book.records[number].closed = Some(now);
    }
}

/// Accepts connections, or does not listen while connections are refused.
async fn listen(listener: TcpListener, addr: SocketAddr, shared: Arc<Shared>) {
    let mut rules = shared.rules.subscribe();
    let mut listener = Some(listener);
    // All connections end with this task.
    let mut links = JoinSet::new();
    loop {
        let now = *rules.borrow_and_update();
        if now.welcome == Welcome::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = rebind(addr, shared.limits.proxy_rebind).await;
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = rules.changed() => if changed.is_err() { return },
            Some(_) = links.join_next() => {}
            accepted = accept => if let Ok((client, _)) = accepted {
                links.spawn(link::run(client, now, Arc::clone(&shared)));
            },
        }
    }
}

/// Reopens the port. Another process may use it for a moment as the local port of a connection.
async fn rebind(addr: SocketAddr, limit: Duration) -> Option<TcpListener> {
    let until = Instant::now() + limit;
    loop {
        let bound = TcpSocket::new_v4().and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            socket.listen(1024)
        });
        match bound {
            Ok(listener) => return Some(listener),
            Err(_) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => {
                eprintln!("sandbox: the proxy's port {addr} cannot be had back: {error}");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "waited for {what}");
    }

    #[tokio::test]
    async fn connection_closed_by_function_is_not_counted_as_held() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let target = server.local_addr().expect("an address").to_string();
        let proxy = Proxy::start(target).await.expect("a port");
        let mut kept = TcpStream::connect(proxy.addr()).await.expect("the proxy");
        let mut closing = TcpStream::connect(proxy.addr()).await.expect("the proxy");
        let mut sessions = Vec::new();
        for client in [&mut kept, &mut closing] {
            client.write_all(b"hello").await.expect("open");
            sessions.push(server.accept().await.expect("a connection"));
        }
        until("both", || proxy.stats().sent == 10).await;
        let alive = proxy.alive();
        assert_eq!((alive.len(), proxy.not_let_go(&alive)), (2, 2));
        // The server keeps its side open.
        drop(closing);
        until("the end", || proxy.not_let_go(&alive) == 1).await;
        assert_eq!(proxy.stats().open, 2);
    }
}
