//! A Tencent Cloud Function (SCF) with MongoDB: one client for the life of the instance, nothing that
//! times out because a connection is open, and nothing left half-way when the instance is frozen.
//!
//! The same binary runs on AWS Lambda, and here:
//!
//! ```sh
//! MONGODB_URI='mongodb://user:password@localhost/site?authSource=admin' \
//!     cargo run -p db-handler-examples --example scf_mongodb --features mongodb,scf -- '{"path":"/tea"}'
//! ```
//!
//! For SCF, build it against the old glibc of its machines, and pack it as `bootstrap`:
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

// Where MONGODB_URI is missing, the function says so before its first event. With 200 instances at
// most, Atlas M0 with its 500 connections has room: each has one for its operations, and each one more
// that watches the server.
#[db_handler(pool(max = 1), budget(instances = 200, connections = 300))]
async fn count_visit(event: LambdaEvent<Visit>, client: &Client) -> Result<Visits, Error> {
    let (Visit { path }, context) = event.into_parts();
    let visits = client
        .default_database()
        .unwrap_or_else(|| client.database("site"))
        .collection::<Document>("visits");
    visits.insert_one(doc! { "path": &path }).await?;
    // Awaited, both of them: what is still under way when a function returns is frozen with it.
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
