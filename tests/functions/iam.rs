//! A function that logs in with an IAM token.

use db_handler::{
    Error, LambdaEvent,
    credentials::RdsIam,
    db_handler,
    sqlx::{self, PgConnection},
};

static DB_USER: RdsIam = RdsIam::new();

#[db_handler(credentials = DB_USER)]
async fn handler(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<String, Error> {
    let () = event.payload;
    Ok(sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(db)
        .await?)
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    db_handler::run(handler).await
}
