//! Streamed response bodies: a body ends before the deadline, and one that fails is an aborted transfer for the
//! caller.
//!
//! `lambda_runtime` pumps the body in a task of its own. It sends an error as data inside the body, and any end
//! of the body, also a panic, completes the transfer normally. So a failed body does not end. It requests that
//! the transfer be aborted: the POST is dropped, which closes its connection, and the body ends after that.

use crate::{
    config::{BODY_DROP, RESERVE},
    error::{Error, ErrorKind},
    event::response::describe,
    lifecycle::scope::InvocationScope,
    util::{catch_panic, clock},
};
use bytes::Bytes;
use futures_util::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    future::{BoxFuture, Either, select},
};
use lambda_runtime::Diagnostic;
use std::{
    error::Error as StdError,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

type BoxError = Box<dyn StdError + Send + Sync>;

tokio::task_local! {
    static TRANSFER: Arc<Transfer>;
}

/// The state of an invocation's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is no streamed body so far.
    NoBody,
    /// The body is being sent, and has to end by `stop_at`.
    Flowing { stop_at: Option<Instant> },
    /// The body has failed, and waits for the transfer to be aborted.
    Failed,
    /// The POST has been dropped: the transfer is aborted.
    Torn,
}

/// The response of one invocation, shared by the layer that posts it and the body that is posted.
#[derive(Debug)]
pub(super) struct Transfer {
    request_id: String,
    deadline_ms: u64,
    phase: watch::Sender<Phase>,
}

impl Transfer {
    pub(super) fn new(context: &lambda_runtime::Context) -> Arc<Self> {
        Arc::new(Self {
            request_id: context.request_id.clone(),
            deadline_ms: context.deadline,
            phase: watch::Sender::new(Phase::NoBody),
        })
    }

    /// Drives `posting`, which creates the response and posts it. Returns `None` if the body failed or was too
    /// late: then the transfer is aborted, and the body has been dropped.
    pub(super) async fn drive<F: Future>(self: Arc<Self>, posting: F) -> Option<F::Output> {
        {
            let posting = pin!(TRANSFER.scope(Arc::clone(&self), posting));
            let interrupted = pin!(self.interrupted());
            if let Either::Left((posted, _)) = select(posting, interrupted).await {
                return Some(posted);
            }
            // The end of this block drops the POST, which closes its connection.
        }
        self.phase.send_replace(Phase::Torn);
        // Until the body is dropped, it may use connections that the cleanup closes.
        if timeout(BODY_DROP, self.phase.closed()).await.is_err() {
            tracing::warn!(
                request_id = self.request_id,
                "a streamed body is still there after its transfer was broken off"
            );
        }
        None
    }

    /// Waits until the body has failed or its time is over.
    async fn interrupted(&self) {
        let mut phase = self.phase.subscribe();
        let stop_at = {
            let begun = phase.wait_for(|phase| *phase != Phase::NoBody).await;
            match begun.as_deref() {
                Ok(Phase::Flowing { stop_at }) => *stop_at,
                _ => None,
            }
        };
        let failed = phase.wait_for(|phase| *phase == Phase::Failed).map(drop);
        let Some(stop_at) = stop_at else {
            return failed.await;
        };
        if timeout_at(stop_at, failed).await.is_err() {
            tracing::error!(
                request_id = self.request_id,
                "the streamed body was still being sent shortly before the deadline: the transfer is broken off"
            );
        }
    }

    fn body_failed(&self, reason: &str) {
        tracing::error!(
            request_id = self.request_id,
            error = reason,
            "the streamed body failed: the transfer is broken off"
        );
        self.phase.send_replace(Phase::Failed);
    }
}

/// Returns when a body has to end: when the handlers of its invocation would be cancelled.
fn stop_at(deadline_ms: u64) -> Option<Instant> {
    let of_handlers = InvocationScope::current().and_then(|scope| scope.stop_at());
    of_handlers.or_else(|| clock::deadline_from_epoch_ms(deadline_ms)?.checked_sub(RESERVE))
}

/// A streamed body that `lambda_runtime` pumps.
pub(super) struct Body<S> {
    /// `None` after its end.
    stream: Option<S>,
    /// The failure, until it has been reported.
    failure: Option<String>,
    link: Option<Link>,
}

