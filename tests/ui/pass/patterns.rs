//! Any pattern, in any order, on events and on resources; `unsafe`, attributes, raw names.

#![deny(warnings)]
#![allow(unused_parens)]

use db_handler::sqlx::{PgConnection, PgPool};
use db_handler::{Context, Error, LambdaEvent, db_handler};

#[db_handler]
async fn destructured(
    LambdaEvent { payload, .. }: LambdaEvent<u32>,
    _: &PgPool,
) -> Result<u32, Error> {
    Ok(payload)
}

#[db_handler]
async fn event_last(
    conn: &mut PgConnection,
    db: &PgPool,
    event: LambdaEvent<u32>,
) -> Result<u32, Error> {
    let _ = (conn, db);
    Ok(event.payload)
}

#[db_handler]
async fn mutable(
    mut event: LambdaEvent<u32>,
    mut db: &PgPool,
    other: &PgPool,
) -> Result<u32, Error> {
    event.payload += 1;
    let _ = db;
    db = other;
    let _ = db;
    Ok(event.payload)
}

#[db_handler]
async fn unused(_event: LambdaEvent<u32>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn allowed(
    #[allow(unused_variables)] event: LambdaEvent<u32>,
    #[allow(unused_variables)] db: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn either(
    #[cfg(all())] event: LambdaEvent<u32>,
    #[cfg(any())] event: LambdaEvent<String>,
    db: &(PgPool),
) -> Result<u32, Error> {
    #![allow(clippy::unused_async)]
    let _ = db;
    Ok(event.payload)
}

/// # Safety
/// None needed.
#[db_handler]
#[must_use]
pub async unsafe fn r#unsafe(r#type: LambdaEvent<u32>, db: &PgPool) -> Result<u32, Error> {
    let _ = db;
    Ok(r#type.payload)
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

pub(crate) fn main() {
    drop(destructured(event(1)));
    drop(event_last(event(1)));
    drop(mutable(event(1)));
    drop(unused(event(1)));
    drop(allowed(event(1)));
    drop(either(event(1)));
    drop(unsafe { r#unsafe(event(1)) });
}
