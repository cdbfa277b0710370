//! What is set up for RDS Proxy, here straight on the server.

use crate::pgbouncer::world::event;
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction,
    credentials::Secret,
    db_handler,
    sqlx::{self, AssertSqlSafe},
};
use support::{Database, Postgres, postgres};
use tokio::sync::OnceCell;

/// Straight to the server: other than through a pooler, a connection can be told by its session there.
static SERVER: OnceCell<Database> = OnceCell::const_new();

pub(crate) async fn straight() -> Result<Secret, Error> {
    // Whoever starts it must not wait for a test that waits for it.
    support::beside();
    let database = SERVER.get_or_init(|| postgres().fresh_database()).await;
    Ok(Secret::new(Postgres::PASSWORD)
        .user(Postgres::USER)
        .host("127.0.0.1")
        .port(postgres().port())
        .database(database.name()))
}

#[db_handler(proxy = "rds", credentials = straight, close = "never")]
async fn session(event: LambdaEvent<&str>, db: &mut PgBouncerTransaction) -> Result<i32, Error> {
    let sql = AssertSqlSafe(event.payload.to_owned());
    sqlx::raw_sql(sql).execute(&mut *db).await?;
    let session = sqlx::query_scalar("select pg_backend_pid()");
    Ok(session.fetch_one(db).await?)
}

#[tokio::test]
async fn what_pins_a_session_is_not_kept() {
    // Started here, not within the handler's own time.
    assert!(straight().await.is_ok());
    let first = session(event("select 1")).await.expect("answers");
    let second = session(event("set local work_mem = '1MB'")).await;
    assert_eq!(second.expect("answers"), first);
    let third = session(event("select 1")).await.expect("answers");
    assert_ne!(third, first);
    let fourth = session(event("select 1")).await.expect("answers");
    assert_eq!(fourth, third);
}