/// The connection between a body and its transfer.
struct Link {
    transfer: Arc<Transfer>,
    /// Resolves when the transfer has been aborted; `None` after that.
    torn: Option<BoxFuture<'static, ()>>,
    /// Shows the transfer that the body still exists.
    _here: watch::Receiver<Phase>,
}

impl<S> Body<S> {
    /// Creates a body. Call it in the task that handles the event.
    pub(super) fn new(stream: S) -> Self {
        let link = TRANSFER.try_with(Arc::clone).ok().map(|transfer| {
            let here = transfer.phase.subscribe();
            let mut phase = here.clone();
            transfer.phase.send_replace(Phase::Flowing {
                stop_at: stop_at(transfer.deadline_ms),
            });
            let torn = async move {
                // An error means that the transfer no longer exists.
                let _ = phase.wait_for(|phase| *phase == Phase::Torn).await;
            };
            Link {
                transfer,
                torn: Some(torn.boxed()),
                _here: here,
            }
        });
        Self {
            stream: Some(stream),
            failure: None,
            link,
        }
    }

    /// Drops the stream, and catches a panic of its destructor.
    fn end(&mut self) {
        let stream = self.stream.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(stream))) {
            tracing::error!(
                error = catch_panic::message(&*panic),
                "a streamed body panicked when it was dropped"
            );
        }
    }
}

impl Link {
    fn poll_torn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(torn) = &mut self.torn {
            match torn.poll_unpin(cx) {
                Poll::Ready(()) => self.torn = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl<S, D, E> Stream for Body<S>
where
    S: Stream<Item = Result<D, E>> + Unpin,
    D: Into<Bytes>,
    E: Into<BoxError>,
{
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = self.get_mut();
        // First, so that aborting the transfer wakes a body that waits for data.
        if let Some(link) = &mut body.link
            && link.poll_torn(cx).is_ready()
        {
            body.end();
            // Nothing follows the data that was sent, not even the end marker: the pump stops when it cannot
            // send this chunk.
            return Poll::Ready(Some(Ok(Bytes::new())));
        }
        let Some(stream) = &mut body.stream else {
            return match (&body.link, body.failure.take()) {
                (Some(link), Some(reason)) => {
                    link.transfer.body_failed(&reason);
                    Poll::Pending
                }
                (Some(_), None) => Poll::Pending,
                (None, _) => Poll::Ready(None),
            };
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            stream
                .poll_next_unpin(cx)
                .map_ok(Into::into)
                .map_err(Into::into)
        }));
        let error: BoxError = match polled {
            Ok(Poll::Ready(Some(Err(error)))) => error,
            Ok(Poll::Ready(None)) => {
                body.end();
                return Poll::Ready(None);
            }
            Ok(polled) => return polled,
            Err(panic) => format!("panicked: {}", catch_panic::message(&*panic)).into(),
        };
        body.end();
        if body.link.is_none() {
            return Poll::Ready(Some(Err(error)));
        }
        // The empty chunk delays the failure: the pump polls again after it has sent the chunk before, so that
        // the abort loses no data that was already produced.
        body.failure = Some(describe(&*error).error_message);
        Poll::Ready(Some(Ok(Bytes::new())))
    }
}

/// Collects a streamed body, for platforms that do not support streaming.
pub(super) async fn collect<S, D, E>(stream: S, deadline_ms: u64) -> Result<Vec<u8>, Diagnostic>
where
    S: Stream<Item = Result<D, E>> + Unpin,
    D: Into<Bytes>,
    E: Into<BoxError>,
{
    let collecting = stream
        .map(|part| part.map_err(|error| describe(&*error.into())))
        .try_fold(Vec::new(), async |mut whole: Vec<u8>, part| {
            whole.extend_from_slice(&part.into());
            Ok(whole)
        });
    let Some(stop_at) = stop_at(deadline_ms) else {
        return collecting.await;
    };
    timeout_at(stop_at, collecting).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::DeadlineExceeded,
            "the streamed body was stopped shortly before the deadline",
        )
        .into())
    })
}
