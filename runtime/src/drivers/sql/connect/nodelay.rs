//! Sets `TCP_NODELAY` for sqlx 0.9.0, which does not (transact-rs/sqlx#4335; fixed by #4336, not yet released). Without
//! it, a TLS handshake with PostgreSQL and every handshake with MySQL waits twice for a delayed acknowledgement, 40 ms
//! each on Linux.
//!
//! sqlx does not expose its sockets. But it opens them in a future that is polled here, and a socket that it has just
//! opened is a TCP socket of this process whose peer has the database's port.
//!
//! With a sqlx that sets the option itself, this finds nothing to set and stops looking.
//!
//! `unsafe` is needed although `pidfd_getfd` on the own process is a safe function: container sandboxes reject that
//! call unless the process may trace others (Docker's and containerd's default profiles: moby/moby#41665,
//! containerd/containerd#4730), and without the option every handshake there costs 80 ms more. Besides, that call
//! duplicates the descriptor. The number may belong to a file by then, and closing a duplicate of a file releases the
//! file's POSIX locks, which SQLite uses.

#![allow(
    unsafe_code,
    reason = "a socket of another owner has to be borrowed by its number"
)]

use std::future::Future;

/// Drives `connecting`, and sets `TCP_NODELAY` on the socket that it opens to `port`. `None` means that the connection
/// does not use TCP.
#[cfg(unix)]
pub(in crate::drivers::sql) async fn with_nodelay<T, E>(
    port: Option<u16>,
    connecting: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    use std::{future::poll_fn, pin::pin};

    let Some(port) = port.filter(|_| !unix::is_mended()) else {
        return connecting.await;
    };
    let mut opening = unix::Opening::begin();
    let mut connecting = pin!(connecting);
    let output = poll_fn(|cx| {
        let polled = connecting.as_mut().poll(cx);
        if polled.is_pending() {
            opening.look_for_socket(port);
        }
        polled
    })
    .await;
    // A failed attempt proves nothing: a socket found after it belongs to another connection.
    if output.is_ok() {
        opening.succeeded(port);
    }
    output
}

/// Sets `TCP_NODELAY` on a socket that other code is opening to `port`. Returns whether one was found; call it during
/// the opening.
#[cfg(unix)]
pub(in crate::drivers::sql) fn set_on_all(port: u16) -> bool {
    !unix::is_mended() && unix::set_on_all(port) == unix::Seen::Mended
}

#[cfg(not(unix))]
pub(in crate::drivers::sql) async fn with_nodelay<T, E>(
    _: Option<u16>,
    connecting: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    connecting.await
}

#[cfg(not(unix))]
pub(in crate::drivers::sql) fn set_on_all(_: u16) -> bool {
    false
}

#[cfg(unix)]
mod unix {
    use socket2::SockRef;
    use std::{
        os::fd::{BorrowedFd, RawFd},
        sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    };

    /// A function has few open descriptors, and a new one gets the lowest free number.
    const LOOKED_AT: RawFd = 256;
    /// The maximum number of scans while there are other sockets to the same port, each of which may be the new one: a
    /// login is polled a thousand times while it computes its proof of the password.
    const MOST_LOOKS: u32 = 32;

    /// Whether this sqlx sets the option itself.
    static SQLX_SETS_NODELAY: AtomicBool = AtomicBool::new(false);
    /// The descriptor of the last socket found: the next one is likely to get the same number.
    static LAST: AtomicI32 = AtomicI32::new(-1);
    static OPENING: AtomicUsize = AtomicUsize::new(0);

    pub(in crate::drivers::sql) fn is_mended() -> bool {
        SQLX_SETS_NODELAY.load(Ordering::Relaxed)
    }

    /// The result of a scan for sockets to a port.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::drivers::sql) enum Seen {
        None,
        /// All of them had the option.
        Others,
        /// At least one lacked it.
        Mended,
    }

    /// Sets the option on every socket to `port` that lacks it.
    pub(in crate::drivers::sql) fn set_on_all(port: u16) -> Seen {
        let last = LAST.load(Ordering::Relaxed);
        if last >= 0 && set_on_fd(last, port) == Some(true) {
            return Seen::Mended;
        }
        let mut seen = Seen::None;
        for number in 0..LOOKED_AT {
            match set_on_fd(number, port) {
                Some(true) => {
                    LAST.store(number, Ordering::Relaxed);
                    seen = Seen::Mended;
                }
                Some(false) if seen == Seen::None => seen = Seen::Others,
                _ => {}
            }
        }
        seen
    }

    /// Sets the option on descriptor `number`. Returns whether it was missing; `None` if `number` is not a socket to
    /// `port`.
    fn set_on_fd(number: RawFd, port: u16) -> Option<bool> {
        // SAFETY: the number may not be open, and other code may close it meanwhile. It is used only for three system
        // calls, which fail if it is closed or not a TCP socket. In the worst case another connection to the same port
        // gets the option too: nothing is read, written or closed.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&borrowed);
        // The check that most descriptors fail comes first: not a TCP socket, or the option is set.
        let delays = !socket.tcp_nodelay().ok()?;
        let peer = socket.peer_addr().ok()?.as_socket()?;
        if peer.port() != port {
            return None;
        }
        if delays {
            socket.set_tcp_nodelay(true).ok()?;
        }
        Some(delays)
    }

    /// A socket that is being opened.
    pub(in crate::drivers::sql) struct Opening {
        alone: bool,
        found: bool,
        looks: u32,
    }

    impl Opening {
        pub(in crate::drivers::sql) fn begin() -> Self {
            Self {
                alone: OPENING.fetch_add(1, Ordering::AcqRel) == 0,
                found: false,
                looks: 0,
            }
        }

        pub(in crate::drivers::sql) fn look_for_socket(&mut self, port: u16) {
            if self.found || self.looks == MOST_LOOKS {
                return;
            }
            let seen = set_on_all(port);
            self.found = seen == Seen::Mended;
            self.looks += u32::from(seen != Seen::None);
        }

        /// Records that sqlx sets the option, if no socket lacked it and exactly one has it.
        pub(in crate::drivers::sql) fn succeeded(&self, port: u16) {
            if self.found || !self.alone {
                return;
            }
            let set = (0..LOOKED_AT).filter(|&number| set_on_fd(number, port) == Some(false));
            if set.count() == 1 {
                SQLX_SETS_NODELAY.store(true, Ordering::Relaxed);
            }
        }
    }

    impl Drop for Opening {
        fn drop(&mut self) {
            OPENING.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{TcpListener, TcpStream};
    use tokio::task::yield_now;

    #[tokio::test]
    async fn the_socket_that_is_being_opened_sends_without_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connected = with_nodelay(Some(port), async {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
            assert!(!stream.nodelay().expect("an option"));
            // Only data sent after the first wait would be delayed.
            yield_now().await;
            Ok::<_, ()>(stream)
        })
        .await
        .expect("connects");
        assert!(connected.nodelay().expect("an option"));
    }

    #[tokio::test]
    async fn other_sockets_are_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let other = TcpStream::connect(address).expect("a listener");
        assert!(!set_on_all(address.port().wrapping_add(1)));
        assert!(!SockRef::from(&other).tcp_nodelay().expect("an option"));
    }
}
