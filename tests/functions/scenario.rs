//! The function of the scenarios, in two versions: with plain sqlx and with the attribute. Both share the code that
//! uses the database.

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, PgPool, postgres::PgPoolOptions},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use lambda_runtime::{Runtime, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    env,
    sync::{LazyLock, Mutex},
    time::Duration,
};
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

type Answer = Result<Value, lambda_runtime::Error>;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
enum Deed {
    /// One query.
    Session,
    /// Two concurrent transactions, as in a handler that reads in one and writes in the other.
    TwoTransactions,
    /// `findAndCountAll`, where one query fails while the other one takes long.
    TwinOfAFailure,
    /// One query, which the handler drops after this time.
    Impatient { ms: u64 },
    /// A transaction that locks a row for this time.
    HoldRow { seconds: f64 },
    /// Waits without a query.
    Linger { ms: u64 },
    /// Returns immediately, and inserts later in a separate task.
    InsertLater { ms: u64 },
}

async fn perform(deed: Deed, db: &PgPool) -> Answer {
    let session = || sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(db);
    Ok(match deed {
        Deed::Session => json!(session().await?),
        Deed::TwoTransactions => {
            let (read, write) = (db.begin().await?, db.begin().await?);
            tokio::try_join!(read.commit(), write.commit())?;
            json!("both")
        }
        Deed::TwinOfAFailure => {
            tokio::try_join!(
                sqlx::query("SELECT pg_sleep(20)").execute(db),
                sqlx::query("SELECT 1 / (random() * 0)::int FROM pg_sleep(0.3)").execute(db),
            )?;
            json!("both")
        }
        Deed::Impatient { ms } => json!(timeout(Duration::from_millis(ms), session()).await??),
        Deed::HoldRow { seconds } => {
            let mut transaction = db.begin().await?;
            sqlx::query("UPDATE rows SET touched = touched + 1 WHERE id = 1")
                .execute(&mut *transaction)
                .await?;
            sqlx::query("SELECT pg_sleep($1)")
                .bind(seconds)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            json!("held")
        }
        Deed::Linger { ms } => {
            sleep(Duration::from_millis(ms)).await;
            json!("lingered")
        }
        Deed::InsertLater { ms } => {
            let db = db.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                let insert = "INSERT INTO inserted (at) VALUES (clock_timestamp())";
                if let Err(error) = sqlx::query(insert).execute(&db).await {
                    eprintln!("the insert is lost: {error}");
                }
            });
            json!("later")
        }
    })
}

/// Typical pool options.
fn everyones_options() -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(3))
}

fn url() -> String {
    env::var("DATABASE_URL").expect("the sandbox sets it")
}

/// Plain: one pool per process.
async fn plain(event: LambdaEvent<Deed>) -> Answer {
    static POOL: OnceCell<PgPool> = OnceCell::const_new();
    let pool = POOL
        .get_or_try_init(|| async { everyones_options().connect_lazy(&url()) })
        .await?;
    perform(event.payload, pool).await
}

/// Plain, with a cached promise: the first caller starts to connect, and all callers wait for the same attempt.
async fn plain_promise(event: LambdaEvent<Deed>) -> Answer {
    type Promise = Shared<BoxFuture<'static, Result<PgPool, String>>>;
    static PROMISE: LazyLock<Promise> = LazyLock::new(|| {
        let connecting = tokio::spawn(
            everyones_options().connect_with(url().parse().expect("the sandbox's own URL")),
        );
        async {
            connecting
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())
        }
        .boxed()
        .shared()
    });
    let patience = match event.payload {
        Deed::Impatient { ms } => Duration::from_millis(ms),
        _ => Duration::from_secs(10),
    };
    let pool = timeout(patience, PROMISE.clone()).await??;
    perform(event.payload, &pool).await
}

/// Plain: checks whether there is a client, and connects if there is none.
async fn plain_look_first(event: LambdaEvent<Deed>) -> Answer {
    static POOL: Mutex<Option<PgPool>> = Mutex::new(None);
    let known = POOL.lock().expect("not poisoned").clone();
    let pool = if let Some(pool) = known {
        pool
    } else {
        let pool = everyones_options()
            .max_connections(1)
            .connect(&url())
            .await?;
        POOL.lock().expect("not poisoned").insert(pool).clone()
    };
    perform(event.payload, &pool).await
}

// On a busy machine the default reserve may be too short for cancelling a query.
#[db_handler(deadline(reserve_ms = 1_000))]
async fn always(event: LambdaEvent<Deed>, db: &PgPool) -> Answer {
    perform(event.payload, db).await
}

#[db_handler(close = "never", deadline(reserve_ms = 1_000))]
async fn never(event: LambdaEvent<Deed>, db: &PgPool) -> Answer {
    perform(event.payload, db).await
}

#[db_handler(close = "never", pool(max = 1), deadline(reserve_ms = 1_000))]
async fn one(event: LambdaEvent<Deed>, db: &PgPool) -> Answer {
    perform(event.payload, db).await
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    let handler = env::var("HANDLER").map_err(Error::other)?;
    match handler.as_str() {
        "plain" => Runtime::new(service_fn(plain))
            .run()
            .await
            .map_err(Error::other),
        "plain_promise" => Runtime::new(service_fn(plain_promise))
            .run()
            .await
            .map_err(Error::other),
        "plain_look_first" => {
            let runtime = Runtime::new(service_fn(plain_look_first));
            runtime.run_concurrent().await.map_err(Error::other)
        }
        "always" => db_handler::run(always).await,
        "never" => db_handler::run(never).await,
        "one" => db_handler::run(one).await,
        other => Err(Error::other(format!("no handler {other}"))),
    }
}
