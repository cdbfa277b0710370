//! One direction of a connection: bytes are written half a round trip after they were read.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
};

use super::{Flow, timer::Timer};
use crate::limits::MAX_IN_FLIGHT;

/// Why a direction ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Over {
    /// The sender closed its side, and the close was forwarded.
    Closed,
    /// The bytes of a `cut` are used up, or one side reset the connection: it must be reset.
    Broken,
}

/// One direction.
pub(super) struct Pump<'a> {
    pub(super) from: ReadHalf<'a>,
    pub(super) to: WriteHalf<'a>,
    pub(super) delay: Duration,
    pub(super) flow: watch::Receiver<Flow>,
    /// Whether the bytes of a `cut` are counted here.
    pub(super) counts: bool,
}

/// Bytes in flight; empty for the sender's close.
type Parcel = (Instant, Vec<u8>);

impl Pump<'_> {
    /// Forwards bytes until the sender closes, and reports each delivery and the close.
    pub(super) async fn run(
        mut self,
        mut delivered: impl FnMut(usize),
        mut ended: impl FnMut(),
    ) -> Over {
        match self.carry(&mut delivered, &mut ended).await {
            Ok(over) => over,
            Err(_) => Over::Broken,
        }
    }

    async fn carry(
        &mut self,
        delivered: &mut impl FnMut(usize),
        ended: &mut impl FnMut(),
    ) -> io::Result<Over> {
        let timer = Timer::new()?;
        let mut on_the_way: VecDeque<Parcel> = VecDeque::new();
        let mut in_flight = 0;
        let mut open = true;
        let mut passed = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let flow = *self.flow.borrow_and_update();
            if let Flow::Dark { .. } = flow {
                // Reading stops, too: a sender that continues fills its own buffers.
                if self.flow.changed().await.is_err() {
                    return Ok(Over::Broken);
                }
                continue;
            }
            let due = on_the_way.front().map(|(due, _)| *due);
            tokio::select! {
                changed = self.flow.changed() => if changed.is_err() { return Ok(Over::Broken) },
                () = wait_for(&timer, due) => {
                    let Some((_, bytes)) = on_the_way.pop_front() else { continue };
                    if bytes.is_empty() {
                        self.to.shutdown().await?;
                        return Ok(Over::Closed);
                    }
                    let allowed = match flow {
                        Flow::Cut(limit) if self.counts => {
                            usize::try_from(limit.saturating_sub(passed)).unwrap_or(usize::MAX)
                        }
                        _ => usize::MAX,
                    };
                    let part = &bytes[..bytes.len().min(allowed)];
                    self.to.write_all(part).await?;
                    delivered(part.len());
                    in_flight -= bytes.len();
                    if let Flow::Cut(_) = flow {
                        passed += part.len() as u64;
                    }
                    if part.len() < bytes.len() {
                        return Ok(Over::Broken);
                    }
                }
                read = self.from.read(&mut buffer), if open && in_flight < MAX_IN_FLIGHT => {
                    open = matches!(read, Ok(1..));
                    if !open {
                        ended();
                    }
                    let read = read?;
                    in_flight += read;
                    on_the_way.push_back((Instant::now() + self.delay, buffer[..read].to_vec()));
                }
            }
        }
    }
}

async fn wait_for(timer: &Timer, due: Option<Instant>) {
    match due {
        Some(due) => timer.until(due).await,
        None => std::future::pending().await,
    }
}
