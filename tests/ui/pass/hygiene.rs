//! User code may shadow every name that the expansion could use.

#![deny(warnings)]
#![forbid(unsafe_code)]
#![no_implicit_prelude]
#![allow(dead_code, non_camel_case_types)]

mod core {}
mod std {}
mod db_handler_names {}

struct Site;
struct Config;
struct Ref;
struct Option;
struct Result;
struct None;
fn handle() {}
fn identity() {}
fn drop() {}

mod handlers {
    use ::db_handler::sqlx::PgPool;
    use ::db_handler::{Error, LambdaEvent, db_handler as attribute};

    #[attribute(pool(max = 1))]
    pub(crate) async fn shadowed(
        event: LambdaEvent<u32>,
        db: &PgPool,
    ) -> ::core::result::Result<u32, Error> {
        let _ = db;
        let (__dbh_event, __dbh_0, __dbh_once) = (event, 1, 2);
        ::core::result::Result::Ok(__dbh_event.payload + __dbh_0 + __dbh_once)
    }
}

pub(crate) fn main() {
    let event = ::db_handler::LambdaEvent::new(1, ::core::default::Default::default());
    ::core::mem::drop(handlers::shadowed(event));
}
