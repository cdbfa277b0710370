//! Implements sqlx's executor for [`PgBouncerTransaction`]: every statement is unnamed, and its result is recorded.

use super::{PgBouncerTransaction, statement, types};
use crate::{
    config::Proxy,
    drivers::sql::error,
    error::{Error, ErrorKind},
    util::clock::Stamp,
};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Execute, Executor, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use sqlx_core::describe::Describe;

/// What the statements of a transaction have shown so far.
#[derive(Debug)]
pub(super) struct Watch {
    /// When the last statement was sent or its reply arrived.
    pub(super) heard: Stamp,
    /// A statement failed.
    pub(super) failed: bool,
    /// Why the connection was lost, if a statement found that out.
    pub(super) lost: Option<String>,
    /// sqlx may know a type that no longer exists, or did not know one.
    pub(super) types_outdated: bool,
    /// One of the statements may be SQL's own `PREPARE`.
    pub(super) prepares: bool,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            heard: Stamp::now(),
            failed: false,
            lost: None,
            types_outdated: false,
            prepares: false,
        }
    }

    fn sends(&mut self, sql: &str) {
        self.heard = Stamp::now();
        self.prepares |= statement::may_prepare(sql);
    }

    fn fails(&mut self, error: sqlx::Error) -> sqlx::Error {
        self.failed = true;
        // A protocol error may come from the query itself, which was not sent then.
        let is_protocol = matches!(error, sqlx::Error::Protocol(_));
        if !is_protocol && error::ends_the_connection(&error) {
            self.lost = Some(error.to_string());
        }
        self.types_outdated |= types::may_be_outdated(&error);
        if !types::was_asked_for(&error) {
            return error;
        }
        let what = format!(
            "{error}: a type of the database's own was created or replaced since this connection asked for them; the next transaction knows it"
        );
        error::wrapped(Error::new(ErrorKind::Query, what).caused_by(error))
    }

    fn is_answered(&mut self) {
        self.heard = Stamp::now();
    }

    fn hears<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        result.map_err(|error| self.fails(error))
    }
}

impl PgBouncerTransaction {
    fn sends(&mut self, query: &Unnamed) {
        let sql = query.sql.as_str();
        self.watch.sends(sql);
        self.pinned |= self.proxy == Some(Proxy::Rds) && statement::may_pin(sql);
    }
}

/// A query that is sent without a name.
struct Unnamed {
    sql: SqlStr,
    statement: Option<PgStatement>,
    arguments: Option<Result<Option<PgArguments>, BoxDynError>>,
}

impl Unnamed {
    fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let statement = query.statement().cloned();
        let arguments = Some(query.take_arguments());
        let sql = query.sql();
        if let Some(refused) = statement::refused(sql.as_str()) {
            return Err(sqlx::Error::Protocol(refused.to_string()));
        }
        Ok(Self {
            sql,
            statement,
            arguments,
        })
    }
}

impl Execute<'_, Postgres> for Unnamed {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.arguments.take().unwrap_or(Ok(None))
    }

    fn persistent(&self) -> bool {
        false
    }
}

impl<'t> Executor<'t> for &'t mut PgBouncerTransaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match Unnamed::new(query) {
            Ok(query) => {
                self.sends(&query);
                let (connection, watch) = self.parts();
                let results = connection.fetch_many(query);
                let results = results.map(|result| {
                    // Not once per row: that would read the clock too often.
                    if matches!(result, Ok(Either::Left(_))) {
                        watch.is_answered();
                    }
                    watch.hears(result)
                });
                results.boxed()
            }
            Err(refused) => stream::once(ready(Err(refused))).boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match Unnamed::new(query) {
            Ok(query) => {
                self.sends(&query);
                let (connection, watch) = self.parts();
                let row = connection.fetch_optional(query);
                let row = row.map(|row| {
                    watch.is_answered();
                    watch.hears(row)
                });
                row.boxed()
            }
            Err(refused) => ready(Err(refused)).boxed(),
        }
    }

    fn prepare_with<'e>(
        self,
        _: SqlStr,
        _: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        't: 'e,
    {
        let refused = sqlx::Error::Protocol(
            "a statement cannot be prepared behind a pooler: run the query itself".to_owned(),
        );
        ready(Err(refused)).boxed()
    }

    // Required by sqlx's hidden feature `offline`, which its default features switch on.
    fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        't: 'e,
    {
        let refused = sqlx::Error::Protocol(
            "a statement cannot be described behind a pooler: sqlx would prepare it by name"
                .to_owned(),
        );
        ready(Err(refused)).boxed()
    }
}
