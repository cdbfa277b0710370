//! What every event tells the lifecycle, whatever platform it came from.

pub(crate) mod response;

use crate::util::clock;
use lambda_runtime::LambdaEvent;
use tokio::time::Instant;

/// One invocation, as far as the lifecycle needs to know it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Invocation {
    /// The platform's id of the request; empty if there is none.
    pub request_id: String,
    /// When the platform ends the invocation; `None` if it is unknown.
    pub deadline: Option<Instant>,
}

/// An event that a handler takes by value.
///
/// Implement it for an event of your own to tell the lifecycle about its deadline; an unknown
/// deadline ([`Invocation::default`]) is fine.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event: the parameter taken by value must be one",
    note = "an AWS Lambda handler takes `LambdaEvent<T>`, with a `T` that implements `serde::Deserialize`",
    note = "to be lent a resource, take it by reference: `db: &PgPool`"
)]
pub trait Event {
    /// What the event says about its invocation.
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
