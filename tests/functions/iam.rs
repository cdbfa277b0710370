//! A test function that logs in as its variables say, and returns the user and whether TLS is used.

use db_handler::{
    Error, LambdaEvent,
    credentials::{Environment, RdsIam, SecretsManager},
    db_handler,
    sqlx::{self, MySqlConnection, MySqlPool, PgConnection, PgPool},
};
use serde_json::{Value, json};
use std::env;

static TOKEN: RdsIam = RdsIam::new();
static TOKEN_FOR_ANYBODY: RdsIam = RdsIam::new().danger_accept_any_server();
static ENVIRONMENT: Environment = Environment::prefix("DB_");
static SECRET: SecretsManager = SecretsManager::from_env("DB_SECRET_ARN");

const POSTGRES: &str =
    "SELECT current_user::text, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

const MYSQL: &str = "SELECT CURRENT_USER(), VARIABLE_VALUE <> '' \
     FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'SSL_VERSION'";

macro_rules! handlers {
    ($($name:ident($sql:expr, &$($db:ident)+ $(, $key:ident = $provider:path)?);)*) => {
        $(
            #[db_handler($($key = $provider)?)]
            async fn $name(event: LambdaEvent<()>, db: &$($db)+) -> Result<Value, Error> {
                let () = event.payload;
                let (user, tls): (String, bool) = sqlx::query_as($sql).fetch_one(db).await?;
                Ok(json!({ "user": user, "tls": tls }))
            }
        )*

        #[tokio::main]
        pub(crate) async fn main() -> Result<(), Error> {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .init();
            match env::var("HANDLER").as_deref().unwrap_or("token") {
                $(stringify!($name) => db_handler::run($name).await,)*
                other => Err(Error::other(format!("no handler {other}"))),
            }
        }
    };
}

handlers! {
    single(POSTGRES, &mut PgConnection);
    pool(POSTGRES, &PgPool);
    mysql_single(MYSQL, &mut MySqlConnection);
    mysql_pool(MYSQL, &MySqlPool);
    token(POSTGRES, &mut PgConnection, credentials = TOKEN);
    token_pool(POSTGRES, &PgPool, credentials = TOKEN);
    token_for_anybody(POSTGRES, &mut PgConnection, credentials = TOKEN_FOR_ANYBODY);
    mysql_token(MYSQL, &mut MySqlConnection, credentials = TOKEN);
    mysql_token_for_anybody(MYSQL, &mut MySqlConnection, credentials = TOKEN_FOR_ANYBODY);
    environment(POSTGRES, &mut PgConnection, credentials = ENVIRONMENT);
    secret(POSTGRES, &mut PgConnection, credentials = SECRET);
}
