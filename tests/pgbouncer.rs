//! Behind a PgBouncer that pools transactions: nobody gets another one's rows.

use db_handler::{
    Error, LambdaEvent,
    credentials::Secret,
    db_handler,
    resource::sql::PooledTransaction,
    sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection, Row},
};
use futures_util::future::join_all;
use std::sync::{LazyLock, OnceLock};
use support::{Database, PgBouncer, Pooler, Postgres, postgres};

/// Connections of PgBouncer to the server.
const SERVERS: usize = 5;
const AT_ONCE: usize = 40;
const TRANSACTIONS: usize = 50;
const QUERIES: usize = 5;

/// What the queries of a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    right: usize,
    wrong: usize,
    errors: usize,
}

impl Tally {
    fn count(&mut self, outcome: &Result<i32, sqlx::Error>, expected: i32) {
        match outcome {
            Ok(answer) if *answer == expected => self.right += 1,
            Ok(_) => self.wrong += 1,
            Err(_) => self.errors += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.errors += other.errors;
    }
}

/// A question of its own for each number, with a statement of its own.
fn question(number: usize) -> (AssertSqlSafe<String>, i32) {
    let number = i32::try_from(number).expect("small");
    let sql = AssertSqlSafe(format!("select $1::int4 + {number}"));
    (sql, number)
}

async fn in_transactions(url: &str, task: usize) -> Tally {
    let mut tally = Tally::default();
    let mut connection = PgConnection::connect(url).await.expect("PgBouncer");
    for round in 0..TRANSACTIONS {
        let mut db = PooledTransaction::begin(&mut connection)
            .await
            .expect("begins");
        for query in 0..QUERIES {
            let (sql, number) = question(task * 1_000 + query);
            let bound = i32::try_from(round).expect("small");
            let outcome = sqlx::query_scalar(sql).bind(bound).fetch_one(&mut db).await;
            tally.count(&outcome, number + bound);
        }
        db.commit().await.expect("commits");
    }
    tally
}

/// What the same comes to with a plain connection: the tests would see it.
async fn plainly(url: &str, task: usize) -> Tally {
    let mut tally = Tally::default();
    let mut connection = PgConnection::connect(url).await.expect("PgBouncer");
    for query in 0..QUERIES * 10 {
        let (sql, number) = question(task * 1_000 + query % QUERIES);
        let outcome = sqlx::query_scalar(sql)
            .bind(0)
            .persistent(false)
            .fetch_one(&mut connection)
            .await;
        tally.count(&outcome, number);
    }
    tally
}

async fn total(work: impl AsyncFn(usize) -> Tally) -> Tally {
    let mut total = Tally::default();
    for tally in join_all((0..AT_ONCE).map(|task| work(task))).await {
        total.add(&tally);
    }
    total
}

async fn start(pooler: Pooler) -> (PgBouncer, Database) {
    let database = postgres().fresh_database().await;
    (PgBouncer::start(pooler, postgres(), SERVERS, 100), database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_queries_side_by_side_have_their_own_answers() {
    for pooler in [Pooler::Plain, Pooler::Tracking] {
        let (bouncer, database) = start(pooler).await;
        let url = bouncer.url(&database);
        let tally = total(async |task| in_transactions(&url, task).await).await;
        println!("{pooler:?}, one transaction, unnamed: {tally:?}");
        let all = AT_ONCE * TRANSACTIONS * QUERIES;
        assert_eq!(
            tally,
            Tally {
                right: all,
                ..Tally::default()
            }
        );
        assert_eq!(all, 10_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_without_a_transaction_is_wrong() {
    let (bouncer, database) = start(Pooler::Plain).await;
    let url = bouncer.url(&database);
    let tally = total(async |task| plainly(&url, task).await).await;
    println!("Plain, no transaction, unnamed: {tally:?}");
    assert!(tally.wrong > 0, "{tally:?}");
}

#[tokio::test]
async fn a_type_of_ones_own_needs_no_name_and_leaves_none() {
    let database = postgres().fresh_database().await;
    let bouncer = PgBouncer::start(Pooler::Plain, postgres(), 1, 10);
    let mut owner = PgConnection::connect(database.url()).await.expect("server");
    owner
        .execute(
            "create type mood as enum ('good', 'bad'); create type \"Odd name\" as (mood mood, moods mood[]);
             create table days (day int, mood mood)",
        )
        .await
        .expect("creates");
    let url = bouncer.url(&database);
    // Somebody else has left sqlx's first two names on the server's only connection.
    let mut other = PgConnection::connect(&url).await.expect("PgBouncer");
    sqlx::raw_sql("prepare sqlx_s_1 as select 1; prepare sqlx_s_2 as select 2")
        .execute(&mut other)
        .await
        .expect("prepares");
    let mut first = PgConnection::connect(&url).await.expect("PgBouncer");
    PooledTransaction::learn_types(&mut first)
        .await
        .expect("learns");
    for commits in [true, false] {
        let mut db = PooledTransaction::begin(&mut first).await.expect("begins");
        let sql = "select 'good'::mood, $1::int4, null::\"Odd name\", array['bad'::mood]";
        let row = sqlx::query(sql)
            .bind(1)
            .fetch_one(&mut db)
            .await
            .expect("answers");
        assert_eq!(row.get::<i32, _>(1), 1);
        let ended = if commits {
            db.commit().await
        } else {
            db.rollback().await
        };
        ended.expect("ends");
        let mut second = PgConnection::connect(&url).await.expect("PgBouncer");
        let row = sqlx::raw_sql("select count(*) from pg_prepared_statements")
            .fetch_one(&mut second)
            .await
            .expect("counts");
        assert_eq!(row.get::<i64, _>(0), 2, "the two that were there before");
    }
}

#[tokio::test]
async fn what_would_end_the_transaction_is_refused_before_it_is_sent() {
    let (bouncer, database) = start(Pooler::Plain).await;
    let url = bouncer.url(&database);
    let mut connection = PgConnection::connect(&url).await.expect("PgBouncer");
    let mut db = PooledTransaction::begin(&mut connection)
        .await
        .expect("begins");
    for sql in ["commit", "select 1; rollback"] {
        let error = sqlx::raw_sql(sql)
            .execute(&mut db)
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("would end"), "{error}");
    }
    let error = (&mut db)
        .prepare(sqlx::SqlStr::from_static("select 1"))
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("cannot be prepared"), "{error}");
    let undone = "savepoint a; create table t (id int); rollback to a";
    sqlx::raw_sql(undone).execute(&mut db).await.expect("fine");
    db.rollback().await.expect("rolls back");
}

mod full {
    use super::*;

    static BOUNCER: LazyLock<PgBouncer> =
        LazyLock::new(|| PgBouncer::start(Pooler::Plain, postgres(), 2, 3));
    static DATABASE: OnceLock<Database> = OnceLock::new();

    async fn through_the_bouncer() -> Result<Secret, Error> {
        let database = DATABASE.get().expect("set");
        Ok(Secret::new(Postgres::PASSWORD)
            .user(Postgres::USER)
            .host("127.0.0.1")
            .port(BOUNCER.port())
            .database(database.name()))
    }

    #[db_handler(credentials = through_the_bouncer, pool(max = 20, acquire_ms = 20000))]
    async fn handler(event: LambdaEvent<i32>, db: &mut PgConnection) -> Result<i32, Error> {
        let mut db = PooledTransaction::begin(db).await?;
        let doubled = sqlx::query_scalar("select $1::int4 * 2 from pg_sleep(0.05)")
            .bind(event.payload)
            .fetch_one(&mut db)
            .await?;
        db.commit().await?;
        Ok(doubled)
    }

    /// PgBouncer's own limit, not the server's.
    #[tokio::test]
    async fn whom_a_proxy_turns_away_asks_again() {
        let database = postgres().fresh_database().await;
        DATABASE.set(database).expect("once");
        LazyLock::force(&BOUNCER);
        let answers = join_all((0..12).map(async |number| {
            let event = LambdaEvent::new(number, db_handler::Context::default());
            handler(event).await
        }));
        for (number, answer) in (0..).zip(answers.await) {
            assert_eq!(answer.expect("let in in the end"), number * 2);
        }
    }
}
