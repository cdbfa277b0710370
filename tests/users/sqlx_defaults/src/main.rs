//! sqlx's checked queries with every kind of parameter and sqlx's default features.
//!
//! The queries are checked against `.sqlx`. After a change, run this with a PostgreSQL that has [`SCHEMA`]'s table:
//! `DATABASE_URL=.. SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$PWD/tests/users/sqlx_defaults/.sqlx cargo check -p db-handler-sqlx-defaults`

use db_handler::{
    Context, Db, Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{PgConnection, PgPool, PgTransaction, Postgres, query, query_as, query_scalar},
};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS orders \
     (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, note text)";

#[derive(Debug, PartialEq, Eq)]
struct Order {
    id: i64,
    item: String,
    note: Option<String>,
}

#[db_handler(close = "never")]
async fn create_schema(_event: LambdaEvent<()>, db: &Db<Postgres>) -> Result<(), Error> {
    query(SCHEMA).execute(db).await?;
    Ok(())
}

#[db_handler(close = "never")]
async fn through_the_handle(event: LambdaEvent<&str>, db: &Db<Postgres>) -> Result<Order, Error> {
    let id = query_scalar!(
        "INSERT INTO orders (item) VALUES ($1) RETURNING id",
        event.payload
    )
    .fetch_one(db)
    .await?;
    let orders = query_as!(Order, "SELECT id, item, note FROM orders WHERE id = $1", id)
        .fetch_all(db)
        .await?;
    only(orders)
}

#[db_handler(close = "never")]
async fn through_the_pool(event: LambdaEvent<&str>, pool: &PgPool) -> Result<Order, Error> {
    let inserted = query!(
        "INSERT INTO orders (item) VALUES ($1) RETURNING id, note",
        event.payload
    )
    .fetch_one(pool)
    .await?;
    assert_eq!(inserted.note, None);
    let order = query_as!(
        Order,
        "SELECT id, item, note FROM orders WHERE id = $1",
        inserted.id
    )
    .fetch_one(pool)
    .await?;
    Ok(order)
}

#[db_handler(close = "never")]
async fn on_a_connection(event: LambdaEvent<&str>, db: &mut PgConnection) -> Result<Order, Error> {
    let id = query_scalar!(
        "INSERT INTO orders (item) VALUES ($1) RETURNING id",
        event.payload
    )
    .fetch_one(&mut *db)
    .await?;
    let order = query_as!(Order, "SELECT id, item, note FROM orders WHERE id = $1", id)
        .fetch_optional(db)
        .await?;
    only(order.into_iter().collect())
}

#[db_handler(close = "never")]
async fn in_a_transaction(
    event: LambdaEvent<&str>,
    tx: &mut PgTransaction<'_>,
) -> Result<Order, Error> {
    let id = query_scalar!(
        "INSERT INTO orders (item) VALUES ($1) RETURNING id",
        event.payload
    )
    .fetch_one(&mut **tx)
    .await?;
    let order = query_as!(Order, "SELECT id, item, note FROM orders WHERE id = $1", id)
        .fetch_one(&mut **tx)
        .await?;
    Ok(order)
}

#[db_handler(proxy = "pgbouncer", close = "never")]
async fn behind_a_pooler(
    event: LambdaEvent<&str>,
    tx: &mut PgBouncerTransaction,
) -> Result<Order, Error> {
    let id = query_scalar!(
        "INSERT INTO orders (item) VALUES ($1) RETURNING id",
        event.payload
    )
    .fetch_one(&mut *tx)
    .await?;
    let order = query_as!(Order, "SELECT id, item, note FROM orders WHERE id = $1", id)
        .fetch_one(tx)
        .await?;
    Ok(order)
}

#[db_handler(close = "never")]
async fn clear(_event: LambdaEvent<()>, db: &Db<Postgres>) -> Result<u64, Error> {
    let deleted = query!("DELETE FROM orders").execute(db).await?;
    Ok(deleted.rows_affected())
}

fn only(mut orders: Vec<Order>) -> Result<Order, Error> {
    match (orders.pop(), orders.is_empty()) {
        (Some(order), true) => Ok(order),
        _ => Err(sqlx::Error::RowNotFound.into()),
    }
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    create_schema(event(())).await?;
    let orders = [
        through_the_handle(event("handle")).await?,
        through_the_pool(event("pool")).await?,
        on_a_connection(event("connection")).await?,
        in_a_transaction(event("transaction")).await?,
        behind_a_pooler(event("pooler")).await?,
    ];
    for order in &orders {
        println!("{} {}", order.id, order.item);
    }
    let deleted = clear(event(())).await?;
    println!("{deleted} deleted");
    db_handler::shutdown().await;
    Ok(())
}
