//! A dropped query is cancelled on the server.

use crate::pgbouncer::world::{behind, event_within};
use db_handler::{
    Error, ErrorKind, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self},
};
use futures_util::future::join_all;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use support::{Pooler, wait_for};

behind!(Pooler::Plain, 5, 50);

/// Cancelling it needs another connection, which may take long on a busy machine.
#[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", deadline(reserve_ms = 2000))]
async fn endless(event: LambdaEvent<f64>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
    sqlx::query("select pg_sleep($1)")
        .bind(event.payload)
        .execute(db)
        .await?;
    Ok(())
}

/// Queries of the same user, through the same pooler, on the same server connections.
async fn neighbour(stop: &AtomicBool) -> u32 {
    let mut connection = behind().await.plain().await;
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        sqlx::raw_sql("select pg_sleep(0.01)")
            .execute(&mut connection)
            .await
            .expect("nobody stops this one");
        rounds += 1;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_dropped_query_is_cancelled_on_the_server() {
    support::measures_time();
    let behind = behind().await;
    let stop = AtomicBool::new(false);
    let given_up = async {
        for round in 0..8 {
            let left = Duration::from_millis(2_600 + round * 7);
            let error = endless(event_within(60.0, left))
                .await
                .expect_err("stopped");
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
            let sleeps = async || {
                let running = behind.database.running_queries().await;
                running.iter().filter(|sql| sql.contains("$1")).count()
            };
            wait_for("the end of the dropped query", sleeps, |n| *n == 0).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let neighbours = join_all((0..8).map(|_| neighbour(&stop)));
    let ((), rounds) = futures_util::join!(given_up, neighbours);
    println!("neighbours' statements: {rounds:?}");
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
}
