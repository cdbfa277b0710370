//! The label of a transaction on the server.

use crate::pgbouncer::world::{behind, event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, Row},
};
use support::Pooler;

behind!(Pooler::Plain, 1, 20);

const NAME: &str = "select application_name from pg_stat_activity where pid = pg_backend_pid()";

#[db_handler(proxy = "pgbouncer", credentials = through_it, close = "never")]
async fn name(_: LambdaEvent<()>, db: &mut PgBouncerTransaction) -> Result<String, Error> {
    Ok(sqlx::query_scalar(NAME).fetch_one(db).await?)
}

/// Cancelling by label must not hit another session.
#[tokio::test]
async fn label_has_tag_that_does_not_stay_in_session() {
    let behind = behind().await;
    let mut other = behind.plain().await;
    let inside = name(event(())).await.expect("answers");
    let (label, tag) = inside.split_once(" #").expect("a label and a tag");
    let program = std::env::current_exe().expect("a program");
    let program = program.file_name().expect("a name").to_string_lossy();
    assert!(program.starts_with(label), "{inside}");
    assert_eq!(tag.len(), 8, "{inside}");
    let row = sqlx::raw_sql(NAME).fetch_one(&mut other).await;
    let outside: String = row.expect("answers").get(0);
    assert!(!outside.contains('#'), "{outside}");
    assert_eq!(name(event(())).await.expect("answers"), inside, "kept");
}
