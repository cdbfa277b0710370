//! What would mix up the sessions of a pooler is not lent behind one.

use db_handler::sqlx::{MySqlPool, PgConnection, PgPool, PgTransaction, Postgres};
use db_handler::{Db, Error, LambdaEvent, db_handler};

#[db_handler(proxy = "pgbouncer")]
async fn pool(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(proxy = "pgbouncer", close = "never")]
async fn handle(_event: LambdaEvent<()>, _db: &Db<Postgres>) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn others(
    _event: LambdaEvent<()>,
    #[db(proxy = "pgbouncer")] _connection: &mut PgConnection,
    #[db(proxy = "pgbouncer")] _transaction: &mut PgTransaction<'_>,
    #[db(proxy = "pgbouncer")] _mysql: &MySqlPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
