//! Who takes part.

use sandbox::Function;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::bed::{Bed, Product};

/// Whether a contender's connection outlives an invocation. Each kind is compared with the fastest of its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Opened once, used by many invocations.
    Kept,
    /// Opened and closed in every invocation.
    Fresh,
}

/// Who wrote what the function uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// sqlx, and what its user writes around it.
    Hand,
    /// This project.
    Ours,
    /// A package from npm.
    Peer,
}

/// One way to use a database in a function.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// What it is called in `CONTENDER` and in the results.
    pub name: &'static str,
    /// What it is called in tables and plots.
    pub label: &'static str,
    /// Kept or fresh.
    pub kind: Kind,
    /// Who wrote it.
    pub by: By,
    only: Option<Product>,
    in_short_burst: bool,
}

const fn contender(
    name: &'static str,
    label: &'static str,
    kind: Kind,
    by: By,
    only: Option<Product>,
    in_short_burst: bool,
) -> Contender {
    Contender {
        name,
        label,
        kind,
        by,
        only,
        in_short_burst,
    }
}

/// The fastest that can be with a kept connection.
pub const FLOOR: &str = "floor";
/// The same for a connection opened in every invocation.
pub const FRESH_FLOOR: &str = "raw_open_close_nodelay";
/// The guide that this project started from.
pub const GUIDE: &str = "sequelize";

/// All of them, in the order of tables and plots.
#[rustfmt::skip]
pub const CONTENDERS: &[Contender] = &[
    contender(FLOOR, "raw sqlx connection, no checks (floor)", Kind::Kept, By::Hand, None, false),
    contender("plain", "global sqlx pool", Kind::Kept, By::Hand, None, true),
    contender("connection_never", "db-handler &mut Connection, never", Kind::Kept, By::Ours, None, false),
    contender("connection_on_error", "db-handler &mut Connection, on_error", Kind::Kept, By::Ours, None, false),
    contender("db_never", "db-handler &Db, never", Kind::Kept, By::Ours, None, true),
    contender("db_on_error", "db-handler &Db, on_error", Kind::Kept, By::Ours, None, false),
    contender("db_pressure", "db-handler &Db, pressure", Kind::Kept, By::Ours, None, true),
    contender("pool_never", "db-handler &Pool, never", Kind::Kept, By::Ours, None, true),
    contender("pool_on_error", "db-handler &Pool, on_error", Kind::Kept, By::Ours, None, false),
    contender("pool_pressure", "db-handler &Pool, pressure", Kind::Kept, By::Ours, None, false),
    contender("node_postgres", "node-postgres, global pool", Kind::Kept, By::Peer, Some(Product::Postgres), false),
    contender("serverless_postgres", "serverless-postgres", Kind::Kept, By::Peer, Some(Product::Postgres), true),
    contender("mysql2", "mysql2, global pool", Kind::Kept, By::Peer, Some(Product::MariaDb), false),
    contender("serverless_mysql", "serverless-mysql", Kind::Kept, By::Peer, Some(Product::MariaDb), true),
    contender("raw_open_close", "raw sqlx connection, opened and closed", Kind::Fresh, By::Hand, None, false),
    contender(FRESH_FLOOR, "the same with TCP_NODELAY forced", Kind::Fresh, By::Hand, None, false),
    contender("plain_per_invocation", "sqlx pool per invocation", Kind::Fresh, By::Hand, None, true),
    contender("connection_always", "db-handler &mut Connection, always", Kind::Fresh, By::Ours, None, false),
    contender("db_always", "db-handler &Db, always", Kind::Fresh, By::Ours, None, true),
    contender("pool_always", "db-handler &Pool, always", Kind::Fresh, By::Ours, None, true),
    contender(GUIDE, "Sequelize, its guide for Lambda", Kind::Fresh, By::Peer, None, false),
];

/// The contender of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Contender> {
    CONTENDERS.iter().find(|contender| contender.name == name)
}

/// Those that can talk to this server.
pub fn with(product: Product) -> impl Iterator<Item = &'static Contender> {
    CONTENDERS
        .iter()
        .filter(move |contender| contender.only.is_none_or(|only| only == product))
}

impl Contender {
    /// Whether it is in the burst of a quick run.
    #[must_use]
    pub fn is_in_short_burst(&self) -> bool {
        self.in_short_burst
    }

    /// The program, as the sandbox starts it.
    #[must_use]
    pub fn function(&self, product: Product, bed: &Bed, timeout: Duration) -> Function {
        let function = match self.by {
            By::Peer => Function::new("node").arg(bed.peers.join("bootstrap.js")),
            By::Hand | By::Ours => Function::new(bed.programs.join("contender")),
        };
        let function = if self.name == FRESH_FLOOR {
            function.env("LD_PRELOAD", &bed.nodelay)
        } else {
            function
        };
        function
            .env("CONTENDER", format!("{}/{}", product.name(), self.name))
            .env("BENCHMARK_TIMEOUT_MS", timeout.as_millis().to_string())
    }
}
