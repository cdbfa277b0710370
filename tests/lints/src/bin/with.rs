//! Handlers full of what lints find, with the attribute.
//!
//! `bare.rs` is the same without the lines of the attribute, which are one line each:
//! `UPDATE_EXPECT=1 cargo test --all-features --test it lint_parity` writes it.

use db_handler::sqlx::{Executor, PgConnection, PgPool};
use db_handler::{Error, LambdaEvent};
use std::sync::Arc;
use tokio::sync::Mutex;

use db_handler::db_handler;

struct NewOrder {
    id: String,
}

struct Handler {
    number: u64,
    name: String,
}

// --- the shapes of a handler ---

/// Documented, unlike most of the others.
#[db_handler(pool(max = 2), close = "always", deadline(reserve_ms = 500))]
async fn free(
    LambdaEvent { payload, .. }: LambdaEvent<NewOrder>,
    db: &PgPool,
    conn: &mut PgConnection,
) -> Result<usize, Error> {
    let number: u32 = payload.id.parse().map_err(Error::other)?;
    if number == 0 {
        return Ok(0);
    }
    db.execute("SELECT 1").await?;
    conn.execute("SELECT 1").await?;
    conn.execute("SELECT 2").await?;
    let mutex = Mutex::new(1);
    let _guard = mutex.lock().await;
    db.execute("SELECT 3").await?;
    Ok(payload.id.len())
}

#[db_handler]
async fn generic<T: Send + 'static>(event: LambdaEvent<T>, db: &PgPool) -> Result<T, Error> {
    let LambdaEvent { payload, .. } = event;
    db.execute("SELECT 1").await?;
    Ok(payload)
}

#[db_handler]
async fn anything(
    event: LambdaEvent<impl Send + 'static + Clone>,
    db: &PgPool,
) -> Result<impl Send, Error> {
    db.execute("SELECT 1").await?;
    Ok(event.payload.clone())
}

#[db_handler(pool(max = u32::BITS), close = "never", background = "abort")]
pub async fn constants(
    _event: LambdaEvent<()>,
    #[db(env = "REPLICA_URL", pool(max = 1, min = 0), check(ping_ms = 100))]
    replica_of_orders: &PgPool,
    conn: &mut PgConnection,
) -> Result<u64, Error> {
    replica_of_orders.execute("SELECT 1").await?;
    let done = conn.execute("SELECT 1").await?;
    Ok(done.rows_affected())
}

impl Handler {
    #[db_handler]
    async fn by_reference(
        &self,
        LambdaEvent { payload, .. }: LambdaEvent<NewOrder>,
        db: &PgPool,
        conn: &mut PgConnection,
    ) -> Result<u64, Error> {
        let number = db.execute("SELECT 1").await?.rows_affected() + self.number;
        (&mut *conn).execute("SELECT 1").await?;
        conn.execute("SELECT 1").await?;
        drop(payload);
        Ok(number)
    }

    #[db_handler]
    async fn by_mutable_reference(
        &mut self,
        conn: &mut PgConnection,
        event: LambdaEvent<Mutex<String>>,
    ) -> Result<usize, Error> {
        self.number += conn.execute("SELECT 1").await?.rows_affected();
        Ok(event.payload.lock().await.len())
    }

    #[db_handler]
    async fn borrowed_mutably(
        &mut self,
        _: LambdaEvent<()>,
        conn: &mut PgConnection,
    ) -> Result<&mut String, Error> {
        self.number += conn.execute("SELECT 1").await?.rows_affected();
        Ok(&mut self.name)
    }

    #[db_handler]
    async fn borrowed(&self, _: LambdaEvent<()>, conn: &mut PgConnection) -> Result<&str, Error> {
        conn.execute("SELECT 1").await?;
        Ok(&self.name)
    }

    #[db_handler]
    async fn counted(
        self: Arc<Self>,
        _: LambdaEvent<()>,
        conn: &mut PgConnection,
    ) -> Result<String, Error> {
        conn.execute("SELECT 1").await?;
        Ok(self.name.clone())
    }

