//! One transaction per invocation: committed if the handler returns `Ok`, and rolled back otherwise.
//!
//! ```sh
//! DATABASE_URL='sqlite:///tmp/accounts.db?mode=rwc' \
//!     cargo run -p db-handler-examples --example transaction -- '{"from":"ada","to":"bob","amount":30}' '{"from":"ada","to":"bob","amount":90}'
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, SqliteTransaction},
};
use serde::{Deserialize, Serialize};

const ACCOUNTS: &str =
    "CREATE TABLE IF NOT EXISTS accounts (owner TEXT PRIMARY KEY, balance INTEGER);
    INSERT OR IGNORE INTO accounts VALUES ('ada', 100), ('bob', 0)";
const PAY_IN: &str =
    "UPDATE accounts SET balance = balance + $1 WHERE owner = $2 RETURNING balance";

#[derive(Deserialize)]
struct Transfer {
    from: String,
    to: String,
    amount: i64,
}

#[derive(Serialize)]
struct Balances {
    from: i64,
    to: i64,
}

#[db_handler(pool(max = 1))]
async fn transfer(
    event: LambdaEvent<Transfer>,
    db: &mut SqliteTransaction<'_>,
) -> Result<Balances, Error> {
    let Transfer { from, to, amount } = event.payload;
    sqlx::raw_sql(ACCOUNTS).execute(&mut **db).await?;
    let to = sqlx::query_scalar(PAY_IN)
        .bind(amount)
        .bind(to)
        .fetch_one(&mut **db)
        .await?;
    let from = sqlx::query_scalar(PAY_IN)
        .bind(-amount)
        .bind(from)
        .fetch_one(&mut **db)
        .await?;
    if from < 0 {
        // Returning `Err` rolls back the deposit above.
        return Err(Error::other("not enough on the account"));
    }
    Ok(Balances { from, to })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(transfer).await
}
