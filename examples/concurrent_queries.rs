//! Queries a page of rows and their total number concurrently, like Sequelize's `findAndCountAll`.
//!
//! When one query fails, `try_join!` drops the other, and the handler returns while that query still runs. The
//! runtime cancels it on the server and discards its connection, so that it cannot affect the next event.
//!
//! ```sh
//! DATABASE_URL='postgres://user:password@localhost/shop' \
//!     cargo run -p db-handler-examples --example concurrent_queries --features postgres -- '{"page":0,"size":10}'
//! ```

use db_handler::{
    Db, Error, LambdaEvent, db_handler,
    sqlx::{self, Postgres},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Page {
    page: i64,
    size: i64,
}

#[derive(Serialize)]
struct Numbers {
    total: i64,
    numbers: Vec<i32>,
}

#[db_handler(pool(max = 2))]
async fn find_and_count_all(event: LambdaEvent<Page>, db: &Db<Postgres>) -> Result<Numbers, Error> {
    let Page { page, size } = event.payload;
    let (total, numbers) = tokio::try_join!(
        sqlx::query_scalar("SELECT count(*) FROM generate_series(1, 1000)").fetch_one(db),
        sqlx::query_scalar(
            "SELECT n FROM generate_series(1, 1000) n ORDER BY n OFFSET $1 LIMIT $2"
        )
        .bind(page * size)
        .bind(size)
        .fetch_all(db),
    )?;
    Ok(Numbers { total, numbers })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(find_and_count_all).await
}
