//! Every credentials provider, on the attribute and on a parameter.

#![deny(warnings)]

use db_handler::credentials::{
    Environment, Provider, RdsIam, Secret, SecretFile, SecretsManager, Target,
};
use db_handler::sqlx::{MySqlPool, PgConnection, PgPool};
use db_handler::{Error, LambdaEvent, db_handler};
use std::sync::LazyLock;

static FILE: SecretFile = SecretFile::password("/run/secrets/db");
static IAM: RdsIam = RdsIam::new().region("eu-west-1");
static MANAGED: SecretsManager = SecretsManager::secret("prod/db");
static LATER: LazyLock<Vault> = LazyLock::new(|| Vault);
const BY_VARIABLES: Environment = Environment::prefix("DB");

struct Vault;

impl Provider for Vault {
    async fn fetch(&self, target: &Target) -> Result<Secret, Error> {
        Ok(Secret::new(target.user().unwrap_or_default()))
    }
}

async fn asked() -> Result<Secret, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Secret::new("x"))
}

mod secrets {
    pub(super) static VAULT: super::Vault = super::Vault;
}

macro_rules! handler {
    ($name:ident, $provider:path) => {
        #[db_handler(credentials = $provider, close = "pressure")]
        async fn $name(_: LambdaEvent<()>, db: &mut PgConnection) -> Result<(), Error> {
            let _ = db;
            Ok(())
        }
    };
}

handler!(by_macro, secrets::VAULT);

#[db_handler(
    credentials = FILE,
    close = "pressure",
    budget(instances = 4, connections = 100, share = 0.5),
)]
async fn several(
    _: LambdaEvent<()>,
    db: &PgPool,
    #[db(credentials = IAM)] a: &PgPool,
    #[db(credentials = MANAGED, close = "never")] b: &MySqlPool,
    #[db(credentials = LATER)] c: &PgPool,
    #[db(credentials = BY_VARIABLES)] d: &PgPool,
    #[db(credentials = asked)] e: &PgPool,
) -> Result<(), Error> {
    let _ = (db, a, b, c, d, e);
    Ok(())
}

pub(crate) fn main() {
    let _ = (by_macro, several);
}
