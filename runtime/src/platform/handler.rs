//! Handlers that `run` accepts, of any event, response and error type.

use super::{
    payload::Payload,
    serve::serve,
    stream::{Body, collect},
};
use crate::{
    error::{Error, ErrorKind, Stage},
    event::response::diagnose,
};
use bytes::Bytes;
use futures_util::{Stream, TryFutureExt};
use lambda_runtime::{
    Context, Diagnostic, FunctionResponse, IntoFunctionResponse, LambdaEvent, Runtime,
    StreamResponse, layers::TracingLayer, service_fn,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::to_raw_value;
use std::{error::Error as StdError, fmt::Debug, future::Future, marker::PhantomData};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A function from an event to a response: `async fn(LambdaEvent<T>) -> Result<R, E>`.
///
/// `Kind` is inferred. Sealed: implemented for functions and closures that `lambda_runtime` can run and that
/// are `Send`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler that can be run",
    label = "not a handler",
    note = "a handler is an `async fn(LambdaEvent<T>) -> Result<R, E>` with a `T` that can be deserialized, an `R` that can be serialized and an `E: Into<lambda_runtime::Diagnostic>`",
    note = "its future must be `Send`"
)]
pub trait Handler<Kind>: sealed::Run<Kind> {}

impl<Kind, H: sealed::Run<Kind>> Handler<Kind> for H {}

/// The event, response and error types of a handler for `LambdaEvent<T>`.
#[derive(Debug)]
#[allow(
    clippy::type_complexity,
    reason = "one phantom of all types that `run` infers"
)]
pub struct OfLambdaEvent<T, R, E, B, S>(PhantomData<fn(T) -> (R, E, B, S)>);

pub(super) mod sealed {
    use super::{Context, Diagnostic, Error, Future};

    /// Seals [`Handler`](super::Handler).
    pub trait Run<Kind>: Clone + Send + Sync + 'static {
        /// Serves the events of AWS Lambda until the platform ends the process.
        fn serve(self) -> impl Future<Output = Result<(), Error>> + Send;

        /// Handles one event in JSON.
        fn respond(
            &self,
            event: &str,
            context: Context,
        ) -> impl Future<Output = Result<Vec<u8>, Diagnostic>> + Send;
    }
}

impl<F, Fut, T, R, E, B, S, D, SE> sealed::Run<OfLambdaEvent<T, R, E, B, S>> for F
where
    F: Fn(LambdaEvent<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    R: IntoFunctionResponse<B, S> + Send + 'static,
    E: Into<Diagnostic> + Send + 'static,
    B: Serialize + Send + 'static,
    S: Stream<Item = Result<D, SE>> + Unpin + Send + 'static,
    D: Into<Bytes> + Send + 'static,
    SE: Into<BoxError> + Send + Debug + 'static,
{
    fn serve(self) -> impl Future<Output = Result<(), Error>> + Send {
        let handler = service_fn(move |event: LambdaEvent<Payload>| {
            let handler = self.clone();
            serve(async move {
                let LambdaEvent { payload, context } = event;
                // Serialized here, because `lambda_runtime`'s event loop ends with a response that it cannot
                // serialize.
                Ok::<FunctionResponse<_, Body<S>>, _>(
                    match respond(&handler, payload.json()?, context).await? {
                        FunctionResponse::BufferedResponse(body) => {
                            FunctionResponse::BufferedResponse(
                                to_raw_value(&body).map_err(not_json)?,
                            )
                        }
                        FunctionResponse::StreamingResponse(response) => {
                            FunctionResponse::StreamingResponse(StreamResponse {
                                metadata_prelude: response.metadata_prelude,
                                stream: Body::new(response.stream),
                            })
                        }
                    },
                )
            })
        });
        Runtime::new(handler)
            .layer(TracingLayer::new())
            .layer(super::lambda::CleanupLayer)
            .run_concurrent()
            .map_err(|error| {
                Error::new(
                    ErrorKind::Platform,
                    format!("the Lambda runtime interface failed: {error}"),
                )
                .at(Stage::Platform)
                .caused_by(error)
            })
    }

    async fn respond(&self, event: &str, context: Context) -> Result<Vec<u8>, Diagnostic> {
        let deadline = context.deadline;
        match respond(self, event, context).await? {
            FunctionResponse::BufferedResponse(body) => serde_json::to_vec(&body).map_err(not_json),
            FunctionResponse::StreamingResponse(response) => {
                collect(response.stream, deadline).await
            }
        }
    }
}

/// Calls `handler` with an event in JSON.
async fn respond<F, Fut, T, R, E, B, S>(
    handler: &F,
    event: &str,
    context: Context,
) -> Result<FunctionResponse<B, S>, Diagnostic>
where
    F: Fn(LambdaEvent<T>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
    T: DeserializeOwned,
    R: IntoFunctionResponse<B, S>,
    E: Into<Diagnostic> + 'static,
{
    let payload: T = serde_json::from_str(event).map_err(unexpected_event)?;
    let response = handler(LambdaEvent::new(payload, context)).await;
    Ok(response.map_err(diagnose)?.into_response())
}

fn not_json(error: serde_json::Error) -> Diagnostic {
    let message = format!("the response cannot be serialized as JSON: {error}");
    Error::new(ErrorKind::Handler, message)
        .caused_by(error)
        .into()
}

/// Creates the error of an event that the handler does not accept.
pub(super) fn unexpected_event(error: impl std::fmt::Display) -> Diagnostic {
    Error::new(
        ErrorKind::Event,
        format!("the event is not what the handler expects: {error}"),
    )
    .into()
}
