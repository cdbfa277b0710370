//! How a transaction ends.

use crate::pgbouncer::world::{behind, event, event_within};
use db_handler::{
    Error, ErrorKind, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, Executor, PgConnection},
};
use futures_util::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use support::Pooler;

behind!(Pooler::Plain, 2, 20);

#[derive(Clone, Copy)]
enum Then {
    Succeed,
    Fail,
    Panic,
    Sleep,
    PassOver,
}

async fn insert(then: Then, db: &mut PgBouncerTransaction) -> Result<i64, Error> {
    sqlx::query("insert into orders values ($1)")
        .bind(1)
        .execute(&mut *db)
        .await?;
    match then {
        Then::Succeed => {}
        Then::Fail => return Err(Error::other("told to fail")),
        Then::Panic => panic!("told to panic"),
        Then::Sleep => {
            sqlx::query("select pg_sleep(60)").execute(&mut *db).await?;
        }
        Then::PassOver => {
            let _ = sqlx::query("select 1 / 0").execute(&mut *db).await;
        }
    }
    Ok(0)
}

// On a busy machine the default reserve is too short for cancelling.
#[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", deadline(reserve_ms = 2000))]
async fn never(event: LambdaEvent<Then>, db: &mut PgBouncerTransaction) -> Result<i64, Error> {
    insert(event.payload, db).await
}

#[db_handler(proxy = "pgbouncer", credentials = through_it, deadline(reserve_ms = 2000))]
async fn always(event: LambdaEvent<Then>, db: &mut PgBouncerTransaction) -> Result<i64, Error> {
    insert(event.payload, db).await
}

/// RDS Proxy is not available in tests: its mode must at least work with PgBouncer.
#[db_handler(proxy = "rds", credentials = through_it, close = "never")]
async fn as_for_rds(event: LambdaEvent<Then>, db: &mut PgBouncerTransaction) -> Result<i64, Error> {
    insert(event.payload, db).await
}

async fn is_committed_on_ok_alone(
    name: &str,
    stops: bool,
    handler: impl AsyncFn(LambdaEvent<Then>) -> Result<i64, Error>,
) {
    let behind = behind().await;
    let mut observer = behind.direct().await;
    let mut before = count(&mut observer).await;
    for _ in 0..2 {
        handler(event(Then::Succeed)).await.expect("succeeds");
        assert_eq!(count(&mut observer).await, before + 1, "{name}");
        before += 1;

        let error = handler(event(Then::Fail)).await.expect_err("fails");
        assert!(error.to_string().contains("told to fail"), "{error}");
        assert_eq!(count(&mut observer).await, before, "{name}: Err");

        let error = handler(event(Then::PassOver)).await.expect_err("fails");
        assert_eq!(error.kind(), ErrorKind::CommitFailed, "{name}");
        assert_eq!(count(&mut observer).await, before, "{name}: passed over");

        let panicking = AssertUnwindSafe(handler(event(Then::Panic))).catch_unwind();
        panicking.await.expect_err("panics");
        assert_eq!(count(&mut observer).await, before, "{name}: panic");

        if !stops {
            continue;
        }
        let begun = Instant::now();
        let sleeping = handler(event_within(Then::Sleep, Duration::from_millis(2_700)));
        let error = sleeping.await.expect_err("is stopped");
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{name}: {error}");
        behind.database.wait_until_running(0).await;
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(6),
            "{name}: stopped after {took:?}"
        );
        assert_eq!(count(&mut observer).await, before, "{name}: deadline");
    }
}

