//! The mode for RDS Proxy, here directly on the server.

use crate::pgbouncer::world::event;
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction,
    credentials::Secret,
    db_handler,
    sqlx::{self, AssertSqlSafe},
};
use support::{Database, Postgres, postgres};
use tokio::sync::OnceCell;

/// Connects directly to the server: the session then identifies the connection, unlike behind a pooler.
static SERVER: OnceCell<Database> = OnceCell::const_new();

pub(crate) async fn straight() -> Result<Secret, Error> {
    // The test that starts the server must not wait for a test that waits for the server.
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
async fn pinned_session_is_not_reused() {
    // Starts the server before the handler's time limit begins.
    assert!(straight().await.is_ok());
    let first = session(event("select 1")).await.expect("answers");
    let second = session(event("set local work_mem = '1MB'")).await;
    assert_eq!(second.expect("answers"), first);
    let third = session(event("select 1")).await.expect("answers");
    assert_ne!(third, first);
    let fourth = session(event("select 1")).await.expect("answers");
    assert_eq!(fourth, third);
}
