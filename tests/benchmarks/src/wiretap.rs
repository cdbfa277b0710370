//! A forwarder right before the server that notes every piece that passes, with its time and its bytes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};

/// Who sent a piece.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum From {
    Function,
    Server,
}

/// What passed at once.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) connection: usize,
    pub(crate) at: Instant,
    pub(crate) from: From,
    pub(crate) bytes: Vec<u8>,
}

/// Dropped, it closes everything.
#[derive(Debug)]
pub(crate) struct Wiretap {
    addr: SocketAddr,
    pieces: Arc<Mutex<Vec<Piece>>>,
    task: JoinHandle<()>,
}

impl Wiretap {
    /// Before the server on this port of 127.0.0.1.
    pub(crate) async fn before(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let pieces = Arc::default();
        let task = tokio::spawn(listen(listener, port, Arc::clone(&pieces)));
        Ok(Self { addr, pieces, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Everything since the last call.
    pub(crate) fn take(&self) -> Vec<Piece> {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until nothing has passed for `silence`. `false`: that did not happen within `longest`.
    pub(crate) async fn falls_silent(&self, silence: Duration, longest: Duration) -> bool {
        let from = Instant::now();
        loop {
            let last = self.lock().last().map_or(from, |piece| piece.at.max(from));
            let left = silence.saturating_sub(last.elapsed());
            if left.is_zero() {
                return true;
            }
            if from.elapsed() > longest {
                return false;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, port: u16, pieces: Arc<Mutex<Vec<Piece>>>) {
    let mut links = JoinSet::new();
    let mut connection = 0;
    while let Ok((function, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
            continue;
        };
        let _ = (function.set_nodelay(true), server.set_nodelay(true));
        let (from_function, to_function) = function.into_split();
        let (from_server, to_server) = server.into_split();
        let note = |from| {
            let pieces = Arc::clone(&pieces);
            move |bytes: &[u8]| {
                let piece = Piece {
                    connection,
                    at: Instant::now(),
                    from,
                    bytes: bytes.to_vec(),
                };
                pieces
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(piece);
            }
        };
        links.spawn(pump(from_function, to_server, note(From::Function)));
        links.spawn(pump(from_server, to_function, note(From::Server)));
        connection += 1;
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, note: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        note(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_millis(100);

    /// A server that says `times` words, one after the other.
    async fn talking(times: usize) -> Wiretap {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = server.local_addr().expect("its port").port();
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("the wiretap");
            for _ in 0..times {
                tokio::time::sleep(SILENCE / 10).await;
                stream.write_all(b"word").await.expect("still heard");
            }
            // Open, and silent.
            std::future::pending::<()>().await;
        });
        Wiretap::before(port).await.expect("a port")
    }

    #[tokio::test]
    async fn silence_is_after_the_last_word() {
        let wiretap = talking(20).await;
        let _function = TcpStream::connect(("127.0.0.1", wiretap.port())).await;
        assert!(wiretap.falls_silent(SILENCE, SILENCE * 100).await);
        let heard: usize = wiretap.take().iter().map(|piece| piece.bytes.len()).sum();
        assert_eq!(heard, 20 * b"word".len());
    }

    #[tokio::test]
    async fn who_goes_on_and_on_is_not_waited_for() {
        let wiretap = talking(usize::MAX).await;
        let _function = TcpStream::connect(("127.0.0.1", wiretap.port())).await;
        assert!(!wiretap.falls_silent(SILENCE, SILENCE * 3).await);
    }
}
