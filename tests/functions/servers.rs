//! Starts both database servers, says where, and waits to be killed: they must not outlive it.

use std::io::Read;
use support::{mariadb, postgres};

fn main() {
    let (postgres, mariadb) = (postgres(), mariadb());
    for (port, folder) in [
        (postgres.port(), postgres.folder()),
        (mariadb.port(), mariadb.folder()),
    ] {
        println!("{port} {}", folder.display());
    }
    println!("READY");
    // Nothing is ever written there: this ends with the process on the other side at the latest.
    let _ = std::io::stdin().read(&mut [0]);
}
