//! A test function for error reports and log lines. It needs no database.

use db_handler::{
    Error, LambdaEvent,
    config::Defaults,
    db_handler,
    resource::{AcquireContext, Resource},
};
use lambda_runtime::{Diagnostic, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, env, error::Error as StdError, fmt, io, sync::Arc};

/// A client that fails to open if `REFUSED` is set.
struct Ledger;

impl Resource for Ledger {
    const NAME: &'static str = "ledger";
    const DEFAULTS: Defaults = Defaults::KEPT.with_env(Some("LEDGER_URL"));

    async fn open(_: &AcquireContext) -> Result<Self, Error> {
        match env::var_os("REFUSED") {
            Some(_) => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            None => Ok(Self),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Number,
    /// A map whose keys are pairs, which JSON cannot represent.
    Unwritable,
    Panic,
    /// A boxed error with a cause.
    Boxed,
    /// An error of this crate as the cause of another error.
    Ours,
}

#[derive(Debug)]
struct Context(&'static str, Arc<dyn StdError + Send + Sync>);

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl StdError for Context {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.1)
    }
}

type Pairs = BTreeMap<(u8, u8), u8>;

/// The possible responses.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Written {
    Number(u8),
    Unwritable(Pairs),
}

#[db_handler]
async fn tell(
    event: LambdaEvent<Wanted>,
    _ledger: &Ledger,
) -> Result<Written, lambda_runtime::Error> {
    match event.payload {
        Wanted::Number => Ok(Written::Number(7)),
        Wanted::Unwritable => Ok(Written::Unwritable(Pairs::from([((1, 2), 3)]))),
        Wanted::Panic => panic!("told to panic"),
        Wanted::Boxed => Err(Box::new(Context(
            "cannot save the order",
            Arc::new(io::Error::other("disk full")),
        ))),
        Wanted::Ours => Err(Box::new(Context(
            "cannot save the order",
            Arc::new(Error::new(
                db_handler::ErrorKind::TooManyConnections,
                "no room",
            )),
        ))),
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    match env::var("RUN").as_deref() {
        // Without this crate's `run`.
        Ok("lambda_runtime") => {
            let handler = service_fn(
                async |event: LambdaEvent<Wanted>| -> Result<Value, Diagnostic> {
                    tell(event)
                        .await
                        .map(|written| json!(written))
                        .map_err(Diagnostic::from)
                },
            );
            lambda_runtime::run(handler).await.map_err(Error::other)
        }
        _ => db_handler::run(tell).await,
    }
}
