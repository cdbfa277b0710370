//! Stopping on the server what nobody waits for any more.
//!
//! The driver closes the connection of an operation that is dropped, and no more. A `mongod` notices
//! that by itself for reads only ("Client Disconnection" in MongoDB's manual), and a server behind a
//! proxy for nothing at all.

use super::{Connected, Lent, options};
use crate::config::MONGODB_RETURN;
use ::mongodb::{
    Client,
    bson::{Bson, Document, doc},
    error::Error,
    options::ClientOptions,
};
use tokio::time::timeout;

impl<T: Lent> Connected<T> {
    /// Ends every operation that the server still runs for this client. Nobody has leased it any more.
    pub(super) async fn stop_what_runs(&self) {
        let Some(mark) = mark(&self.options) else {
            return;
        };
        // What was dropped a moment ago leaves its place to the one that asks.
        let _ = timeout(MONGODB_RETURN, self.state.quiet()).await;
        let stopped = if self.state.usage().in_use < self.settings.max {
            stop(&self.client, mark).await
        } else {
            // What is to be stopped holds every connection: one more has to be opened.
            self.stop_from_outside(mark).await
        };
        match stopped {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "stopped what still ran on MongoDB"),
            Err(error) => tracing::warn!(%error, "cannot stop what may still run on MongoDB"),
        }
    }

    async fn stop_from_outside(&self, mark: &str) -> Result<usize, Error> {
        let mut options = self.options.clone();
        options.driver_info = Some(options::mark());
        options.cmap_event_handler = None;
        options.sdam_event_handler = None;
        options.min_pool_size = Some(0);
        options.max_pool_size = Some(1);
        let client = Client::with_options(options)?;
        let stopped = stop(&client, mark).await;
        client.shutdown().immediate(true).await;
        stopped
    }
}

fn mark(options: &ClientOptions) -> Option<&str> {
    options.driver_info.as_ref()?.platform.as_deref()
}

/// Ends the operations of connections that carry `mark`, and says how many there were.
///
/// A user may look at and end operations of their own without any privilege.
async fn stop(client: &Client, mark: &str) -> Result<usize, Error> {
    let admin = client.database("admin");
    let running = admin
        .run_command(doc! { "currentOp": 1, "$ownOps": true })
        .await?;
    let mut count = 0;
    for operation in ours(&running, mark) {
        admin
            .run_command(doc! { "killOp": 1, "op": operation.clone() })
            .await?;
        count += 1;
    }
    Ok(count)
}

/// The numbers of the operations in an answer to `currentOp` that run for connections with `mark`.
fn ours<'a>(running: &'a Document, mark: &str) -> impl Iterator<Item = &'a Bson> {
    let operations = running.get_array("inprog").into_iter().flatten();
    operations
        .filter_map(Bson::as_document)
        .filter(move |operation| {
            operation.get_bool("active").unwrap_or(false)
                && operation
                    .get_document("clientMetadata")
                    .and_then(|client| client.get_str("platform"))
                    .is_ok_and(|platform| platform.ends_with(mark))
                // Not the one that asks.
                && !operation
                    .get_document("command")
                    .is_ok_and(|command| command.contains_key("currentOp"))
        })
        .filter_map(|operation| operation.get("opid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_for_us_is_stopped() {
        let operation = |opid: i32, active: bool, platform: &str, command: &str| {
            doc! {
                "opid": opid,
                "active": active,
                "clientMetadata": { "platform": platform },
                "command": { command: 1 },
            }
        };
        let running = doc! { "inprog": [
            operation(1, true, "rustc 1.95 | our-mark", "find"),
            operation(2, true, "rustc 1.95 | their-mark", "find"),
            operation(3, false, "rustc 1.95 | our-mark", "find"),
            operation(4, true, "rustc 1.95 | our-mark", "currentOp"),
            doc! { "opid": 5, "active": true, "desc": "a thread of the server's own" },
        ] };
        let stopped: Vec<_> = ours(&running, "our-mark").collect();
        assert_eq!(stopped, [&Bson::Int32(1)]);
        assert_eq!(ours(&doc! { "ok": 0 }, "our-mark").count(), 0);
    }
}
