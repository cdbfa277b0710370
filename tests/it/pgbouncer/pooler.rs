//! Restarts, limits and modes of the pooler.

use crate::pgbouncer::world::{behind, event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self},
};
use futures_util::future::join_all;
use support::Pooler;

mod a_restart_of_the_pooler {
    use super::*;

    behind!(Pooler::Plain, 2, 20);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", check(trust_ms = 60000))]
    async fn trusting(
        event: LambdaEvent<i32>,
        db: &mut PgBouncerTransaction,
    ) -> Result<i32, Error> {
        let query = sqlx::query_scalar("select $1::int4 + 1").bind(event.payload);
        Ok(query.fetch_one(db).await?)
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never", check(trust_ms = 0))]
    async fn asking(event: LambdaEvent<i32>, db: &mut PgBouncerTransaction) -> Result<i32, Error> {
        let query = sqlx::query_scalar("select $1::int4 + 1").bind(event.payload);
        Ok(query.fetch_one(db).await?)
    }

    #[tokio::test]
    async fn restart_between_invocations_fails_none() {
        // Starts the pooler before the handler's time limit begins.
        behind().await;
        for number in 0..5 {
            assert_eq!(trusting(event(number)).await.expect("answers"), number + 1);
            assert_eq!(asking(event(number)).await.expect("answers"), number + 1);
            behind().await.bouncer.lock().expect("whole").restart();
        }
    }
}

mod a_full_pooler {
    use super::*;

    behind!(Pooler::Plain, 2, 3);

    #[db_handler(proxy = "pgbouncer", credentials = through_it, pool(max = 20, acquire_ms = 20000))]
    async fn handler(event: LambdaEvent<i32>, db: &mut PgBouncerTransaction) -> Result<i32, Error> {
        let doubled = sqlx::query_scalar("select $1::int4 * 2 from pg_sleep(0.05)")
            .bind(event.payload)
            .fetch_one(db)
            .await?;
        Ok(doubled)
    }

    /// The limit is PgBouncer's, not the server's.
    #[tokio::test]
    async fn rejected_connections_are_retried() {
        behind().await;
        let answers = join_all((0..12).map(async |number| handler(event(number)).await));
        for (number, answer) in (0..).zip(answers.await) {
            assert_eq!(answer.expect("let in in the end"), number * 2);
        }
    }
}

mod statement_pooling {
    use super::*;

    behind!(Pooler::Statements, 2, 10);

    #[db_handler(proxy = "pgbouncer", credentials = through_it)]
    async fn handler(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<(), Error> {
        sqlx::query("select 1").execute(db).await?;
        Ok(())
    }

    #[tokio::test]
    async fn error_names_required_pool_mode() {
        behind().await;
        let error = handler(event(())).await.expect_err("no transaction");
        let text = error.to_string();
        assert!(text.contains("statement pooling mode"), "{text}");
        assert!(text.contains("`pool_mode = transaction`"), "{text}");
    }
}
