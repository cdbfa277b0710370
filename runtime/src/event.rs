//! Events: what the lifecycle needs to know of them on every platform.

pub(crate) mod response;

use crate::util::clock;
use lambda_runtime::LambdaEvent;
use tokio::time::Instant;

/// The invocation that an event belongs to.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Invocation {
    /// The platform's request ID; empty if there is none.
    pub request_id: String,
    /// The deadline at which the platform ends the invocation; `None` if it is unknown.
    pub deadline: Option<Instant>,
}

/// An event that a handler takes by value.
///
/// Implement it for an event of your own to pass its deadline to the lifecycle. An unknown deadline
/// ([`Invocation::default`]) is fine.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event: the parameter taken by value must be one",
    note = "an AWS Lambda handler takes `LambdaEvent<T>`, with a `T` that implements `serde::Deserialize`",
    note = "to inject a resource, take it by reference: `db: &PgPool`"
)]
pub trait Event {
    /// Returns the invocation of this event.
    fn invocation(&self) -> Invocation;
}

impl<T> Event for LambdaEvent<T> {
    fn invocation(&self) -> Invocation {
        Invocation {
            request_id: self.context.request_id.clone(),
            deadline: clock::deadline_from_epoch_ms(self.context.deadline),
        }
    }
}
