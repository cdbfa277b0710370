//! Every key with literals and constants, on the attribute and on a parameter.

#![deny(warnings)]

use db_handler::sqlx::PgPool;
use db_handler::{Context, Error, LambdaEvent, db_handler};

struct Limits;

impl Limits {
    const MAX: u32 = 4;
    const MIN: u32 = 1;
    const SHARE: f64 = 0.5;
    const fn acquire_ms(seconds: u64) -> u64 {
        seconds * 1_000
    }
}

#[db_handler(
    env = "ORDERS_URL",
    pool(max = 4, min = 1, idle_ms = 60_000, acquire_ms = 3_000, lifetime_ms = 600_000),
    close = "on_error",
    check(trust_ms = 0, ping_ms = 100),
    deadline(reserve_ms = 500),
    background = "abort",
    connect = "eager",
    budget(instances = 10, connections = 100, share = 0.5),
    crate = ::db_handler,
)]
async fn literals(_: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> {
    let _ = db;
    Ok(())
}

#[db_handler(
    pool(max = Limits::MAX, min = Limits::MIN, acquire_ms = Limits::acquire_ms(3)),
    close = "never",
    check(trust_ms = Limits::acquire_ms(1), ping_ms = 2 * 50),
    deadline(reserve_ms = Limits::acquire_ms(1)),
    budget(instances = 5 * 2, connections = 200, share = Limits::SHARE)
)]
async fn constants(
    _: LambdaEvent<()>,
    db: &PgPool,
    #[db(env = "REPLICA_URL", pool(max = 1 + 1, min = 0), check(ping_ms = 50), connect = "lazy")]
    #[db(close = "always", budget(instances = 10, connections = 100, share = 1))]
    replica: &PgPool,
    other: &PgPool,
) -> Result<(), Error> {
    let _ = (db, replica, other);
    Ok(())
}

#[db_handler()]
async fn empty(_: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> {
    let _ = db;
    Ok(())
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

pub(crate) fn main() {
    drop(literals(event(())));
    drop(constants(event(())));
    drop(empty(event(())));
}
