//! Uses of parameters that a plain `async fn` permits: temporaries at the end, early returns, `?`, transactions.

#![deny(warnings)]

use std::sync::Mutex;

use db_handler::sqlx::{Executor, PgConnection, PgPool};
use db_handler::{Context, Error, LambdaEvent, db_handler};

#[db_handler]
async fn temporary_at_the_end(
    event: LambdaEvent<Mutex<Vec<u8>>>,
    db: &PgPool,
) -> Result<usize, Error> {
    db.execute("SELECT 1").await?;
    Ok(event.payload.lock().unwrap().len())
}

#[db_handler]
async fn early_return(
    event: LambdaEvent<bool>,
    conn: &mut PgConnection,
    db: &PgPool,
) -> Result<u64, Error> {
    if event.payload {
        return Ok(0);
    }
    let first = conn.execute("SELECT 1").await?;
    db.execute("SELECT 1").await?;
    (&mut *conn).execute("SELECT 1").await?;
    Ok(first.rows_affected())
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

fn is_send<T: Send>(_: T) {}

pub(crate) fn main() {
    is_send(temporary_at_the_end(event(Mutex::new(vec![]))));
    is_send(early_return(event(true)));
}
