//! Fragments from `macro_rules!` arrive in invisible groups.

#![deny(warnings)]

use db_handler::sqlx::PgPool;
use db_handler::{Context, Error, LambdaEvent, db_handler};

macro_rules! handler {
    ($name:ident, $max:literal, $acquire:expr, $close:literal, $event:ty, $resource:ty, $output:ty, $body:block) => {
        #[db_handler(pool(max = $max, acquire_ms = $acquire), close = $close, budget(instances = $max, connections = 100))]
        async fn $name(event: $event, db: $resource) -> $output {
            let _ = (event, db);
            $body
        }
    };
}

handler!(
    written,
    3,
    1_000,
    "never",
    LambdaEvent<()>,
    &PgPool,
    Result<u32, Error>,
    {
        let answer = 1;
        Ok(answer)
    }
);

pub(crate) fn main() {
    drop(written(LambdaEvent::new((), Context::default())));
}
