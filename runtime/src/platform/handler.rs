//! What `run` can run, whatever its event, answer and error types are.

use crate::{
    answer::{boxed, driver_kind},
    error::{Error, ErrorKind, Stage},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryFutureExt, TryStreamExt};
use lambda_runtime::{
    Context, Diagnostic, FunctionResponse, IntoFunctionResponse, LambdaEvent, Runtime,
    layers::TracingLayer, service_fn,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{error::Error as StdError, fmt::Debug, future::Future, marker::PhantomData};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A function from an event to an answer: `async fn(LambdaEvent<T>) -> Result<R, E>`.
///
/// `Kind` is inferred. Sealed: implemented for functions and closures that `lambda_runtime` could
/// run, and that can be sent between threads.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler that can be run",
    label = "not a handler",
    note = "a handler is an `async fn(LambdaEvent<T>) -> Result<R, E>` with a `T` that can be deserialized, an `R` that can be serialized and an `E: Into<lambda_runtime::Diagnostic>`",
    note = "its future must be `Send`"
)]
pub trait Handler<Kind>: sealed::Run<Kind> {}

impl<Kind, H: sealed::Run<Kind>> Handler<Kind> for H {}

/// The event, answer and error types of a handler for `LambdaEvent<T>`.
#[derive(Debug)]
#[allow(
    clippy::type_complexity,
    reason = "one phantom of all types that `run` infers"
)]
pub struct OfLambdaEvent<T, R, E, B, S>(PhantomData<fn(T) -> (R, E, B, S)>);

pub(super) mod sealed {
    use super::{Context, Diagnostic, Error, Future};

    /// Keeps [`Handler`](super::Handler) for what is known here.
    pub trait Run<Kind>: Clone + Send + Sync + 'static {
        /// Answers the events of AWS Lambda until the platform ends it.
        fn serve(self) -> impl Future<Output = Result<(), Error>> + Send;

        /// Answers one event in JSON.
        fn answer(
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
        let handler = service_fn(move |event: LambdaEvent<T>| {
            let answer = self(event);
            async move { answer.await.map_err(diagnose) }
        });
        Runtime::new(handler)
            .layer(TracingLayer::new())
            .layer(super::lambda::FinallyLayer)
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

    async fn answer(&self, event: &str, context: Context) -> Result<Vec<u8>, Diagnostic> {
        let payload: T = serde_json::from_str(event).map_err(|error| {
            Error::new(
                ErrorKind::Event,
                format!("the event is not what the handler expects: {error}"),
            )
        })?;
        let answer = self(LambdaEvent::new(payload, context))
            .await
            .map_err(diagnose)?;
        match answer.into_response() {
            FunctionResponse::BufferedResponse(body) => {
                serde_json::to_vec(&body).map_err(|error| {
                    Error::new(
                        ErrorKind::Handler,
                        format!("the answer cannot be written as JSON: {error}"),
                    )
                    .into()
                })
            }
            FunctionResponse::StreamingResponse(response) => {
                collect(response.stream).await.map_err(diagnose::<BoxError>)
            }
        }
    }
}

async fn collect<S, D, SE>(stream: S) -> Result<Vec<u8>, BoxError>
where
    S: Stream<Item = Result<D, SE>> + Unpin + Send,
    D: Into<Bytes> + Send,
    SE: Into<BoxError> + Send,
{
    stream
        .map(|part| part.map_err(Into::into))
        .try_fold(Vec::new(), async |mut whole: Vec<u8>, part| {
            whole.extend_from_slice(&part.into());
            Ok(whole)
        })
        .await
}

/// What the platform is told. An error in a box keeps its readable type, where `lambda_runtime` alone
/// would name the box's type.
fn diagnose<E: Into<Diagnostic> + 'static>(error: E) -> Diagnostic {
    let readable = boxed(&error).and_then(|boxed| {
        let kind = match boxed.downcast_ref::<Error>() {
            Some(ours) => Some(ours.kind()),
            None => driver_kind(boxed),
        };
        Some(Diagnostic {
            error_type: kind?.error_type().to_owned(),
            error_message: boxed.to_string(),
        })
    });
    readable.unwrap_or_else(|| error.into())
}
