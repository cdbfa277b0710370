//! Stops dropped operations on the server.
//!
//! When an operation is dropped, the driver only closes its connection. A `mongod` notices that by itself only for
//! reads ("Client Disconnection" in MongoDB's manual), and a server behind a proxy never does.

use super::{MongoHandle, MongoResource, options};
use crate::config::MONGODB_RETURN;
use ::mongodb::{
    Client,
    bson::{Bson, Document, doc},
    error::Error,
    options::ClientOptions,
};
use tokio::time::timeout;

impl<T: MongoHandle> MongoResource<T> {
    /// Stops every operation that the server still runs for this client, which no invocation holds any more.
    pub(super) async fn cancel_running_ops(&self) {
        let Some(mark) = mark(&self.options) else {
            return;
        };
        // An operation dropped a moment ago may still hold the connection that this needs.
        let _ = timeout(MONGODB_RETURN, self.state.quiet()).await;
        let stopped = if self.state.usage().in_use < self.settings.max {
            stop(&self.client, mark).await
        } else {
            // The operations to stop hold every connection: open one more.
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

/// Stops the operations of connections labelled with `mark`, and returns how many there were.
///
/// A user needs no privilege to list and stop their own operations.
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

/// The ids of the operations in a reply to `currentOp` that run on connections labelled with `mark`.
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
                // Not the `currentOp` itself.
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
