//! The types of the database's own, which sqlx has to know before a statement without a name uses one.
//!
//! sqlx asks for a type when it first meets it, between the two steps of a statement, by a simple query. That
//! ends a statement without a name: "unnamed prepared statement does not exist".

use crate::drivers::sql::error;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, raw_sql};

/// The newest enum or range type, in an expression that an index answers. Types get growing numbers.
pub(super) const NEWEST: &str = "greatest((select max(enumtypid)::int8 from pg_catalog.pg_enum), \
     (select max(rngtypid)::int8 from pg_catalog.pg_range))";

/// How many names, all of them left behind by other clients, are tried.
const NAMES_TRIED: u32 = 20;

/// A column of each type that is not PostgreSQL's own, and not the row of a table: sqlx cannot read a multirange, and
/// a type in a schema without the right to use it cannot be named. A `select` cannot have more than 1664 columns.
const OWN_TYPES: &str = "
    string_agg('null::' || own.oid::regtype, ', ')
    from (
        select type.oid
        from pg_type type
        left join pg_type element on element.oid = type.typelem and type.typcategory = 'A'
        left join pg_class rows on rows.oid = coalesce(nullif(element.typrelid, 0), type.typrelid)
        where type.oid >= 16384 and type.typtype <> 'p' and coalesce(rows.relkind, 'c') = 'c'
            and 'm' not in (type.typtype, coalesce(element.typtype, type.typtype))
            and has_schema_privilege(type.typnamespace, 'usage')
        limit 1600
    ) own";

/// Makes `connection` know the types of its database that are not PostgreSQL's own: enums, domains, composites,
/// those of extensions. Returns the newest.
///
/// In a database without such types this is one round trip; otherwise a few.
pub(super) async fn learn(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // A name that sqlx knows keeps its number, which is another one when the type has been recreated.
    connection.clear_cached_statements().await?;
    let own_types = AssertSqlSafe(format!("select {NEWEST}, {OWN_TYPES}"));
    let row = raw_sql(own_types).fetch_one(&mut *connection).await?;
    let newest = row.try_get(0)?;
    let Some(columns) = row.try_get::<Option<String>, _>(1)? else {
        return Ok(newest);
    };
    // The server has written and quoted these names itself.
    let sql = AssertSqlSafe(format!("select {columns}")).into_sql_str();
    for tries_left in (0..NAMES_TRIED).rev() {
        let mut transaction = connection.begin_with("BEGIN").await?;
        // Only a statement with a name survives the questions; it has to go again in the same transaction.
        match (&mut *transaction).prepare(sql.clone()).await {
            Ok(_) => {
                transaction.clear_cached_statements().await?;
                transaction.commit().await?;
                break;
            }
            // Another client has left this name behind: sqlx's next one is another.
            Err(error) if tries_left > 0 && has_code(&error, &["42P05"]) => {
                transaction.rollback().await?;
            }
            Err(error) if error::ends_the_connection(&error) => return Err(error),
            // One of them is gone already, or is of a kind that sqlx does not know (a composite with a
            // multirange): that fails the statements that use it, and no others.
            Err(error) => {
                tracing::debug!(%error, "sqlx cannot read all types of the database's own");
                transaction.rollback().await?;
                break;
            }
        }
    }
    Ok(newest)
}

/// Whether a statement may have failed because sqlx knows a type that is gone, or did not know one:
/// `invalid_sql_statement_name`, `undefined_object`, `internal_error`.
pub(super) fn may_be_outdated(error: &sqlx::Error) -> bool {
    has_code(error, &["26000", "42704", "XX000"])
}

/// Whether it did fail because sqlx had to ask for a type in the middle of it.
pub(super) fn was_asked_for(error: &sqlx::Error) -> bool {
    has_code(error, &["26000"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code().map(|code| codes.contains(&&*code)))
        .unwrap_or(false)
}
