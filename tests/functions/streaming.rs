//! A test function with a streamed response: every part of the body is a separate query, which runs after the handler
//! has returned.

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, PgPool},
};
use futures_util::{Stream, StreamExt, stream};
use lambda_runtime::StreamResponse;
use serde::Deserialize;
use std::pin::Pin;

type Parts = Pin<Box<dyn Stream<Item = Result<String, Error>> + Send>>;

/// The number of parts, and what happens after the last one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Wanted {
    Whole(i64),
    Then { parts: i64, then: Ending },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    /// The body is complete.
    Complete,
    /// A statement that the server rejects.
    Fail,
    /// A panic.
    Panic,
    /// A statement that takes half a minute.
    Hang,
}

#[db_handler]
async fn count_up(event: LambdaEvent<Wanted>, db: &PgPool) -> Result<StreamResponse<Parts>, Error> {
    let (parts, end) = match event.payload {
        Wanted::Whole(parts) => (parts, Ending::Complete),
        Wanted::Then { parts, then } => (parts, then),
    };
    let db = db.clone();
    let last = end_with(end, db.clone());
    let parts = stream::iter(1..=parts).then(move |number| {
        let db = db.clone();
        async move {
            let part: String = sqlx::query_scalar("SELECT $1::text || ' ' FROM pg_sleep(0.05)")
                .bind(number)
                .fetch_one(&db)
                .await?;
            Ok(part)
        }
    });
    let last = stream::once(last).filter_map(async |last| last.transpose());
    Ok(StreamResponse::from(parts.chain(last).boxed()))
}

async fn end_with(end: Ending, db: PgPool) -> Result<Option<String>, Error> {
    match end {
        Ending::Complete => {}
        Ending::Fail => {
            sqlx::query("SELECT no_such_column").execute(&db).await?;
        }
        Ending::Panic => panic!("the body was told to panic"),
        Ending::Hang => {
            sqlx::query("SELECT pg_sleep(30)").execute(&db).await?;
        }
    }
    Ok(None)
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    db_handler::run(count_up).await
}
