//! Checks whether the server still accepts the statements that sqlx has prepared in a session.
//!
//! After `ALTER TABLE`, or when a type was created anew, a prepared statement fails on each use, but sqlx keeps using
//! it. This crate sees the error only if it passes through it. But such a statement fails before the server plans it,
//! and the server counts the plans. So the server is asked to plan, but not to run, each statement that was not planned
//! since the last reset: a failed one is among them.

use super::recognized;
use crate::{
    config::PLANNING,
    drivers::sql::{error, without_logging::without_logging},
    resource::Health,
};
use sqlx::{Connection, PgConnection, Row};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// How many plans one message requests: with more, a few slow ones could not be stopped in time.
const AT_ONCE: usize = 20;

/// What is known about a session's prepared statements.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The statements, by name.
    all: BTreeMap<String, Statement>,
    /// The statements that were not planned between the last two resets.
    unplanned: Vec<String>,
    /// Whether sqlx relies on a statement that no longer exists.
    incomplete: bool,
}

#[derive(Debug, Clone, Copy)]
struct Statement {
    plans: u64,
    parameters: usize,
}

/// Whether a session's statements can be used.
enum Verdict {
    Valid,
    /// They must be prepared again. That says nothing about other sessions.
    Doubtful,
    /// A table or type that they use has changed, for every session.
    Outdated,
}

/// A column with the name, the number of plans and the number of parameters of each statement that was prepared with
/// the protocol. Before version 14, the server does not count plans: every statement then counts as not planned.
pub(super) fn column(server: Option<u32>) -> &'static str {
    macro_rules! column {
        ($plans:literal) => {
            concat!(
                "(SELECT string_agg(name || ' ' || ",
                $plans,
                " || ' ' || cardinality(parameter_types), ',') \
                 FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql)"
            )
        };
    }
    match server {
        Some(140_000..) => column!("generic_plans + custom_plans"),
        _ => column!("0"),
    }
}

impl Prepared {
    /// Reads the [`column`]. sqlx has `cached` statements.
    pub(super) fn look(&mut self, column: Option<&str>, cached: usize) {
        let all: BTreeMap<String, Statement> = column
            .unwrap_or_default()
            .split(',')
            .filter_map(parsed)
            .collect();
        let plans = |name| self.all.get(name).map_or(0, |known| known.plans);
        self.unplanned = all
            .iter()
            .filter(|(name, statement)| statement.plans == plans(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        self.incomplete = all.len() < cached;
        self.all = all;
    }

    /// Clears sqlx's statements if the server no longer accepts one of them. Sends nothing if all have been planned.
    /// [`Health::Broken`] means that those of other sessions are outdated as well.
    pub(super) async fn check(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Health, sqlx::Error> {
        let state = if self.incomplete {
            Verdict::Doubtful
        } else {
            without_logging(self.ask(connection)).await?
        };
        match state {
            Verdict::Valid => Ok(Health::Healthy),
            Verdict::Doubtful => {
                without_logging(connection.clear_cached_statements()).await?;
                *self = Self::default();
                Ok(Health::Healthy)
            }
            Verdict::Outdated => Ok(Health::Broken),
        }
    }

    async fn ask(&mut self, connection: &mut PgConnection) -> Result<Verdict, sqlx::Error> {
        let from = Instant::now();
        let unplanned = std::mem::take(&mut self.unplanned);
        for names in unplanned.chunks(AT_ONCE) {
            if from.elapsed() > PLANNING {
                // Preparing them again costs less than continuing.
                return Ok(Verdict::Doubtful);
            }
            let plans: Vec<String> = names.iter().map(|name| self.plan(name)).collect();
            let column = column(connection.server_version_num());
            match recognized(connection, &plans.join("; "), &[column], "").await {
                // This planning has been counted as well.
                Ok(row) => {
                    self.look(row.try_get(1)?, 0);
                    self.unplanned.clear();
                }
                Err(error) if error::ends_the_connection(&error) => return Err(error),
                Err(error) if error::outdates_the_connection(&error) => {
                    return Ok(Verdict::Outdated);
                }
                Err(error) => {
                    tracing::debug!(%error, "the server rejects a prepared statement: preparing all again");
                    return Ok(Verdict::Doubtful);
                }
            }
        }
        Ok(Verdict::Valid)
    }

    fn plan(&self, name: &str) -> String {
        match self.all.get(name).map_or(0, |known| known.parameters) {
            0 => format!("EXPLAIN EXECUTE {name}"),
            parameters => format!(
                "EXPLAIN EXECUTE {name}({})",
                vec!["NULL"; parameters].join(", ")
            ),
        }
    }
}

/// sqlx's names have only word characters; a statement with another name is not sqlx's.
fn parsed(text: &str) -> Option<(String, Statement)> {
    let mut parts = text.split(' ');
    let (name, plans, parameters) = (parts.next()?, parts.next()?, parts.next()?);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (parts.next().is_none() && name.bytes().all(is_plain)).then_some(())?;
    let statement = Statement {
        plans: plans.parse().ok()?,
        parameters: parameters.parse().ok()?,
    };
    Some((name.to_owned(), statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_were_not_planned_are_found() {
        let mut prepared = Prepared::default();
        prepared.look(Some("sqlx_s_1 3 0,sqlx_s_2 0 2"), 2);
        assert_eq!(prepared.unplanned, ["sqlx_s_2"]);
        assert_eq!(prepared.plan("sqlx_s_1"), "EXPLAIN EXECUTE sqlx_s_1");
        assert_eq!(
            prepared.plan("sqlx_s_2"),
            "EXPLAIN EXECUTE sqlx_s_2(NULL, NULL)"
        );
        prepared.look(Some("sqlx_s_1 3 0,sqlx_s_2 1 2,sqlx_s_3 1 0"), 3);
        assert_eq!(prepared.unplanned, ["sqlx_s_1"]);
        assert!(!prepared.incomplete);
    }

    #[test]
    fn a_statement_that_is_gone_is_missed() {
        let mut prepared = Prepared::default();
        prepared.look(None, 0);
        assert!(!prepared.incomplete);
        prepared.look(None, 1);
        assert!(prepared.incomplete);
    }

    #[test]
    fn no_name_ends_its_statement() {
        assert!(parsed("a;drop 1 0").is_none());
        assert!(parsed("odd name 1 0").is_none());
    }
}
