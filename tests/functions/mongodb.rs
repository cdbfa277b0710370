//! A test function for MongoDB: its event says what to do, and the variable `HANDLER` selects the handler.

use db_handler::{
    Context, Error, LambdaEvent, db_handler,
    mongodb::{
        Client, Collection, Cursor, Database,
        bson::{Document, doc},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    env,
    sync::Mutex,
    time::{Duration, UNIX_EPOCH},
};
use tokio::{sync::OnceCell, task::JoinHandle, time::timeout};

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
enum Deed {
    /// Does not use the database.
    Nothing,
    /// Inserts a document, and returns the number of documents.
    Insert,
    /// Searches a document that does not exist.
    Find,
    /// The same, several times concurrently.
    SideBySide { count: usize },
    /// The same, dropped after this time.
    GiveUp { milliseconds: u64 },
    /// Leaks an unfinished cursor.
    KeepCursor,
    /// A find that still runs when the handler returns.
    LeaveRunning,
    /// Waits for the find that was left running, and returns the time of its reply in milliseconds since 1970.
    Linger,
    /// The name of the database.
    Name,
    /// The context of the invocation.
    Context,
    /// An error of the handler itself.
    Fail,
    /// A panic.
    Panic,
}

/// Cursors and tasks that outlive their handler.
static KEPT: Mutex<Vec<Cursor<Document>>> = Mutex::new(Vec::new());
static LEFT: tokio::sync::Mutex<Option<JoinHandle<Option<u64>>>> =
    tokio::sync::Mutex::const_new(None);

/// Longer than the find takes after the thaw, and shorter than the function's timeout.
const LINGERS: Duration = Duration::from_secs(2);

async fn run(deed: Deed, context: Context, database: &Database) -> Result<Value, Error> {
    let notes: Collection<Document> = database.collection("notes");
    let missing = || doc! { "missing": true };
    Ok(match deed {
        Deed::Nothing => json!("nothing"),
        Deed::Insert => {
            notes.insert_one(doc! { "text": "hello" }).await?;
            json!(notes.count_documents(doc! {}).await?)
        }
        Deed::Find => json!(notes.find_one(missing()).await?),
        Deed::SideBySide { count } => {
            let finds = (0..count).map(|_| notes.find_one(missing()).into_future());
            futures_util::future::try_join_all(finds).await?;
            json!(count)
        }
        Deed::GiveUp { milliseconds } => {
            let finding = notes.find_one(missing()).into_future();
            let found = timeout(Duration::from_millis(milliseconds), finding).await;
            json!(found.is_ok())
        }
        Deed::KeepCursor => {
            let many = (0..10).map(|number| doc! { "number": number });
            notes.insert_many(many).await?;
            let mut cursor = notes.find(doc! {}).batch_size(2).await?;
            cursor.advance().await?;
            if let Ok(mut kept) = KEPT.lock() {
                kept.push(cursor);
            }
            json!("kept")
        }
        Deed::LeaveRunning => {
            let notes = notes.clone();
            let mut finding = tokio::spawn(async move {
                notes.find_one(missing()).await.ok()?;
                Some(epoch_ms())
            });
            // Long enough to send the command; the server delays its reply much longer.
            let found = timeout(Duration::from_millis(300), &mut finding).await;
            if found.is_err() {
                *LEFT.lock().await = Some(finding);
            }
            json!(found.is_ok())
        }
        Deed::Linger => {
            let left = LEFT.lock().await.take();
            let ended = match left {
                Some(finding) => timeout(LINGERS, finding).await.map_err(Error::other)?,
                None => Ok(None),
            };
            json!(ended.ok().flatten())
        }
        Deed::Name => json!(database.name()),
        Deed::Context => json!({
            "request_id": context.request_id,
            "function": context.env_config.function_name,
            "version": context.env_config.version,
            "memory": context.env_config.memory,
            "group": context.env_config.log_group,
            "deadline": context.deadline,
        }),
        Deed::Fail => return Err(Error::other("the handler's own")),
        Deed::Panic => panic!("the handler's own"),
    })
}

#[db_handler(pool(max = 2, acquire_ms = 3_000))]
async fn kept(event: LambdaEvent<Deed>, database: &Database) -> Result<Value, Error> {
    run(event.payload, event.context, database).await
}

#[db_handler(pool(max = 1, acquire_ms = 3_000), close = "always")]
async fn always(event: LambdaEvent<Deed>, database: &Database) -> Result<Value, Error> {
    run(event.payload, event.context, database).await
}

#[db_handler(pool(acquire_ms = 3_000), close = "on_error")]
async fn on_error(event: LambdaEvent<Deed>, database: &Database) -> Result<Value, Error> {
    run(event.payload, event.context, database).await
}

#[db_handler(pool(min = 2, acquire_ms = 3_000), connect = "eager")]
async fn eager(event: LambdaEvent<Deed>, database: &Database) -> Result<Value, Error> {
    run(event.payload, event.context, database).await
}

#[db_handler(pool(acquire_ms = 3_000))]
async fn client(event: LambdaEvent<Deed>, client: &Client) -> Result<Value, Error> {
    run(event.payload, event.context, &client.database("chosen")).await
}

/// Without the attribute: a new client for every invocation, closed at its end.
async fn plain_each(event: LambdaEvent<Deed>) -> Result<Value, Error> {
    let client = Client::with_uri_str(uri()?).await?;
    let answer = run(event.payload, event.context, &client.database("plain")).await;
    client.shutdown().immediate(true).await;
    answer
}

/// Without the attribute: the recipe's cached connection, one client that is opened once.
async fn plain_cached(event: LambdaEvent<Deed>) -> Result<Value, Error> {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    let client = CLIENT
        .get_or_try_init(async || Ok::<_, Error>(Client::with_uri_str(uri()?).await?))
        .await?;
    run(event.payload, event.context, &client.database("plain")).await
}

fn epoch_ms() -> u64 {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn uri() -> Result<String, Error> {
    env::var("MONGODB_URI").map_err(Error::other)
}

/// Two concurrent callers, each of which returns the client that it got.
async fn pair(_: LambdaEvent<Value>) -> Result<Value, Error> {
    let caller = || which(LambdaEvent::new(Value::Null, Context::default()));
    let (one, other) = tokio::try_join!(caller(), caller())?;
    Ok(json!([one, other]))
}

#[db_handler(pool(acquire_ms = 3_000))]
async fn which(_event: LambdaEvent<Value>, client: &Client) -> Result<String, Error> {
    client
        .database("admin")
        .run_command(doc! { "ping": 1 })
        .await?;
    Ok(format!("{client:p}"))
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    match env::var("HANDLER").as_deref() {
        Ok("always") => db_handler::run(always).await,
        Ok("on_error") => db_handler::run(on_error).await,
        Ok("eager") => db_handler::run(eager).await,
        Ok("client") => db_handler::run(client).await,
        Ok("plain_each") => db_handler::run(plain_each).await,
        Ok("plain_cached") => db_handler::run(plain_cached).await,
        Ok("pair") => db_handler::run(pair).await,
        _ => db_handler::run(kept).await,
    }
}
