//! Statements that are rejected and accepted.

use crate::pgbouncer::world::{behind, event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, AssertSqlSafe, Executor},
};
use support::Pooler;

behind!(Pooler::Plain, 2, 20);

#[db_handler(proxy = "pgbouncer", credentials = through_it)]
async fn run(event: LambdaEvent<String>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(event.payload))
        .execute(db)
        .await?;
    Ok(())
}

#[db_handler(proxy = "pgbouncer", credentials = through_it)]
async fn prepare(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
    db.prepare(sqlx::SqlStr::from_static("select 1")).await?;
    Ok(())
}

#[tokio::test]
async fn statement_that_ends_transaction_is_rejected_before_it_is_sent() {
    behind().await;
    for sql in [
        "commit",
        "select 1; rollback",
        "select E'a'\n'b\\''; commit; --'",
        "prepare transaction 'x'",
    ] {
        let error = run(event(sql.to_owned())).await.expect_err("refused");
        assert!(error.to_string().contains("would end"), "{sql}: {error}");
    }
    let error = prepare(event(())).await.expect_err("refused");
    assert!(error.to_string().contains("cannot be prepared"), "{error}");
}

#[tokio::test]
async fn other_statements_are_executed() {
    behind().await;
    for sql in [
        "savepoint a; create table t (id int); rollback to a",
        "set transaction isolation level serializable; select 1",
        "set search_path to x",
        "create function one() returns int begin atomic select 1; end; drop function one()",
        "create or replace procedure two(a int) language sql begin atomic select a; select 2; end; drop procedure two",
    ] {
        let done = run(event(sql.to_owned())).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}
