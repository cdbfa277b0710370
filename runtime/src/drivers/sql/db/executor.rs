//! sqlx's queries on a [`Db`] by shared reference.

use super::{Db, text};
use crate::drivers::sql::{Driver, error};
use futures_util::{TryStreamExt, future::BoxFuture, stream::BoxStream};
use sqlx::{Database, Either, Execute, Executor, SqlStr};
use sqlx_core::describe::Describe;

impl<'p, DB: Driver> Executor<'p> for &'p Db<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Database = DB;

    fn execute<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<<DB as Database>::QueryResult, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        Box::pin(async move {
            let mut checkout = self.for_statement().await?;
            let (query, text) = text::watch(query);
            let result = (&mut *checkout).execute(query).await;
            checkout.after(&result, text.may_leave_a_transaction());
            result
        })
    }

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<DB::QueryResult, DB::Row>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        Box::pin(async_stream::try_stream! {
            let mut checkout = self.for_statement().await?;
            let mut failure = None;
            let (query, text) = text::watch(query);
            {
                let mut steps = (&mut *checkout).fetch_many(query);
                loop {
                    match steps.try_next().await {
                        Ok(Some(step)) => yield step,
                        Ok(None) => break,
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                }
            }
            let result = failure.map_or(Ok(()), Err);
            checkout.after(&result, text.may_leave_a_transaction());
            result?;
        })
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<DB::Row>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        Box::pin(async move {
            let mut checkout = self.for_statement().await?;
            let (query, text) = text::watch(query);
            let result = (&mut *checkout).fetch_all(query).await;
            checkout.after(&result, text.may_leave_a_transaction());
            result
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        Box::pin(async move {
            let mut checkout = self.for_statement().await?;
            let (query, text) = text::watch(query);
            let result = (&mut *checkout).fetch_optional(query).await;
            checkout.after_first(&result, text.may_leave_a_transaction());
            result
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut checkout = self.for_statement().await?;
            let result = (&mut *checkout).prepare_with(sql, parameters).await;
            checkout.after(&result, false);
            result
        })
    }

    // Required by sqlx's hidden feature `offline`, which its default features switch on.
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut checkout = self.for_statement().await?;
            let result = (&mut *checkout).describe(sql).await;
            checkout.after(&result, false);
            result
        })
    }
}

impl<DB: Driver> crate::drivers::sql::Checkout<DB> {
    /// Back at once, unless the error says that the connection is of no more use. What the reply cannot tell,
    /// the next user has to ask first: a transaction that `may_be_open`, or a reply that sqlx gave up on.
    fn after<T>(self, result: &Result<T, sqlx::Error>, may_be_open: bool) {
        match result {
            Err(error) if error::ends_the_connection(error) => drop(self),
            Err(error) if error::outdates_the_connection(error) => self.outdated(),
            _ if may_be_open => self.in_hand(),
            Ok(_) => self.answered(),
            Err(sqlx::Error::Database(_)) => self.refused(),
            Err(_) => self.in_hand(),
        }
    }

    /// The same where the first row was enough: in MySQL sqlx does not read on then, and what follows may be another
    /// statement's reply, its error, or something that still runs.
    fn after_first<T>(mut self, result: &Result<T, sqlx::Error>, may_be_open: bool) {
        if result.is_ok() && !DB::IN_PROCESS && !self.is_quiet() {
            // Looking has perhaps taken half a packet, so it is not enough to read on.
            self.in_hand();
        } else {
            self.after(result, may_be_open);
        }
    }
}
