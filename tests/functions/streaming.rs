//! A function for the tests whose answer is still being made when its handler has returned: every
//! part of the body is a query of its own.

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, PgPool},
};
use futures_util::{Stream, StreamExt, stream};
use lambda_runtime::StreamResponse;
use std::pin::Pin;

type Parts = Pin<Box<dyn Stream<Item = Result<String, Error>> + Send>>;

#[db_handler]
async fn count_up(event: LambdaEvent<i64>, db: &PgPool) -> Result<StreamResponse<Parts>, Error> {
    let db = db.clone();
    let parts = stream::iter(1..=event.payload).then(move |number| {
        let db = db.clone();
        async move {
            let part: String = sqlx::query_scalar("SELECT $1::text || ' ' FROM pg_sleep(0.05)")
                .bind(number)
                .fetch_one(&db)
                .await?;
            Ok(part)
        }
    });
    Ok(StreamResponse::from(parts.boxed()))
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    db_handler::run(count_up).await
}
