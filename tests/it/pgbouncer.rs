//! Behind a PgBouncer that pools transactions: nobody gets another one's rows, and nobody notices it.

use db_handler::{
    Context, Error, ErrorKind, LambdaEvent,
    credentials::Secret,
    db_handler,
    resource::sql::PooledTransaction,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row,
        postgres::PgConnectOptions,
    },
};
use futures_util::{FutureExt, future::join_all};
use std::{
    panic::AssertUnwindSafe,
    str::FromStr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::{Database, PgBouncer, Pooler, Postgres, postgres, wait_for};
use tokio::sync::OnceCell;

/// Connections of PgBouncer to the server.
const SERVERS: usize = 5;
const AT_ONCE: i32 = 40;
const INVOCATIONS: i32 = 50;
const QUERIES: i32 = 5;

/// What the queries of a run came to.
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

/// A question of its own for each number, with a statement of its own.
fn question(number: i32) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("select $1::int4 + {number}"))
}

/// A PgBouncer, and a database behind it.
struct Behind {
    bouncer: Mutex<PgBouncer>,
    database: Database,
}

impl Behind {
    async fn start(pooler: Pooler, servers: usize, clients: usize) -> Self {
        let database = postgres().fresh_database().await;
        let bouncer = PgBouncer::start(pooler, postgres(), servers, clients);
        Self {
            bouncer: Mutex::new(bouncer),
            database,
        }
    }

    fn secret(&self) -> Secret {
        let port = self.bouncer.lock().expect("whole").port();
        Secret::new(Postgres::PASSWORD)
            .user(Postgres::USER)
            .host("127.0.0.1")
            .port(port)
            .database(self.database.name())
    }

    /// A connection through the bouncer as sqlx makes it, but for what any PgBouncer turns away.
    async fn plain(&self) -> PgConnection {
        let url = self.bouncer.lock().expect("whole").url(&self.database);
        let options = PgConnectOptions::from_str(&url).expect("a URL");
        let options = options.extra_float_digits(None);
        options.connect().await.expect("PgBouncer")
    }

    /// A connection past it.
    async fn direct(&self) -> PgConnection {
        PgConnection::connect(self.database.url())
            .await
            .expect("the server")
    }
}

/// A PgBouncer of a test's own, and `through_it` for the `credentials` of its handlers.
macro_rules! behind {
    ($pooler:expr, $servers:expr, $clients:expr) => {
        static BEHIND: OnceCell<Behind> = OnceCell::const_new();

        async fn behind() -> &'static Behind {
            BEHIND
                .get_or_init(|| Behind::start($pooler, $servers, $clients))
                .await
        }

        async fn through_it() -> Result<Secret, Error> {
            Ok(behind().await.secret())
        }
    };
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

/// An event with so much time left.
fn event_within<T>(payload: T, left: Duration) -> LambdaEvent<T> {
    let deadline = SystemTime::now() + left;
    let deadline = deadline.duration_since(UNIX_EPOCH).expect("after 1970");
    let mut context = Context::default();
    context.deadline = u64::try_from(deadline.as_millis()).expect("before the year 584556019");
    LambdaEvent::new(payload, context)
}

mod ten_thousand_queries {
    use super::*;

    /// The first number of an invocation's questions, and what is added to each.
    type Questions = (i32, i32);

    async fn ask((first, bound): Questions, db: &mut PooledTransaction) -> Result<Vec<i32>, Error> {
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
                    db: &mut PooledTransaction,
                ) -> Result<Vec<i32>, Error> {
                    ask(event.payload, db).await
                }

