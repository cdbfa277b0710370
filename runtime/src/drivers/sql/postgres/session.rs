//! Identifies a session on the server, so that only this process's sessions are cancelled.

use crate::drivers::sql::{driver::Cancelled, without_logging::without_logging};
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow, raw_sql};
use std::sync::Arc;

/// A session of this process.
#[derive(Debug, Clone)]
pub struct PgSession {
    /// Its first `application_name`, which no other session has. It is known without a round trip, and unlike a port it
    /// is the same on both sides of a NAT or a proxy. A handler can change it.
    name: Arc<str>,
    /// Known after the session's first reset.
    backend: Option<Backend>,
    /// Sessions of the same name that are excluded.
    spared: Arc<[Backend]>,
}

/// A server process. The operating system reuses process ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i32,
    /// Microseconds since 1970.
    started: i64,
}

/// The columns that [`Backend::read`] reads, for a statement in the session itself.
pub(super) const BACKEND: &str = "pg_backend_pid(), (SELECT (extract(epoch FROM backend_start) * 1000000)::int8 \
     FROM pg_stat_get_activity(pg_backend_pid()))";

/// Sessions of other roles are neither listed nor cancelled, whatever their names. The server may not have read the
/// last statement yet: such a session is ended before it runs.
///
/// The last row exists if a session that was opened from this address runs a statement under a name that does not come
/// from this crate.
macro_rules! cancel {
    () => {
        "ROLLBACK; SET SESSION AUTHORIZATION DEFAULT; \
         WITH own AS ( \
            SELECT pid, (extract(epoch FROM backend_start) * 1000000)::int8 AS started, application_name AS name, \
                state, client_addr IS NOT DISTINCT FROM inet_client_addr() AS from_here \
            FROM pg_stat_activity \
            WHERE pid <> pg_backend_pid() \
                AND usesysid = (SELECT usesysid FROM pg_stat_get_activity(pg_backend_pid())) \
         ) \
         SELECT name, CASE state WHEN 'active' THEN pg_cancel_backend(pid) ELSE pg_terminate_backend(pid) END, false \
         FROM own WHERE {named} OR (pid, started) IN ({backends}) \
         UNION ALL \
         (SELECT NULL, NULL, true FROM own \
            WHERE from_here AND state = 'active' AND name !~ ' #[0-9a-z]{{8}}$' LIMIT 1)"
    };
}

impl PgSession {
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            backend: None,
            spared: Arc::default(),
        }
    }

    pub(in crate::drivers::sql) fn name(&self) -> &str {
        &self.name
    }

    /// The same session, identified by its process.
    pub(super) fn with(&self, backend: Backend) -> Self {
        Self {
            name: Arc::clone(&self.name),
            backend: Some(backend),
            spared: Arc::default(),
        }
    }

    pub(super) fn is_identified(&self) -> bool {
        self.backend.is_some()
    }

    /// Every session of this name, except `others`.
    pub(super) fn all_but(&self, others: &[Self]) -> Self {
        Self {
            spared: others.iter().filter_map(|other| other.backend).collect(),
            ..self.clone()
        }
    }

    /// The SQL condition for the sessions of this name that are not excluded.
    fn is_named(&self) -> String {
        let name = super::literal(&self.name);
        if self.spared.is_empty() {
            return format!("name = {name}");
        }
        format!(
            "(name = {name} AND (pid, started) NOT IN ({}))",
            list(&self.spared)
        )
    }

    pub(super) fn is(&self, backend: Backend) -> bool {
        self.backend == Some(backend)
    }
}

/// The processes as an SQL list.
fn list(backends: &[Backend]) -> String {
    let all: Vec<String> = backends
        .iter()
        .map(|Backend { pid, started }| format!("({pid}, {started})"))
        .collect();
    all.join(", ")
}

impl Backend {
    /// Not a process.
    const NONE: Self = Self { pid: 0, started: 0 };

    /// Reads the columns of [`BACKEND`], starting at column `first`.
    pub(super) fn read(row: &PgRow, first: usize) -> Result<Self, sqlx::Error> {
        Ok(Self {
            pid: row.try_get(first)?,
            started: row.try_get(first + 1)?,
        })
    }
}

/// Cancels the queries of `sessions`.
pub(super) async fn cancel(
    via: &mut PgConnection,
    sessions: &[PgSession],
) -> Result<Cancelled<PgSession>, sqlx::Error> {
    let (identified, named): (Vec<&PgSession>, Vec<&PgSession>) = sessions
        .iter()
        .partition(|session| session.backend.is_some());
    // SQL allows neither list to be empty.
    let mut is_named: Vec<String> = named.iter().map(|session| session.is_named()).collect();
    is_named.push("false".to_owned());
    let backends: Vec<Backend> = identified
        .iter()
        .filter_map(|session| session.backend)
        .chain([Backend::NONE])
        .collect();
    // The names are generated and quoted here; the rest are numbers.
    let sql = AssertSqlSafe(format!(
        cancel!(),
        named = is_named.join(" OR "),
        backends = list(&backends)
    ));
    // If no transaction is open, the server sends a warning.
    let rows: Vec<PgRow> = without_logging(raw_sql(sql).fetch_all(via)).await?;
    let mut found: Vec<String> = Vec::new();
    let mut renamed = false;
    for row in rows {
        match row.try_get::<Option<String>, _>(0)? {
            Some(name) => found.push(name),
            None => renamed = true,
        }
    }
    let all_found = named
        .iter()
        .all(|session| found.iter().any(|name| **name == *session.name));
    let mut cancelled = Cancelled::all();
    if renamed && !all_found {
        cancelled.uncertain = Some(
            "no session has its name any more: it has ended, or the handler has changed its `application_name`",
        );
    }
    Ok(cancelled)
}
