//! sqlx's checked queries and default features together with the runtime in one binary.

use support::{PATIENCE, postgres};
use tokio::{process::Command, time::timeout};

#[tokio::test]
async fn checked_queries_run_on_every_kind_of_parameter() {
    let database = postgres().fresh_database().await;
    let output = Command::new(env!("CARGO_BIN_EXE_db-handler-sqlx-defaults"))
        .env("DATABASE_URL", database.url())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output).await;
    let output = output.expect("it ends in time").expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "1 handle\n2 pool\n3 connection\n4 transaction\n5 pooler\n5 deleted\n";
    assert_eq!(said, expected);
    database.wait_until_connections(0).await;
}
