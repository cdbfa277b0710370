//! Resources that can be injected behind each proxy.

#![deny(warnings)]

use db_handler::PgBouncerTransaction;
use db_handler::config::Defaults;
use db_handler::mongodb;
use db_handler::resource::{AcquireContext, Resource, TransactionPoolingSafe};
use db_handler::sqlx::{
    MySqlConnection, MySqlPool, MySqlTransaction, PgConnection, PgPool, PgTransaction, Postgres,
    SqliteTransaction,
};
use db_handler::{Background, Db, Error, LambdaEvent, db_handler};

struct Own;

impl Resource for Own {
    const NAME: &'static str = "own";
    const DEFAULTS: Defaults = Defaults::KEPT;

    async fn open(_: &AcquireContext) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl TransactionPoolingSafe for Own {}

#[db_handler(proxy = "pgbouncer")]
async fn pgbouncer(
    _: LambdaEvent<()>,
    db: &mut PgBouncerTransaction,
    #[db(close = "never")] kept: &mut PgBouncerTransaction,
    background: &Background,
    client: &mongodb::Client,
    database: &mongodb::Database,
    own: &Own,
) -> Result<(), Error> {
    let _ = (db, kept, background, client, database, own);
    Ok(())
}

#[db_handler(proxy = "rds")]
async fn rds(
    _: LambdaEvent<()>,
    a: &PgPool,
    b: &Db<Postgres>,
    c: &mut PgConnection,
    d: &mut PgTransaction<'_>,
    e: &MySqlPool,
    f: &mut MySqlConnection,
    g: &mut MySqlTransaction<'_>,
    own: &Own,
) -> Result<(), Error> {
    let _ = (a, b, c, d, e, f, g, own);
    Ok(())
}

#[db_handler(proxy = "rds", close = "never")]
async fn rds_kept(
    _: LambdaEvent<()>,
    db: &mut PgBouncerTransaction,
    own: &Own,
) -> Result<(), Error> {
    let _ = (db, own);
    Ok(())
}

#[db_handler]
async fn only_one_of_them(
    _: LambdaEvent<()>,
    #[db(proxy = "pgbouncer")] db: &mut PgBouncerTransaction,
    straight: &mut PgTransaction<'_>,
    file: &mut SqliteTransaction<'_>,
) -> Result<(), Error> {
    let _ = (db, straight, file);
    Ok(())
}

struct Api;

impl Api {
    #[db_handler(proxy = "rds", close = "on_error")]
    async fn generic<T: Resource + TransactionPoolingSafe>(
        &self,
        _: LambdaEvent<()>,
        own: &T,
        db: &mut PgBouncerTransaction,
    ) -> Result<(), Error> {
        let _ = (own, db);
        Ok(())
    }
}

pub(crate) fn main() {
    let _ = (
        pgbouncer,
        rds,
        rds_kept,
        only_one_of_them,
        Api::generic::<Own>,
    );
}
