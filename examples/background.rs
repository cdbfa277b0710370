//! Writes an audit record after the response has been sent, and before the environment is frozen.
//!
//! ```sh
//! DATABASE_URL='postgres://user:password@localhost/shop' \
//!     cargo run -p db-handler-examples --example background --features postgres -- '{"account":7,"amount":25}'
//! ```

use db_handler::{
    Background, Error, LambdaEvent, db_handler,
    sqlx::{self, PgPool},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Payment {
    account: i64,
    amount: i64,
}

#[derive(Serialize)]
struct Receipt {
    account: i64,
    paid: i64,
}

#[db_handler(background = "wait")]
async fn pay(
    event: LambdaEvent<Payment>,
    db: &PgPool,
    background: &Background,
) -> Result<Receipt, Error> {
    let Payment { account, amount } = event.payload;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS audit (account BIGINT NOT NULL, amount BIGINT NOT NULL)",
    )
    .execute(db)
    .await?;

    // The pool is not closed before the last task has finished.
    let db = db.clone();
    background.spawn(async move {
        let insert = sqlx::query("INSERT INTO audit (account, amount) VALUES ($1, $2)")
            .bind(account)
            .bind(amount);
        if let Err(error) = insert.execute(&db).await {
            eprintln!("no audit record of {amount} to {account}: {error}");
        }
    });
    Ok(Receipt {
        account,
        paid: amount,
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(pay).await
}
