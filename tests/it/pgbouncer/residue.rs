//! Session state of a transaction does not reach the next client.

use crate::pgbouncer::world::{Behind, behind, event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, AssertSqlSafe, Executor, PgConnection, Row},
};
use support::Pooler;

/// Statements whose effects would stay in the session.
const DEEDS: [&str; 14] = [
    "set search_path = nowhere",
    "set default_transaction_read_only = on",
    "set standard_conforming_strings = off",
    "set time zone 'Asia/Tokyo'",
    "select set_config('app.tenant', '7', false)",
    "do $$ begin perform set_config('search_path', 'nowhere', false); end $$",
    "create temp table left_behind (id int)",
    "create temp table left_behind on commit preserve rows as select 1; declare c cursor for select * from left_behind",
    "select pg_advisory_lock(7)",
    "do $$ begin perform pg_advisory_lock(7); end $$",
    "listen orders",
    "prepare left_behind as select 1",
    "do $$ begin execute 'prepare left_behind as select 1'; end $$",
    "declare left_behind cursor with hold for select 1",
];

/// The state that they change, in one row.
const SESSION: &str = "select concat_ws(' ',
    current_setting('search_path'), current_setting('default_transaction_read_only'),
    current_setting('standard_conforming_strings'), current_setting('TimeZone'),
    current_setting('app.tenant', true), to_regclass('pg_temp.left_behind'),
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
    (select count(*) from pg_listening_channels()),
    (select count(*) from pg_prepared_statements where from_sql),
    (select count(*) from pg_cursors where name <> ''), current_user, pg_backend_pid())";

async fn session(client: &mut PgConnection) -> String {
    let row = sqlx::raw_sql(SESSION).fetch_one(client).await;
    // A custom setting is empty after a reset, and NULL if it was never set.
    let session: String = row.expect("answers").get(0);
    session.replace("  ", " ")
}

/// SQL, and whether the handler succeeds.
type Deed = (&'static str, bool);

async fn act((sql, succeeds): Deed, db: &mut PgBouncerTransaction) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(db)
        .await?;
    if succeeds {
        Ok(())
    } else {
        Err(Error::other("told to fail"))
    }
}

async fn nothing_is_left(
    behind: &Behind,
    handler: impl AsyncFn(LambdaEvent<Deed>) -> Result<(), Error>,
) {
    // Both clients use the server's only session.
    let mut other = behind.plain().await;
    let before = session(&mut other).await;
    for succeeds in [true, false] {
        for sql in DEEDS {
            let done = handler(event((sql, succeeds))).await;
            match done {
                Ok(()) => assert!(succeeds, "{sql}"),
                Err(error) => assert!(error.to_string().contains("told to fail"), "{sql}: {error}"),
            }
            assert_eq!(session(&mut other).await, before, "{sql}, {succeeds}");
        }
    }
}

mod plain {
    use super::*;

    behind!(Pooler::Plain, 1, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn handler(event: LambdaEvent<Deed>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        act(event.payload, db).await
    }

    #[tokio::test]
    async fn next_client_gets_unchanged_session() {
        nothing_is_left(behind().await, handler).await;
    }
}

mod tracking {
    use super::*;

    behind!(Pooler::Tracking, 1, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn handler(event: LambdaEvent<Deed>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        act(event.payload, db).await
    }

    /// Statements that PgBouncer prepared for another client stay, too.
    #[tokio::test]
    async fn next_client_gets_unchanged_session() {
        let behind = behind().await;
        let mut other = behind.plain().await;
        let named = "select 40 + $1::int4";
        let first = sqlx::query_scalar(named).bind(2).fetch_one(&mut other);
        assert_eq!(first.await.ok(), Some(42));
        nothing_is_left(behind, handler).await;
        let again = sqlx::query_scalar(named).bind(2).fetch_one(&mut other);
        assert_eq!(again.await.ok(), Some(42));
    }
}

mod own_settings {
    use super::*;

    behind!(Pooler::Plain, 1, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn zone(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<String, Error> {
        Ok(sqlx::query_scalar("select current_setting('TimeZone')")
            .fetch_one(db)
            .await?)
    }

    /// sqlx sets the time zone when it connects, and PgBouncer remembers it for that client.
    #[tokio::test]
    async fn settings_persist_between_transactions() {
        let behind = behind().await;
        let name = behind.database.name();
        let sql = format!("alter database {name} set timezone = 'Asia/Tokyo'");
        let mut owner = behind.direct().await;
        owner.execute(AssertSqlSafe(sql)).await.expect("alters");
        for _ in 0..3 {
            assert_eq!(zone(event(())).await.expect("answers"), "UTC");
        }
    }
}
