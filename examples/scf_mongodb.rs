//! A Tencent Cloud Function (SCF) with MongoDB: one client per instance, no timeouts caused by open connections, and
//! no unfinished work when the instance is frozen.
//!
//! The same binary runs on AWS Lambda and locally:
//!
//! ```sh
//! MONGODB_URI='mongodb://user:password@localhost/site?authSource=admin' \
//!     cargo run -p db-handler-examples --example scf_mongodb --features mongodb,scf -- '{"path":"/tea"}'
//! ```
//!
//! For SCF, build it against the old glibc of its machines, and package it as `bootstrap`:
//!
//! ```sh
//! cargo zigbuild --release --target x86_64-unknown-linux-gnu.2.17 --features mongodb,scf --example scf_mongodb
//! cp target/x86_64-unknown-linux-gnu/release/examples/scf_mongodb bootstrap && zip function.zip bootstrap
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    mongodb::{
        Client,
        bson::{Document, doc},
    },
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Visit {
    path: String,
}

#[derive(Serialize)]
struct Visits {
    of_this_page: u64,
    of_all_pages: u64,
    request_id: String,
}

// If MONGODB_URI is missing, init fails with an error that names it. Each instance has one connection for operations
// and one that monitors the server, so 200 instances fit into the 500 connections of Atlas M0.
#[db_handler(pool(max = 1), budget(instances = 200, connections = 300))]
async fn count_visit(event: LambdaEvent<Visit>, client: &Client) -> Result<Visits, Error> {
    let (Visit { path }, context) = event.into_parts();
    let visits = client
        .default_database()
        .unwrap_or_else(|| client.database("site"))
        .collection::<Document>("visits");
    visits.insert_one(doc! { "path": &path }).await?;
    // Both are awaited: unfinished operations would be frozen with the function.
    let of_this_page = visits.count_documents(doc! { "path": path }).await?;
    let of_all_pages = visits.count_documents(doc! {}).await?;
    Ok(Visits {
        of_this_page,
        of_all_pages,
        request_id: context.request_id,
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(count_visit).await
}
