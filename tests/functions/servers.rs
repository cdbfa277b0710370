//! Starts all database servers, says where, and waits to be killed: they must not outlive it.

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
    // Nothing is ever written there: this ends with the process on the other side at the latest.
    let _ = std::io::stdin().read(&mut [0]);
}