                #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", pool(max = 40, acquire_ms = 20000))]
                pub(super) async fn never(
                    event: LambdaEvent<Questions>,
                    db: &mut PooledTransaction,
                ) -> Result<Vec<i32>, Error> {
                    ask(event.payload, db).await
                }
            }
        };
    }

    handlers!(plain, Pooler::Plain);
    handlers!(tracking, Pooler::Tracking);

    /// One caller after the other: `AT_ONCE` of them are there at any time.
    async fn all_right(
        name: &str,
        handler: impl AsyncFn(LambdaEvent<Questions>) -> Result<Vec<i32>, Error>,
    ) {
        let begun = Instant::now();
        let mut total = Tally::default();
        let callers = join_all((0..AT_ONCE).map(async |caller| {
            let mut tally = Tally::default();
            for bound in 0..INVOCATIONS {
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
            right: 10_000,
            ..Tally::default()
        };
        assert_eq!(total, all, "{name}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn side_by_side_have_their_own_answers() {
        support::alone();
        all_right("1.18, always", plain::always).await;
        all_right("1.18, never", plain::never).await;
        all_right("1.24, always", tracking::always).await;
        all_right("1.24, never", tracking::never).await;
    }
}

/// What the same comes to with plain connections: the tests would see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_without_a_transaction_is_wrong() {
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

mod a_type_of_ones_own {
    use super::*;

    behind!(Pooler::Plain, 1, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn handler(event: LambdaEvent<bool>, db: &mut PooledTransaction) -> Result<i32, Error> {
        let sql = "select 'good'::mood, $1::int4, null::\"Odd name\", array['bad'::mood]";
        let row = sqlx::query(sql).bind(7).fetch_one(db).await?;
        if event.payload {
            Ok(row.get(1))
        } else {
            Err(Error::other("told to fail"))
        }
    }

    #[tokio::test]
    async fn needs_no_name_and_leaves_none() {
        let behind = behind().await;
        let mut owner = behind.direct().await;
        owner
            .execute(
                "create type mood as enum ('good', 'bad'); create type \"Odd name\" as (mood mood, moods mood[]);
                 create table days (day int, mood mood)",
            )
            .await
            .expect("creates");
        // Somebody else has left sqlx's first two names on the server's only connection.
        let mut other = behind.plain().await;
        sqlx::raw_sql("prepare sqlx_s_1 as select 1; prepare sqlx_s_2 as select 2")
            .execute(&mut other)
            .await
            .expect("prepares");
        for succeeds in [true, false, true] {
            let answer = handler(event(succeeds)).await;
            assert_eq!(answer.ok(), succeeds.then_some(7));
            let row = sqlx::raw_sql("select count(*) from pg_prepared_statements")
                .fetch_one(&mut other)
                .await
                .expect("counts");
            let left = row.get::<i64, _>(0);
            assert_eq!(left, 2, "the two that were there before");
        }
    }
}

mod the_end {
    use super::*;

    behind!(Pooler::Plain, 2, 20);

    #[derive(Clone, Copy)]
    enum Then {
        Succeed,
        Fail,
        Panic,
        Sleep,
        PassOver,
    }

    async fn insert(then: Then, db: &mut PooledTransaction) -> Result<i64, Error> {
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

    // A busy machine stops nothing within the usual reserve.
    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", deadline(reserve_ms = 2000))]
    async fn never(event: LambdaEvent<Then>, db: &mut PooledTransaction) -> Result<i64, Error> {
        insert(event.payload, db).await
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it, deadline(reserve_ms = 2000))]
    async fn always(event: LambdaEvent<Then>, db: &mut PooledTransaction) -> Result<i64, Error> {
        insert(event.payload, db).await
    }

    /// RDS Proxy is not to be had here: what goes through it must at least go through this.
    #[db_handler(proxy = "rds", credentials = through_it, close = "never")]
    async fn as_for_rds(
        event: LambdaEvent<Then>,
        db: &mut PooledTransaction,
    ) -> Result<i64, Error> {
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
                took < Duration::from_secs(3),
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
    async fn commits_on_ok_and_nothing_else_does() {
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
}

mod a_query_that_is_given_up {
    use super::*;

    behind!(Pooler::Plain, SERVERS, 50);

    /// Stopping it needs a connection beside the neighbours', which takes its time on a busy machine.
    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", deadline(reserve_ms = 2000))]
    async fn endless(event: LambdaEvent<f64>, db: &mut PooledTransaction) -> Result<(), Error> {
        sqlx::query("select pg_sleep($1)")
            .bind(event.payload)
            .execute(db)
            .await?;
        Ok(())
    }

    /// The same user's, through the same pooler, on the same connections to the server.
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
    async fn is_stopped_on_the_server_and_nobody_elses() {
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
                wait_for("the end of what was given up", sleeps, |n| *n == 0).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let neighbours = join_all((0..8).map(|_| neighbour(&stop)));
        let ((), rounds) = futures_util::join!(given_up, neighbours);
        println!("neighbours' statements: {rounds:?}");
        assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
    }
}

mod a_restart_of_the_pooler {
    use super::*;

    behind!(Pooler::Plain, 2, 20);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", check(trust_ms = 60000))]
    async fn trusting(event: LambdaEvent<i32>, db: &mut PooledTransaction) -> Result<i32, Error> {
        let query = sqlx::query_scalar("select $1::int4 + 1").bind(event.payload);
        Ok(query.fetch_one(db).await?)
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", check(trust_ms = 0))]
    async fn asking(event: LambdaEvent<i32>, db: &mut PooledTransaction) -> Result<i32, Error> {
        let query = sqlx::query_scalar("select $1::int4 + 1").bind(event.payload);
        Ok(query.fetch_one(db).await?)
    }

    #[tokio::test]
    async fn between_two_invocations_costs_none() {
        // Started here, not within the handler's own time.
        behind().await;
        for number in 0..5 {
            assert_eq!(trusting(event(number)).await.expect("answers"), number + 1);
            assert_eq!(asking(event(number)).await.expect("answers"), number + 1);
            behind().await.bouncer.lock().expect("whole").restart();
        }
    }
}

mod a_statement {
    use super::*;

    behind!(Pooler::Plain, 2, 20);

    #[db_handler(proxy = "pgbouncer", credentials = through_it)]
    async fn run(event: LambdaEvent<String>, db: &mut PooledTransaction) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(event.payload))
            .execute(db)
            .await?;
        Ok(())
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it)]
    async fn prepare(_: LambdaEvent<()>, db: &mut PooledTransaction) -> Result<(), Error> {
        db.prepare(sqlx::SqlStr::from_static("select 1")).await?;
        Ok(())
    }

    #[tokio::test]
    async fn that_ends_or_outlives_the_transaction_is_refused_before_it_is_sent() {
        // Started here, not within the handler's own time.
        behind().await;
        for (sql, word) in [
            ("commit", "would end"),
            ("select 1; rollback", "would end"),
            ("set search_path to x", "SET LOCAL"),
            ("listen orders", "another client gets next"),
        ] {
            let error = run(event(sql.to_owned())).await.expect_err("refused");
            assert!(error.to_string().contains(word), "{error}");
        }
        let error = prepare(event(())).await.expect_err("refused");
        assert!(error.to_string().contains("cannot be prepared"), "{error}");
        for fine in [
            "savepoint a; create table t (id int); rollback to a",
            "set local search_path to x",
        ] {
            run(event(fine.to_owned())).await.expect("fine");
        }
    }
}

mod the_label {
    use super::*;

    behind!(Pooler::Plain, 1, 20);

    const NAME: &str = "select application_name from pg_stat_activity where pid = pg_backend_pid()";

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn name(_: LambdaEvent<()>, db: &mut PooledTransaction) -> Result<String, Error> {
        Ok(sqlx::query_scalar(NAME).fetch_one(db).await?)
    }

    /// Whoever stops something by its name must find nobody else under it.
    #[tokio::test]
    async fn has_a_tag_that_no_session_keeps() {
        let behind = behind().await;
        let mut other = behind.plain().await;
        let inside = name(event(())).await.expect("answers");
        let (label, tag) = inside.split_once(" #").expect("a label and a tag");
        assert!(label.starts_with("it-"), "{inside}");
        assert_eq!(tag.len(), 8, "{inside}");
        let row = sqlx::raw_sql(NAME).fetch_one(&mut other).await;
        let outside: String = row.expect("answers").get(0);
        assert!(!outside.contains('#'), "{outside}");
        assert_eq!(name(event(())).await.expect("answers"), inside, "kept");
    }
}

mod behind_rds {
    use super::*;

    /// Straight to the server: other than through a pooler, a connection can be told by its session there.
    static SERVER: OnceCell<Database> = OnceCell::const_new();

    async fn straight() -> Result<Secret, Error> {
        let database = SERVER.get_or_init(|| postgres().fresh_database()).await;
        Ok(Secret::new(Postgres::PASSWORD)
            .user(Postgres::USER)
            .host("127.0.0.1")
            .port(postgres().port())
            .database(database.name()))
    }

    #[db_handler(proxy = "rds", credentials = straight, close = "never")]
    async fn session(event: LambdaEvent<&str>, db: &mut PooledTransaction) -> Result<i32, Error> {
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
}

mod a_full_pooler {
    use super::*;

    behind!(Pooler::Plain, 2, 3);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, pool(max = 20, acquire_ms = 20000))]
    async fn handler(event: LambdaEvent<i32>, db: &mut PooledTransaction) -> Result<i32, Error> {
        let doubled = sqlx::query_scalar("select $1::int4 * 2 from pg_sleep(0.05)")
            .bind(event.payload)
            .fetch_one(db)
            .await?;
        Ok(doubled)
    }

    /// PgBouncer's own limit, not the server's.
    #[tokio::test]
    async fn whom_a_proxy_turns_away_asks_again() {
        behind().await;
        let answers = join_all((0..12).map(async |number| handler(event(number)).await));
        for (number, answer) in (0..).zip(answers.await) {
            assert_eq!(answer.expect("let in in the end"), number * 2);
        }
    }
}
