//! Runs sqlx's queries on a shared [`Db`].

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
    /// Releases the connection at once, unless the error says that it cannot be reused. If the reply leaves something
    /// open, the next user has to check the connection first: a transaction that `may_be_open`, or a reply that sqlx
    /// did not read to its end.
    fn after<T>(self, result: &Result<T, sqlx::Error>, may_be_open: bool) {
        match result {
            Err(error) if error::ends_the_connection(error) => drop(self),
            Err(error) if error::outdates_the_connection(error) => self.outdated(),
            _ if may_be_open => self.in_hand(),
            Ok(_) => self.responded(),
            Err(sqlx::Error::Database(_)) => self.refused(),
            Err(_) => self.in_hand(),
        }
    }

    /// Like [`after`](Self::after) for a query that needs only the first row. With MySQL, sqlx stops reading then: the
    /// rest may be another statement's reply, its error, or a statement that still runs.
    fn after_first<T>(mut self, result: &Result<T, sqlx::Error>, may_be_open: bool) {
        if result.is_ok() && !DB::IN_PROCESS && !self.is_quiet() {
            // The check may have read half a packet, so reading on is not enough.
            self.in_hand();
        } else {
            self.after(result, may_be_open);
        }
    }
}
