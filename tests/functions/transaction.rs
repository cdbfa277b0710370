//! A test function with a transaction per invocation. Its event says how the transaction ends.

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, AssertSqlSafe, Connection},
};
use serde::Deserialize;
use std::{env, future::pending, time::Duration};
use tokio::time::timeout;

#[derive(Deserialize)]
struct Deed {
    /// Runs in the transaction; errors are ignored.
    sql: String,
    then: Then,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    /// Returns the number of rows in `orders`.
    Count,
    Succeed,
    Fail,
    Panic,
    WaitForEver,
    /// Drops `sql` after 200 ms, and succeeds.
    Drop,
    /// The same 100 ms before the cancellation, with a timeout of 1.5 s.
    DropLate,
    /// Drops a savepoint around another `sql`, and succeeds.
    Savepoint,
}

macro_rules! handlers {
    ($module:ident: $transaction:ident) => {
        mod $module {
            use super::*;
            use db_handler::sqlx::$transaction;

            async fn transact(deed: Deed, db: &mut $transaction<'_>) -> Result<i64, Error> {
                if let Then::Drop | Then::DropLate = deed.then {
                    let ms = if let Then::Drop = deed.then {
                        200
                    } else {
                        1_150
                    };
                    let query = sqlx::raw_sql(AssertSqlSafe(deed.sql)).execute(&mut **db);
                    let _ = timeout(Duration::from_millis(ms), query).await;
                    return Ok(0);
                }
                let _ = sqlx::raw_sql(AssertSqlSafe(deed.sql.clone()))
                    .execute(&mut **db)
                    .await;
                match deed.then {
                    Then::Count => {
                        let count = sqlx::query_scalar("SELECT count(*) FROM orders");
                        Ok(count.fetch_one(&mut **db).await?)
                    }
                    Then::Succeed => Ok(0),
                    Then::Fail => Err(Error::other("told to fail")),
                    Then::Panic => panic!("told to panic"),
                    Then::WaitForEver => pending().await,
                    Then::Savepoint => {
                        let mut inner = (**db).begin().await?;
                        sqlx::raw_sql(AssertSqlSafe(deed.sql))
                            .execute(&mut *inner)
                            .await?;
                        // Its rollback is on the wire when the transaction is committed.
                        Ok(0)
                    }
                    Then::Drop | Then::DropLate => Ok(0),
                }
            }

            #[db_handler]
            async fn always(
                event: LambdaEvent<Deed>,
                db: &mut $transaction<'_>,
            ) -> Result<i64, Error> {
                transact(event.payload, db).await
            }

            #[db_handler(close = "never")]
            async fn never(
                event: LambdaEvent<Deed>,
                db: &mut $transaction<'_>,
            ) -> Result<i64, Error> {
                transact(event.payload, db).await
            }

            /// Two transactions. The second runs what the event says.
            #[db_handler(pool(max = 1))]
            async fn two(
                event: LambdaEvent<Deed>,
                first: &mut $transaction<'_>,
                second: &mut $transaction<'_>,
            ) -> Result<i64, Error> {
                sqlx::raw_sql("INSERT INTO others VALUES (1)")
                    .execute(&mut **first)
                    .await?;
                transact(event.payload, second).await
            }

            pub(super) async fn run(handler: &str) -> Result<(), Error> {
                match handler {
                    "always" => db_handler::run(always).await,
                    "never" => db_handler::run(never).await,
                    "two" => db_handler::run(two).await,
                    other => Err(Error::other(format!("no handler {other}"))),
                }
            }
        }
    };
}

handlers!(postgres: PgTransaction);
handlers!(mariadb: MySqlTransaction);
handlers!(sqlite: SqliteTransaction);

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    let handler = env::var("HANDLER").map_err(Error::other)?;
    match handler.split_once('/') {
        Some(("postgres", handler)) => postgres::run(handler).await,
        Some(("mariadb", handler)) => mariadb::run(handler).await,
        Some(("sqlite", handler)) => sqlite::run(handler).await,
        _ => Err(Error::other(
            "HANDLER is postgres/.., mariadb/.. or sqlite/..",
        )),
    }
}
