//! Type, const and lifetime parameters of the function and its `impl` block; `impl Trait` as argument and return type.

#![deny(warnings)]

use std::fmt::Display;

use db_handler::sqlx::PgPool;
use db_handler::{Context, Error, LambdaEvent, db_handler};

#[db_handler]
async fn generic<T, const N: usize>(
    event: LambdaEvent<[T; N]>,
    db: &PgPool,
) -> Result<Vec<T>, Error>
where
    T: Send + 'static,
{
    let _ = db;
    Ok(event.payload.into())
}

#[db_handler]
async fn anonymous(
    event: LambdaEvent<impl Iterator<Item = impl Display + Send> + Send>,
    db: &PgPool,
) -> Result<impl Display, Error> {
    let _ = db;
    let mut text = String::new();
    for item in event.payload {
        text.push_str(&item.to_string());
    }
    Ok(text)
}

#[db_handler]
async fn borrowed<'a>(event: LambdaEvent<&'a str>, db: &PgPool) -> Result<&'a str, Error> {
    let _ = db;
    Ok(event.payload)
}

struct Block<T>(T);

impl<T: Clone + Send + Sync + 'static> Block<T> {
    #[db_handler]
    async fn method(&self, _: LambdaEvent<()>, db: &PgPool) -> Result<T, Error> {
        let _ = db;
        Ok(self.0.clone())
    }

    #[db_handler]
    async fn associated(event: LambdaEvent<T>, db: &PgPool) -> Result<T, Error> {
        let _ = db;
        Ok(event.payload)
    }
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

fn is_send<T: Send>(_: T) {}

pub(crate) fn main() {
    is_send(generic(event([1, 2])));
    is_send(anonymous(event([1, 2].into_iter())));
    is_send(borrowed(event("text")));
    is_send(Block(1).method(event(())));
    is_send(Block::associated(event(1)));
}