async fn count(observer: &mut PgConnection) -> i64 {
    let count = sqlx::query_scalar("select count(*) from orders");
    count.fetch_one(observer).await.expect("counts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_ok_commits() {
    support::measures_time();
    let behind = behind().await;
    let mut owner = behind.direct().await;
    owner
        .execute("create table orders (id int)")
        .await
        .expect("creates");
    is_committed_on_ok_alone("never", true, never).await;
    is_committed_on_ok_alone("always", true, always).await;
    is_committed_on_ok_alone("rds", false, as_for_rds).await;
}

mod ended_from_inside {
    use super::*;
    use db_handler::sqlx::{AssertSqlSafe, Row};

    behind!(Pooler::Plain, 2, 10);

    /// In GBK, the last byte of the character and the backslash form one character. The literal ends earlier than in
    /// UTF-8, and the filter cannot detect the `COMMIT`.
    const UNSEEN: &str = "select E'\u{4e2a}\\'; commit; --'";

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn handler(event: LambdaEvent<bool>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        sqlx::raw_sql("set local client_encoding = 'GBK'")
            .execute(&mut *db)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(UNSEEN))
            .execute(&mut *db)
            .await?;
        if event.payload {
            Ok(())
        } else {
            Err(Error::other("told to fail"))
        }
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn encoding(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<String, Error> {
        let encoding = sqlx::raw_sql("show client_encoding").fetch_one(db).await?;
        Ok(encoding.get(0))
    }

    #[tokio::test]
    async fn transaction_end_is_detected_and_connection_is_closed() {
        behind().await;
        let error = handler(event(true)).await.expect_err("was ended");
        assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error}");
        let text = error.to_string();
        assert!(text.contains("ended inside the handler"), "{text}");
        let error = handler(event(false)).await.expect_err("fails");
        assert!(error.to_string().contains("told to fail"), "{error}");
        assert_eq!(encoding(event(())).await.expect("answers"), "UTF8");
    }
}

mod commit {
    use super::*;

    behind!(Pooler::Plain, 1, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn handler(
        event: LambdaEvent<&'static str>,
        db: &mut PgBouncerTransaction,
    ) -> Result<(), Error> {
        sqlx::raw_sql(event.payload).execute(db).await?;
        Ok(())
    }

    const SETUP: &str = "
        create table orders (id int primary key deferrable initially deferred);
        create table log (who text);
        create function note() returns trigger language plpgsql as
            $$ begin insert into log values (current_setting('app.who')); return null; end $$;
        create constraint trigger note after insert on orders deferrable initially deferred
            for each row execute function note()";

    /// The pooler may have opened another session meanwhile, without this setting.
    const LEFT: &str =
        "select coalesce(current_setting('app.who', true), '') || current_setting('TimeZone')";

    #[tokio::test]
    async fn deferred_triggers_run_with_settings_of_transaction() {
        let mut owner = behind().await.direct().await;
        owner.execute(SETUP).await.expect("creates");
        let insert = "set app.who = 'b'; set local app.who = 'a'; insert into orders values (1)";
        handler(event(insert)).await.expect("commits");
        let who: Vec<String> = sqlx::query_scalar("select who from log")
            .fetch_all(&mut owner)
            .await
            .expect("answers");
        assert_eq!(who, ["a"]);

        let twice = "set app.who = 'b'; set time zone 'Asia/Tokyo'; insert into orders values (1)";
        let error = handler(event(twice)).await.expect_err("is a duplicate");
        assert_eq!(error.kind(), ErrorKind::CommitFailed, "{error}");
        let mut other = behind().await.plain().await;
        let zone: String = sqlx::query_scalar(LEFT)
            .fetch_one(&mut other)
            .await
            .expect("answers");
        assert_eq!(zone, "UTC");
    }
}

mod refused_commit {
    use super::*;
    use db_handler::sqlx::Row;

    behind!(Pooler::Plain, 1, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn handler(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        sqlx::raw_sql(TWICE).execute(db).await?;
        Ok(())
    }

    const TWICE: &str = "select pg_advisory_lock(7); prepare left_behind as select 1;
        insert into orders values (1), (1)";

    const SESSION: &str = "select concat_ws(' ', pg_backend_pid(),
        (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
        (select count(*) from pg_prepared_statements where from_sql))";

    async fn session(client: &mut PgConnection) -> String {
        let row = sqlx::raw_sql(SESSION).fetch_one(client).await;
        row.expect("answers").get(0)
    }

    /// A rollback undoes neither, and statements after a rejected `COMMIT` in the same message are not executed.
    #[tokio::test]
    async fn rejected_commit_leaves_no_lock_and_no_prepared_statement() {
        let behind = behind().await;
        let mut owner = behind.direct().await;
        let table = "create table orders (id int primary key deferrable initially deferred)";
        owner.execute(table).await.expect("creates");
        let mut other = behind.plain().await;
        let before = session(&mut other).await;
        for _ in 0..2 {
            let error = handler(event(())).await.expect_err("a duplicate");
            assert_eq!(error.kind(), ErrorKind::CommitFailed, "{error}");
            assert_eq!(session(&mut other).await, before);
        }
    }
}

mod connection_lost {
    use super::*;
    use crate::pgbouncer::rds::straight;
    use support::postgres;

    behind!(Pooler::Plain, 2, 10);

    /// Whether a statement is sent after the connection is lost.
    type Meets = bool;

    const END: &str = "select pg_terminate_backend($1, 5000)";

    async fn act(meets: Meets, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        let session: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut *db)
            .await?;
        let mut admin = postgres().admin().await;
        let ended: bool = sqlx::query_scalar(END)
            .bind(session)
            .fetch_one(&mut admin)
            .await?;
        assert!(ended);
        if meets {
            let statement = sqlx::query("select 1").execute(db).await;
            statement.expect_err("there is no session any more");
        }
        Ok(())
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it)]
    async fn through_a_pooler(
        event: LambdaEvent<Meets>,
        db: &mut PgBouncerTransaction,
    ) -> Result<(), Error> {
        act(event.payload, db).await
    }

    #[db_handler(proxy = "rds", credentials = straight)]
    async fn without_a_pooler(
        event: LambdaEvent<Meets>,
        db: &mut PgBouncerTransaction,
    ) -> Result<(), Error> {
        act(event.payload, db).await
    }

    pub(super) fn is_known(error: &Error) {
        assert_eq!(error.kind(), ErrorKind::CommitFailed, "{error}");
        let text = error.to_string();
        assert!(text.contains("The transaction was rolled back"), "{text}");
    }

    #[tokio::test]
    async fn loss_before_commit_is_reported_as_not_committed() {
        behind().await;
        let _ = straight().await;
        is_known(&through_a_pooler(event(true)).await.expect_err("lost"));
        is_known(&through_a_pooler(event(false)).await.expect_err("lost"));
        is_known(&without_a_pooler(event(true)).await.expect_err("lost"));
        is_known(&without_a_pooler(event(false)).await.expect_err("lost"));
    }

    /// Cancelling it needs another connection, which may take long on a busy machine.
    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", deadline(reserve_ms = 10000))]
    async fn dropping(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        let sleeping = sqlx::query("select pg_sleep(60)").execute(&mut *db);
        tokio::select! {
            done = sleeping => panic!("{done:?}"),
            () = behind().await.database.wait_until_running(1) => Ok(()),
        }
    }

    #[tokio::test]
    async fn dropped_query_is_cancelled_and_not_awaited() {
        support::measures_time();
        behind().await;
        let error = dropping(event(())).await.expect_err("is not committed");
        assert_eq!(error.kind(), ErrorKind::CommitFailed, "{error}");
        assert!(error.to_string().contains("dropped"), "{error}");
        behind().await.database.wait_until_running(0).await;
    }
}

mod pooler_lost {
    use super::*;

    behind!(Pooler::Plain, 2, 10);

    /// With `trust_ms = 0`, each commit is preceded by a ping.
    #[db_handler(proxy = "pgbouncer", credentials = through_it, check(trust_ms = 0))]
    async fn handler(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        sqlx::query("create table lost (id int)")
            .execute(db)
            .await?;
        behind().await.bouncer.lock().expect("whole").restart();
        Ok(())
    }

    #[tokio::test]
    async fn loss_before_commit_is_reported_as_not_committed() {
        behind().await;
        connection_lost::is_known(&handler(event(())).await.expect_err("lost"));
    }
}
