//! Does one thing again and again, for callgrind: `instructions WHAT TIMES`. Two runs of different length tell what one
//! time costs, whatever the start of the process costs.

use db_handler::{
    Db, Error, LambdaEvent, db_handler,
    sqlx::{
        ConnectOptions, Connection, PgPool, Postgres, mysql::MySqlConnectOptions,
        postgres::PgConnectOptions,
    },
};
use lambda_runtime::Context;
use std::{env, hint::black_box, time::SystemTime};

#[allow(clippy::unused_async, reason = "the shape of a handler")]
async fn bare(event: LambdaEvent<u64>) -> Result<u64, Error> {
    Ok(black_box(event.payload) + 1)
}

macro_rules! handlers {
    ($($name:ident($resource:ty, $close:literal);)*) => {$(
        #[db_handler(close = $close)]
        async fn $name(event: LambdaEvent<u64>, _db: $resource) -> Result<u64, Error> {
            Ok(black_box(event.payload) + 1)
        }
    )*};
}

handlers! {
    pool_never(&PgPool, "never");
    pool_always(&PgPool, "always");
    db_never(&Db<Postgres>, "never");
    db_always(&Db<Postgres>, "always");
}

/// An event as a platform sends it, with a deadline 3 s away.
fn event() -> LambdaEvent<u64> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut context = Context::default();
    "6f6b9be0-3c0a-4d3c-8f0e-7a1f4f6f8a55".clone_into(&mut context.request_id);
    context.deadline = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX) + 3_000;
    LambdaEvent::new(1, context)
}

async fn again_and_again(what: &str, times: u64) -> Result<u64, lambda_runtime::Error> {
    let mut sum = 0;
    for _ in 0..times {
        sum += match what {
            "bare" => bare(event()).await?,
            "pool_never" => pool_never(event()).await?,
            "pool_always" => pool_always(event()).await?,
            "db_never" => db_never(event()).await?,
            "db_always" => db_always(event()).await?,
            "open-postgres" => {
                let options: PgConnectOptions = env::var("DATABASE_URL")?.parse()?;
                options.connect().await?.close().await?;
                1
            }
            "open-mariadb" => {
                let options: MySqlConnectOptions = env::var("DATABASE_URL")?.parse()?;
                options.connect().await?.close().await?;
                1
            }
            other => return Err(format!("cannot do {other}").into()),
        };
    }
    Ok(sum)
}

fn main() -> Result<(), lambda_runtime::Error> {
    let mut arguments = env::args().skip(1);
    let (Some(what), Some(times)) = (arguments.next(), arguments.next()) else {
        return Err("usage: instructions WHAT TIMES".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    black_box(runtime.block_on(again_and_again(&what, times.parse()?))?);
    Ok(())
}
