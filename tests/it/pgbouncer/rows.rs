//! Every invocation gets the rows of its own queries.

use crate::pgbouncer::world::{Behind, behind, event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, AssertSqlSafe},
};
use futures_util::future::join_all;
use std::time::Instant;
use support::Pooler;

/// Server connections of PgBouncer.
const SERVERS: usize = 5;
const AT_ONCE: i32 = 40;
/// Per caller.
const INVOCATIONS: i32 = 50;
/// The same if each invocation opens a connection: PgBouncer takes milliseconds to check a password.
fn opening() -> i32 {
    if crate::extended() { INVOCATIONS } else { 5 }
}
const QUERIES: i32 = 5;

/// The results of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    right: usize,
    wrong: usize,
    errors: usize,
}

impl Tally {
    fn count(&mut self, answer: Option<i32>, expected: i32) {
        match answer {
            Some(answer) if answer == expected => self.right += 1,
            Some(_) => self.wrong += 1,
            None => self.errors += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.errors += other.errors;
    }
}

/// A distinct statement for each number.
fn question(number: i32) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("select $1::int4 + {number}"))
}

/// The first number of an invocation's queries, and the value added to each.
type Questions = (i32, i32);

async fn ask((first, bound): Questions, db: &mut PgBouncerTransaction) -> Result<Vec<i32>, Error> {
    let mut answers = Vec::new();
    for number in first..first + QUERIES {
        let query = sqlx::query_scalar(question(number)).bind(bound);
        answers.push(query.fetch_one(&mut *db).await?);
    }
    Ok(answers)
}

macro_rules! handlers {
    ($module:ident, $pooler:expr) => {
        mod $module {
            use super::*;

            behind!($pooler, SERVERS, 100);

            #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "always", pool(max = 40, acquire_ms = 20000))]
            pub(super) async fn always(
                event: LambdaEvent<Questions>,
                db: &mut PgBouncerTransaction,
            ) -> Result<Vec<i32>, Error> {
                ask(event.payload, db).await
            }

            #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", pool(max = 40, acquire_ms = 20000))]
            pub(super) async fn never(
                event: LambdaEvent<Questions>,
                db: &mut PgBouncerTransaction,
            ) -> Result<Vec<i32>, Error> {
                ask(event.payload, db).await
            }
        }
    };
}

handlers!(plain, Pooler::Plain);
handlers!(tracking, Pooler::Tracking);

/// `AT_ONCE` callers run concurrently.
async fn all_right(
    name: &str,
    invocations: i32,
    handler: impl AsyncFn(LambdaEvent<Questions>) -> Result<Vec<i32>, Error>,
) {
    let begun = Instant::now();
    let mut total = Tally::default();
    let callers = join_all((0..AT_ONCE).map(async |caller| {
        let mut tally = Tally::default();
        for bound in 0..invocations {
            let first = caller * 1_000;
            let answers = handler(event((first, bound))).await;
            if let Err(error) = &answers {
                println!("{name}: {error}");
            }
            let mut answers = answers.unwrap_or_default().into_iter();
            for query in 0..QUERIES {
                tally.count(answers.next(), first + query + bound);
            }
        }
        tally
    }));
    for tally in callers.await {
        total.add(&tally);
    }
    println!("{name}: {total:?} in {:?}", begun.elapsed());
    let all = Tally {
        right: usize::try_from(AT_ONCE * invocations * QUERIES).expect("a number"),
        ..Tally::default()
    };
    assert_eq!(total, all, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_invocations_get_their_own_rows() {
    support::alone();
    all_right("1.18, always", opening(), plain::always).await;
    all_right("1.18, never", INVOCATIONS, plain::never).await;
    all_right("1.24, always", opening(), tracking::always).await;
    all_right("1.24, never", INVOCATIONS, tracking::never).await;
}

/// The same with plain connections, to show that the test detects mixed-up rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_connections_mix_up_rows() {
    support::alone();
    let behind = Behind::start(Pooler::Plain, SERVERS, 100).await;
    let mut total = Tally::default();
    let callers = join_all((0..AT_ONCE).map(async |caller| {
        let mut tally = Tally::default();
        let mut connection = behind.plain().await;
        for round in 0..50 {
            let number = caller * 1_000 + round % QUERIES;
            let query = sqlx::query_scalar(question(number)).bind(0);
            let answer = query.persistent(false).fetch_one(&mut connection).await;
            tally.count(answer.ok(), number);
        }
        tally
    }));
    for tally in callers.await {
        total.add(&tally);
    }
    println!("1.18, no transaction, unnamed: {total:?}");
    assert!(total.wrong > 0, "{total:?}");
}
