//! The database's own types, which sqlx must know before an unnamed statement uses one.
//!
//! sqlx looks up a type when it first encounters it, between the two steps of a statement, with a simple query. That
//! query destroys an unnamed statement: "unnamed prepared statement does not exist".

use crate::drivers::sql::error;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, raw_sql};

/// The newest enum or range type, as an expression that uses an index. Types have ascending numbers.
pub(super) const NEWEST: &str = "greatest((select max(enumtypid)::int8 from pg_catalog.pg_enum), \
     (select max(rngtypid)::int8 from pg_catalog.pg_range))";

/// How many names are tried if other clients have left them behind.
const NAMES_TRIED: u32 = 20;

/// A column of each type that is neither PostgreSQL's own nor the row of a table. sqlx cannot read a multirange, and a
/// type needs the right to use its schema. A `select` cannot have more than 1664 columns.
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

/// Makes sqlx look up the database's own types on `connection`: enums, domains, composites, those of extensions.
/// Returns the newest.
///
/// This takes one round trip in a database without such types, otherwise a few.
pub(super) async fn record(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // sqlx caches a type's number by its name, but a recreated type has another number.
    connection.clear_cached_statements().await?;
    let own_types = AssertSqlSafe(format!("select {NEWEST}, {OWN_TYPES}"));
    let row = raw_sql(own_types).fetch_one(&mut *connection).await?;
    let newest = row.try_get(0)?;
    let Some(columns) = row.try_get::<Option<String>, _>(1)? else {
        return Ok(newest);
    };
    // The server itself has written and quoted these names.
    let sql = AssertSqlSafe(format!("select {columns}")).into_sql_str();
    for tries_left in (0..NAMES_TRIED).rev() {
        let mut transaction = connection.begin_with("BEGIN").await?;
        // Only a named statement survives the lookups; it has to be removed in the same transaction.
        match (&mut *transaction).prepare(sql.clone()).await {
            Ok(_) => {
                transaction.clear_cached_statements().await?;
                transaction.commit().await?;
                break;
            }
            // Another client has left this name behind: sqlx's next name is a different one.
            Err(error) if tries_left > 0 && has_code(&error, &["42P05"]) => {
                transaction.rollback().await?;
            }
            Err(error) if error::ends_the_connection(&error) => return Err(error),
            // A type is already gone, or of a kind that sqlx does not support (a composite with a multirange): only
            // statements that use it fail.
            Err(error) => {
                tracing::debug!(%error, "sqlx cannot read all types of the database's own");
                transaction.rollback().await?;
                break;
            }
        }
    }
    Ok(newest)
}

/// Whether a statement may have failed because sqlx knows a type that no longer exists, or did not know one:
/// `invalid_sql_statement_name`, `undefined_object`, `internal_error`.
pub(super) fn may_be_outdated(error: &sqlx::Error) -> bool {
    has_code(error, &["26000", "42704", "XX000"])
}

/// Whether a statement failed because sqlx looked up a type in the middle of it.
pub(super) fn was_asked_for(error: &sqlx::Error) -> bool {
    has_code(error, &["26000"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code().map(|code| codes.contains(&&*code)))
        .unwrap_or(false)
}
