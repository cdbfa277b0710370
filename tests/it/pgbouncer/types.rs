//! User-defined types.

use crate::pgbouncer::world::{behind, event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, Executor, Row},
};
use support::Pooler;

behind!(Pooler::Plain, 1, 10);

#[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
async fn handler(event: LambdaEvent<bool>, db: &mut PgBouncerTransaction) -> Result<i32, Error> {
    let sql = "select 'good'::mood, $1::int4, null::\"Odd name\", array['bad'::mood]";
    let row = sqlx::query(sql).bind(7).fetch_one(db).await?;
    if event.payload {
        Ok(row.get(1))
    } else {
        Err(Error::other("told to fail"))
    }
}

#[tokio::test]
async fn user_defined_type_needs_and_leaves_no_prepared_statement() {
    let behind = behind().await;
    let mut owner = behind.direct().await;
    owner
        .execute(
            "create type mood as enum ('good', 'bad'); create type \"Odd name\" as (mood mood, moods mood[]);
             create table days (day int, mood mood)",
        )
        .await
        .expect("creates");
    // Another client has left statements with sqlx's first two names on the server's only connection.
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

/// A database behind its own PgBouncer, and a handler that selects from it.
macro_rules! selecting {
    () => {
        behind!(Pooler::Plain, 2, 10);

        #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
        async fn select(
            event: LambdaEvent<&'static str>,
            db: &mut PgBouncerTransaction,
        ) -> Result<usize, Error> {
            // The transaction has executed a statement before it uses the type.
            sqlx::query("select $1::int4")
                .bind(1)
                .execute(&mut *db)
                .await?;
            let row = sqlx::query(event.payload).bind(1).fetch_one(db).await?;
            Ok(row.len())
        }
    };
}

mod enums {
    use super::*;
    use db_handler::sqlx::{
        encode::IsNull,
        error::BoxDynError,
        postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo},
    };

    selecting!();

    struct Mood;

    impl sqlx::Type<sqlx::Postgres> for Mood {
        fn type_info() -> PgTypeInfo {
            PgTypeInfo::with_name("mood")
        }
    }

    impl sqlx::Encode<'_, sqlx::Postgres> for Mood {
        fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            buffer.extend_from_slice(b"good");
            Ok(IsNull::No)
        }
    }

    impl PgHasArrayType for Mood {
        fn array_type_info() -> PgTypeInfo {
            PgTypeInfo::with_name("_mood")
        }
    }

    #[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
    async fn bind(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<bool, Error> {
        let both = sqlx::query_scalar("select $1 = any($2)")
            .bind(Mood)
            .bind(vec![Mood]);
        Ok(both.fetch_one(db).await?)
    }

    #[tokio::test]
    async fn recreated_enum_fails_no_invocation_of_reused_connection() {
        let behind = behind().await;
        let mut owner = behind.direct().await;
        assert_eq!(select(event("select $1::int4")).await.expect("opens"), 1);
        for _ in 0..3 {
            owner
                .execute("drop type if exists mood; create type mood as enum ('good')")
                .await
                .expect("creates");
            let both = "select $1::int4, null::mood, array['good'::mood]";
            assert_eq!(select(event(both)).await.expect("knows both"), 3);
            assert!(bind(event(())).await.expect("knows both by name"));
        }
        owner
            .execute("create type span as range (subtype = timestamptz)")
            .await
            .expect("creates");
        let range = "select $1::int4, null::span";
        assert_eq!(select(event(range)).await.expect("knows it"), 2);
    }
}

mod composites {
    use super::*;

    selecting!();

    #[tokio::test]
    async fn composite_created_later_fails_at_most_one_invocation() {
        let behind = behind().await;
        let mut owner = behind.direct().await;
        assert_eq!(select(event("select $1::int4")).await.expect("opens"), 1);
        owner
            .execute("create type place as (x int, y int); create type line as (a place, b place)")
            .await
            .expect("creates");
        let first = select(event("select $1::int4, null::place")).await;
        let error = first.expect_err("no index tells").to_string();
        assert!(error.contains("a type of the database's own"), "{error}");
        let all = "select $1::int4, null::place, null::place[], null::line";
        assert_eq!(select(event(all)).await.expect("knows all"), 4);
    }
}

mod unknown {
    use super::*;

    selecting!();

    #[tokio::test]
    async fn inaccessible_type_fails_no_other_statement() {
        let behind = behind().await;
        // The owner of a schema can revoke its own access.
        let mut owner = behind.direct().await;
        owner
            .execute(
                "create schema closed; create type closed.secret as enum ('a');
                 revoke usage on schema closed from current_user;
                 create type many as (spans int4multirange)",
            )
            .await
            .expect("creates");
        assert_eq!(select(event("select $1::int4")).await.expect("opens"), 1);
    }
}
