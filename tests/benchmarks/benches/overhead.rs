//! What the attribute and its lifecycle cost an invocation that does nothing with its database.
//!
//! ```sh
//! DATABASE_URL=postgres://nobody@localhost/nothing cargo bench -p db-handler-benchmarks --bench overhead
//! ```
//!
//! The database is never connected to: the URL only has to be there.

use criterion::{Criterion, criterion_group, criterion_main};
use db_handler::{
    Db, Error, LambdaEvent, db_handler,
    sqlx::{PgPool, Postgres},
};
use lambda_runtime::Context;
use std::{hint::black_box, time::SystemTime};

#[allow(clippy::unused_async, reason = "the shape of a handler")]
async fn bare(event: LambdaEvent<u64>) -> Result<u64, Error> {
    Ok(black_box(event.payload) + 1)
}

#[db_handler(close = "never")]
async fn kept(event: LambdaEvent<u64>, _db: &PgPool) -> Result<u64, Error> {
    Ok(black_box(event.payload) + 1)
}

#[db_handler]
async fn always(event: LambdaEvent<u64>, _db: &PgPool) -> Result<u64, Error> {
    Ok(black_box(event.payload) + 1)
}

#[db_handler(close = "never")]
async fn kept_db(event: LambdaEvent<u64>, _db: &Db<Postgres>) -> Result<u64, Error> {
    Ok(black_box(event.payload) + 1)
}

#[db_handler]
async fn always_db(event: LambdaEvent<u64>, _db: &Db<Postgres>) -> Result<u64, Error> {
    Ok(black_box(event.payload) + 1)
}

/// An event as a platform sends it, with a deadline 3 s away.
fn event() -> LambdaEvent<u64> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let mut context = Context::default();
    "6f6b9be0-3c0a-4d3c-8f0e-7a1f4f6f8a55".clone_into(&mut context.request_id);
    context.deadline = u64::try_from(since_1970.as_millis()).expect("fits") + 3_000;
    LambdaEvent::new(1, context)
}

fn overhead(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("no database traffic");
    group.bench_function("bare", |bencher| {
        bencher.to_async(&runtime).iter(|| bare(event()));
    });
    group.bench_function("kept, Db", |bencher| {
        bencher.to_async(&runtime).iter(|| kept_db(event()));
    });
    group.bench_function("always, Db", |bencher| {
        bencher.to_async(&runtime).iter(|| always_db(event()));
    });
    group.bench_function("kept", |bencher| {
        bencher.to_async(&runtime).iter(|| kept(event()));
    });
    group.bench_function("always", |bencher| {
        bencher.to_async(&runtime).iter(|| always(event()));
    });
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