    #[db_handler]
    async fn by_value(self, _: LambdaEvent<()>, conn: &mut PgConnection) -> Result<String, Error> {
        conn.execute("SELECT 1").await?;
        Ok(self.name)
    }

    #[db_handler]
    async fn associated(_: LambdaEvent<()>, conn: &mut PgConnection) -> Result<Self, Error> {
        conn.execute("SELECT 1").await?;
        Ok(Self {
            number: 1,
            name: String::new(),
        })
    }
}

struct Generic<T>(T);

impl<T: Clone + Send + Sync + 'static> Generic<T> {
    #[db_handler]
    async fn method(&self, _: LambdaEvent<()>, db: &PgPool) -> Result<T, Error> {
        let _ = db;
        tokio::task::yield_now().await;
        Ok(self.0.clone())
    }

    #[db_handler]
    async fn associated(event: LambdaEvent<T>, db: &PgPool) -> Result<T, Error> {
        let _ = db;
        Ok(event.payload)
    }
}

// --- what is wrong with a handler ---

#[db_handler(budget(instances = 10, connections = 100))]
async fn unused(event: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn unused_mut(mut event: LambdaEvent<u8>, mut db: &PgPool) -> Result<u8, Error> {
    Ok(event.payload)
}

#[db_handler]
async fn used_mut(
    mut event: LambdaEvent<u8>,
    mut db: &PgPool,
    other: &PgPool,
) -> Result<u8, Error> {
    event.payload += 1;
    db.execute("SELECT 1").await?;
    db = other;
    db.execute("SELECT 1").await?;
    Ok(event.payload)
}

#[db_handler]
async fn unused_result(event: LambdaEvent<u8>, db: &PgPool) -> Result<u8, Error> {
    db.execute("SELECT 1").await;
    let event = event.payload;
    {
        return Ok(event);
    }
}

#[db_handler]
async fn one_expression(_event: LambdaEvent<u8>, db: &PgPool) -> Result<Option<()>, Error> {
    Ok(db.fetch_optional("SELECT 1").await?.map(|_| ()))
}

#[db_handler]
async fn braces(event: LambdaEvent<u8>, db: &PgPool) -> Result<u8, Error> {
    Ok({ event.payload })
}

#[db_handler]
#[must_use]
async fn endless(event: LambdaEvent<u8>, db: &PgPool) -> Result<u8, Error> {
    loop {
        db.execute("SELECT 1").await?;
    }
}

#[db_handler]
async fn panics(event: LambdaEvent<u8>, db: &PgPool) -> Result<u8, Error> {
    todo!()
}

#[db_handler]
async fn unwraps(event: LambdaEvent<Option<u8>>, db: &PgPool) -> Result<u8, Error> {
    db.execute("SELECT 1").await.unwrap();
    Ok(event.payload.unwrap() as u8 + 1)
}

#[db_handler]
async fn used_underscore(_event: LambdaEvent<u8>, _db: &PgPool) -> Result<u8, Error> {
    _db.execute("SELECT 1").await?;
    Ok(_event.payload)
}

#[db_handler]
async fn unreachable(event: LambdaEvent<u8>, db: &PgPool) -> Result<u8, Error> {
    return Ok(1);
    db.execute("SELECT 1").await?;
    Ok(2)
}

#[db_handler]
async fn no_await(event: LambdaEvent<u8>, db: &PgPool) -> Result<u8, Error> {
    let x = 5;
    Ok(1)
}

#[db_handler]
async fn matches(event: LambdaEvent<Option<u8>>, db: &PgPool) -> Result<u64, Error> {
    let number = if let Some(number) = event.payload {
        u64::from(number)
    } else {
        0
    };
    let done = db.execute("SELECT 1").await?;
    Ok(done.rows_affected() + number)
}

#[db_handler]
async fn needless(event: LambdaEvent<Vec<u8>>, db: &PgPool) -> Result<u64, Error> {
    let mut sum = 0;
    for i in 0..event.payload.len() {
        sum = sum + event.payload[i] as u64;
    }
    db.execute("SELECT 1").await?;
    let copied = event.payload.clone();
    if copied.len() == 0 {
        return Err(Error::other("none".to_string()));
    } else {
        return Ok(sum);
    }
}

fn main() {}
