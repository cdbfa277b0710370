//! A relay to a MongoDB server that records every command.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Offsets in a message of MongoDB's wire protocol, `OP_MSG`.
const HEADER: usize = 16;
const OP_MSG: i32 = 2013;
/// After the flags, the kind of the first section, the length of its document and the type of the first element.
const NAME: usize = HEADER + 4 + 1 + 4 + 1;

/// Forwards everything to a server, and records the names of the commands: `find`, `hello` ...
#[derive(Debug)]
pub struct MongoRelay {
    address: SocketAddr,
    commands: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl MongoRelay {
    /// A relay to `port` on 127.0.0.1.
    ///
    /// # Panics
    /// When no loopback port is free.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free loopback port");
        let address = listener.local_addr().expect("the bound port");
        let commands = Arc::<Mutex<Vec<String>>>::default();
        let book = Arc::clone(&commands);
        let task = tokio::spawn(async move {
            // All connections end with this task.
            let mut links = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                links.spawn(link(client, port, Arc::clone(&book)));
            }
        });
        Self {
            address,
            commands,
            task: task.abort_handle(),
        }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Takes the names of the commands since the last call.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for MongoRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn link(client: TcpStream, port: u16, book: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    tokio::select! {
        done = record(from_client, to_server, &book) => done,
        done = tokio::io::copy(&mut from_server, &mut to_client) => done.map(drop),
    }
}

async fn record(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    book: &Mutex<Vec<String>>,
) -> io::Result<()> {
    loop {
        let length = from.read_i32_le().await?;
        let size = usize::try_from(length).map_err(io::Error::other)?;
        let mut message = length.to_le_bytes().to_vec();
        message.resize(size, 0);
        from.read_exact(&mut message[4..]).await?;
        if let Some(name) = command(&message) {
            book.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(name);
        }
        to.write_all(&message).await?;
    }
}

fn command(message: &[u8]) -> Option<String> {
    let kind = i32::from_le_bytes(message.get(12..HEADER)?.try_into().ok()?);
    if kind != OP_MSG {
        // The first message on a connection has an older format.
        return Some("hello".to_owned());
    }
    let name = message.get(NAME..)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}
