//! Starts all database servers, prints their addresses, and waits to be killed. The servers must not outlive it.

use std::io::Read;
use support::{mariadb, mongodb, postgres};

pub(crate) fn main() {
    let (postgres, mariadb, mongodb) = (postgres(), mariadb(), mongodb());
    for (port, folder) in [
        (postgres.port(), postgres.folder()),
        (mariadb.port(), mariadb.folder()),
        (mongodb.port(), mongodb.folder()),
    ] {
        println!("{port} {}", folder.display());
    }
    println!("READY");
    // Nothing is written there: the read ends with the parent process at the latest.
    let _ = std::io::stdin().read(&mut [0]);
}
