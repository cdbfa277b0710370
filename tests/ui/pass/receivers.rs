//! Every kind of `self`, associated functions, and trait methods that require `Send`.

#![deny(warnings)]
#![forbid(unsafe_code)]

use std::future::Future;
use std::sync::Arc;

use db_handler::sqlx::{PgConnection, PgPool};
use db_handler::{Context, Error, LambdaEvent, db_handler};

struct Handler {
    name: String,
}

impl Handler {
    #[db_handler]
    async fn shared(&self, _: LambdaEvent<()>, db: &PgPool) -> Result<&str, Error> {
        let _ = db;
        Ok(&self.name)
    }

    #[db_handler]
    async fn exclusive(
        &mut self,
        _: LambdaEvent<()>,
        conn: &mut PgConnection,
    ) -> Result<&mut String, Error> {
        let _ = conn;
        self.name.push('x');
        Ok(&mut self.name)
    }

    #[db_handler]
    async fn counted(self: Arc<Self>, _: LambdaEvent<()>, db: &PgPool) -> Result<String, Error> {
        let _ = db;
        Ok(self.name.clone())
    }

    #[db_handler]
    async fn by_value(mut self, _: LambdaEvent<()>, db: &PgPool) -> Result<String, Error> {
        let _ = db;
        self.name.clear();
        Ok(self.name)
    }

    #[db_handler]
    async fn associated(_: LambdaEvent<()>, db: &PgPool) -> Result<Self, Error> {
        let _ = db;
        Ok(Self {
            name: String::new(),
        })
    }
}

trait Handle {
    fn handle(&self, event: LambdaEvent<u32>) -> impl Future<Output = Result<u32, Error>> + Send;
}

impl Handle for Handler {
    #[db_handler]
    async fn handle(&self, event: LambdaEvent<u32>, db: &PgPool) -> Result<u32, Error> {
        let _ = db;
        Ok(event.payload)
    }
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

fn is_send<T: Send>(_: T) {}

pub(crate) fn main() {
    let mut handler = Handler {
        name: String::new(),
    };
    is_send(handler.shared(event(())));
    is_send(handler.exclusive(event(())));
    is_send(handler.handle(event(1)));
    is_send(handler.by_value(event(())));
    is_send(
        Arc::new(Handler {
            name: String::new(),
        })
        .counted(event(())),
    );
    is_send(Handler::associated(event(())));
}
