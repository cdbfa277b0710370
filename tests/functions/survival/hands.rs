//! Operations on a connection that are dropped before they complete, or that leave state behind.

use db_handler::sqlx::{
    self, Executor, MySqlConnection, PgConnection, SqlSafeStr, SqliteConnection,
};
use futures_util::{FutureExt, TryStreamExt};
use std::time::Duration;
use tokio::time::timeout;

/// Deeds by name: `copy_in`, `prepare` ..
pub(crate) trait Hand {
    /// Does the deed, and ignores errors.
    async fn leave(&mut self, deed: &str);
}

const THREE: &str = "SELECT 1; SELECT 2; SELECT 3";

macro_rules! half_read {
    ($connection:expr, $sql:expr) => {{
        let mut rows = sqlx::raw_sql($sql).fetch(&mut *$connection);
        let _ = rows.try_next().await;
    }};
}

macro_rules! run {
    ($connection:expr, $sql:expr) => {
        let _ = sqlx::raw_sql($sql).execute(&mut *$connection).await;
    };
}

impl Hand for PgConnection {
    async fn leave(&mut self, deed: &str) {
        match deed {
            "copy_in" => {
                if let Ok(mut copy) = self.copy_in_raw("COPY orders FROM STDIN").await {
                    let _ = copy.send(&b"7\n"[..]).await;
                }
            }
            "copy_in_and_go_on" => {
                drop(self.copy_in_raw("COPY orders FROM STDIN").await);
                let _: Result<i32, _> = sqlx::query_scalar("SELECT 1").fetch_one(self).await;
            }
            "copy_in_begun" => {
                let _ = self.copy_in_raw("COPY orders FROM STDIN").now_or_never();
            }
            "copy_in_refused" => drop(self.copy_in_raw("COPY no_such_table FROM STDIN").await),
            "copy_out" => self.half_a_copy("SELECT generate_series(1, 10)").await,
            "copy_out_large" => self.half_a_copy("SELECT generate_series(1, 300000)").await,
            "copy_out_endless" => {
                let slow = "SELECT i, CASE WHEN i > 20000 THEN pg_sleep(30) END FROM generate_series(1, 20001) AS t(i)";
                self.half_a_copy(slow).await;
            }
            "copy_out_silent" => {
                let copy = self.copy_out_raw("COPY (SELECT pg_sleep(30)) TO STDOUT");
                let _ = timeout(Duration::from_millis(50), copy).await;
            }
            "copy_out_refused" => drop(self.copy_out_raw("COPY no_such_table TO STDOUT").await),
            "copy_out_begun" => {
                let _ = self
                    .copy_out_raw("COPY (SELECT 1) TO STDOUT")
                    .now_or_never();
            }
            "copy_as_a_query" => {
                run!(self, "COPY (SELECT 1) TO STDOUT");
            }
            "cursor" => {
                run!(
                    self,
                    "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 1000)"
                );
                half_read!(self, "FETCH 1000 FROM c");
            }
            "statements" => half_read!(self, THREE),
            "prepare" => {
                let _ = self.prepare("SELECT 4711".into_sql_str()).now_or_never();
            }
            "begin" => {
                run!(self, "BEGIN; INSERT INTO orders VALUES (1)");
            }
            "aborted" => {
                run!(
                    self,
                    "BEGIN; INSERT INTO orders VALUES (1); SELECT no_such_column"
                );
            }
            other => panic!("no deed {other}"),
        }
    }
}

trait HalfACopy {
    async fn half_a_copy(&mut self, select: &str);
}

impl HalfACopy for PgConnection {
    async fn half_a_copy(&mut self, select: &str) {
        if let Ok(mut rows) = self
            .copy_out_raw(&format!("COPY ({select}) TO STDOUT"))
            .await
        {
            let _ = rows.try_next().await;
        }
    }
}

impl Hand for MySqlConnection {
    async fn leave(&mut self, deed: &str) {
        match deed {
            "statements" => half_read!(self, THREE),
            "prepare" => {
                let _ = self.prepare("SELECT 4711".into_sql_str()).now_or_never();
            }
            "prepare_refused" => {
                let _ = self
                    .prepare("SELECT no_such_column".into_sql_str())
                    .now_or_never();
            }
            "prepare_of_a_query" => {
                let _ = sqlx::query("SELECT 4711, 4712")
                    .execute(&mut *self)
                    .now_or_never();
            }
            "begin" => {
                run!(self, "START TRANSACTION; INSERT INTO orders VALUES (1)");
            }
            "deadlock" => {
                run!(self, "UPDATE orders SET n = 1 WHERE id = 1");
                run!(self, "UPDATE orders SET n = 1 WHERE id = 2");
                run!(self, "INSERT INTO orders VALUES (3, 0)");
            }
            "create" => {
                run!(self, "CREATE TABLE others (id INT)");
            }
            "autocommit" => {
                run!(self, "SET autocommit = 0; INSERT INTO orders VALUES (1)");
            }
            other => panic!("no deed {other}"),
        }
    }
}

impl Hand for SqliteConnection {
    async fn leave(&mut self, deed: &str) {
        match deed {
            "statements" => half_read!(self, THREE),
            "begin" => {
                run!(self, "BEGIN; INSERT INTO orders VALUES (1)");
            }
            "savepoint" => {
                run!(self, "SAVEPOINT a; INSERT INTO orders VALUES (1)");
            }
            "hooks" => {
                if let Ok(mut handle) = self.lock_handle().await {
                    handle.set_commit_hook(|| false);
                    handle.set_progress_handler(1_000, || true);
                }
            }
            other => panic!("no deed {other}"),
        }
    }
}
