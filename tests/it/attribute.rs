//! The attribute with custom resources, in process, on functions of every kind.

use db_handler::{
    Context, Error, ErrorKind, LambdaEvent,
    config::{Close, Defaults, Settings},
    db_handler,
    resource::{AcquireContext, Disposition, Handle, InjectMut, Resource, SharedHandle},
};
use futures_util::join;
use std::{
    collections::HashMap,
    future::Future,
    marker::PhantomData,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tracing::{Subscriber, span};
use tracing_subscriber::{Layer, layer::SubscriberExt};

// --- the clients ---

/// A custom resource, reused by default.
struct Client {
    /// Unique per client.
    serial: usize,
    handler: &'static str,
    settings: Settings,
}

/// Number of clients opened and closed for one handler.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    opened: usize,
    closed: usize,
}

/// By handler: tests run concurrently, and each has its own handlers.
static COUNTS: LazyLock<Mutex<HashMap<&'static str, Counts>>> = LazyLock::new(Mutex::default);

fn all_counts() -> MutexGuard<'static, HashMap<&'static str, Counts>> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counts(handler: &str) -> Counts {
    all_counts().get(handler).copied().unwrap_or_default()
}

impl Resource for Client {
    const NAME: &'static str = "client";
    const DEFAULTS: Defaults = Defaults::KEPT;

    async fn open(acquire: &AcquireContext) -> Result<Self, Error> {
        static SERIAL: AtomicUsize = AtomicUsize::new(1);
        all_counts().entry(acquire.handler()).or_default().opened += 1;
        // Lets concurrent callers request a client now.
        tokio::task::yield_now().await;
        Ok(Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            handler: acquire.handler(),
            settings: *acquire.settings(),
        })
    }

    async fn close(&self) {
        all_counts().entry(self.handler).or_default().closed += 1;
    }
}

/// An exclusive lease of the client.
struct Line {
    client: usize,
    uses: usize,
}

impl InjectMut for Line {
    type Handle = SharedHandle<Client>;
    type Guard = Box<Self>;

    async fn acquire(
        handle: &SharedHandle<Client>,
        _: &AcquireContext,
    ) -> Result<Box<Self>, Error> {
        Ok(Box::new(Self {
            client: handle.resource().serial,
            uses: 0,
        }))
    }

    async fn release(_: &SharedHandle<Client>, _: Box<Self>, disposition: Disposition) {
        assert_eq!(disposition, Disposition::Reuse);
    }
}

/// A resource whose `open` always fails.
struct Broken;

impl Resource for Broken {
    const NAME: &'static str = "broken client";
    const DEFAULTS: Defaults = Defaults::KEPT;

    async fn open(_: &AcquireContext) -> Result<Self, Error> {
        Err(Error::new(ErrorKind::ConnectionRefused, "scripted"))
    }
}

fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

// --- slots ---

#[tokio::test]
async fn client_is_opened_once_for_many_invocations() {
    #[db_handler]
    async fn many(event: LambdaEvent<usize>, client: &Client) -> Result<(usize, usize), Error> {
        Ok((event.payload, client.serial))
    }

    let (_, serial) = many(event(0)).await.expect("opens");
    for number in 1..100 {
        assert_eq!(many(event(number)).await.ok(), Some((number, serial)));
    }
    let once = Counts {
        opened: 1,
        closed: 0,
    };
    assert_eq!(counts("it::attribute::many"), once);
}

#[tokio::test]
async fn concurrent_first_invocations_open_one_client() {
    #[db_handler]
    async fn at_once(_: LambdaEvent<()>, client: &Client) -> Result<usize, Error> {
        Ok(client.serial)
    }

    let (one, other) = join!(at_once(event(())), at_once(event(())));
    assert_eq!(one.expect("opens"), other.expect("shares"));
    assert_eq!(counts("it::attribute::at_once").opened, 1);
}

#[tokio::test]
async fn exclusive_lease_is_acquired_anew_from_reused_client() {
    #[db_handler]
    async fn alone(line: &mut Line, _: LambdaEvent<()>) -> Result<(usize, usize), Error> {
        line.uses += 1;
        Ok((line.client, line.uses))
    }

    let first = alone(event(())).await.expect("opens");
    assert_eq!(first.1, 1);
    assert_eq!(alone(event(())).await.ok(), Some(first));
}

#[tokio::test]
async fn generic_handler_has_one_slot_per_type() {
    /// A generic resource.
    struct For<T>(usize, PhantomData<fn() -> T>);

    impl<T: 'static> Resource for For<T> {
        const NAME: &'static str = "typed client";
        const DEFAULTS: Defaults = Defaults::KEPT;

        async fn open(acquire: &AcquireContext) -> Result<Self, Error> {
            let client = Client::open(acquire).await?;
            Ok(Self(client.serial, PhantomData))
        }
    }

    #[db_handler]
    async fn generic<T: Send + 'static>(
        event: LambdaEvent<T>,
        client: &For<T>,
    ) -> Result<(T, usize), Error> {
        Ok((event.payload, client.0))
    }

    let (number, first) = generic(event(7)).await.expect("opens");
    let (text, second) = generic(event("text")).await.expect("opens");
    assert_eq!((number, text), (7, "text"));
    assert_ne!(first, second);
    assert_eq!(generic(event(8)).await.ok(), Some((8, first)));
    assert_eq!(generic(event("more")).await.ok(), Some(("more", second)));
    assert_eq!(counts("it::attribute::generic").opened, 2);
}

#[tokio::test]
async fn handlers_do_not_share_clients() {
    #[db_handler]
    async fn left(_: LambdaEvent<()>, client: &Client) -> Result<usize, Error> {
        Ok(client.serial)
    }

    #[db_handler]
    async fn right(_: LambdaEvent<()>, client: &Client) -> Result<usize, Error> {
        Ok(client.serial)
    }

    assert_ne!(left(event(())).await.ok(), right(event(())).await.ok());
}

#[tokio::test]
async fn handler_can_call_another_handler() {
    #[db_handler]
    async fn inner(event: LambdaEvent<bool>, client: &Client) -> Result<usize, Error> {
        if event.payload {
            return Ok(client.serial);
        }
        Err(Error::new(ErrorKind::Query, "scripted"))
    }

    #[db_handler]
    async fn outer(
        event: LambdaEvent<bool>,
        client: &Client,
        line: &mut Line,
    ) -> Result<[usize; 3], Error> {
        let inner = inner(event).await?;
        Ok([client.serial, line.client, inner])
    }

    let [client, line, of_inner] = outer(event(true)).await.expect("both work");
    // Two parameters are two resources, even of the same type.
    assert!(client != line && line != of_inner && of_inner != client);
    assert_eq!(inner(event(true)).await.ok(), Some(of_inner));
    outer(event(false)).await.expect_err("fails inside");
    assert_eq!(
        outer(event(true)).await.ok(),
        Some([client, line, of_inner])
    );
}

// --- settings ---

#[tokio::test]
async fn parameter_overrides_attribute() {
    #[db_handler(close = "never")]
    async fn mixed(
        _: LambdaEvent<()>,
        kept: &Client,
        #[db(close = "always")] fresh: &Client,
    ) -> Result<(usize, usize), Error> {
        Ok((kept.serial, fresh.serial))
    }

    let (kept, fresh) = mixed(event(())).await.expect("opens");
    let after_one = Counts {
        opened: 2,
        closed: 1,
    };
    assert_eq!(counts("it::attribute::mixed"), after_one);
    let (kept_again, fresh_again) = mixed(event(())).await.expect("opens");
    let after_two = Counts {
        opened: 3,
        closed: 2,
    };
    assert_eq!(counts("it::attribute::mixed"), after_two);
    assert_eq!(kept, kept_again);
    assert_ne!(fresh, fresh_again);
}

#[tokio::test]
async fn constants_are_accepted_as_settings() {
    struct Limits;

    impl Limits {
        const MAX: u32 = 4;
        const fn seconds(seconds: u64) -> u64 {
            seconds * 1_000
        }
    }

    #[db_handler(
        env = "ATTRIBUTE_URL",
        pool(max = Limits::MAX, min = Limits::MAX / 2, acquire_ms = Limits::seconds(2)),
        budget(instances = 10, connections = 101, share = 0.4),
        close = "on_error"
    )]
    async fn constants(_: LambdaEvent<()>, client: &Client) -> Result<Settings, Error> {
        Ok(client.settings)
    }

    let settings = constants(event(())).await.expect("opens");
    assert_eq!(settings.env, Some("ATTRIBUTE_URL"));
    assert_eq!((settings.max, settings.min), (4, 2));
    assert_eq!(settings.acquire, Duration::from_secs(2));
    assert_eq!(settings.close, Close::OnError);
}

// --- functions of every kind ---

struct Greeter {
    greeting: String,
    greeted: usize,
}

impl Greeter {
    fn new() -> Self {
        Self {
            greeting: "Hello".to_owned(),
            greeted: 0,
        }
    }

    #[db_handler]
    async fn by_reference(&self, event: LambdaEvent<&str>, _: &Client) -> Result<String, Error> {
        Ok(format!("{}, {}!", self.greeting, event.payload))
    }

    #[db_handler]
    async fn by_mutable_reference(
        &mut self,
        _: LambdaEvent<()>,
        client: &Client,
    ) -> Result<(usize, usize), Error> {
        self.greeted += 1;
        Ok((self.greeted, client.serial))
    }

    #[db_handler]
    async fn by_arc(self: Arc<Self>, _: LambdaEvent<()>, _: &mut Line) -> Result<String, Error> {
        Ok(self.greeting.clone())
    }
}

#[tokio::test]
async fn methods_keep_their_receiver() {
    let mut greeter = Greeter::new();
    let greeting = greeter.by_reference(event("Ada")).await;
    assert_eq!(greeting.ok().as_deref(), Some("Hello, Ada!"));

    let (first, client) = greeter
        .by_mutable_reference(event(()))
        .await
        .expect("opens");
    assert_eq!(first, 1);
    // The slot belongs to the method, not to its `self`.
    let mut another = Greeter::new();
    another.greeted = 10;
    let second = another.by_mutable_reference(event(())).await;
    assert_eq!(second.ok(), Some((11, client)));

    let greeting = Arc::new(greeter).by_arc(event(())).await;
    assert_eq!(greeting.ok().as_deref(), Some("Hello"));
}

trait Greet {
    fn greet(&self, event: LambdaEvent<u32>) -> impl Future<Output = Result<u32, Error>> + Send;
}

impl Greet for Greeter {
    #[db_handler]
    async fn greet(&self, event: LambdaEvent<u32>, client: &Client) -> Result<u32, Error> {
        assert_eq!(client.handler, "it::attribute::greet");
        Ok(event.payload)
    }
}

#[tokio::test]
async fn handler_can_implement_trait_method() {
    async fn call(greet: &impl Greet) -> Result<u32, Error> {
        greet.greet(event(5)).await
    }

    assert_eq!(call(&Greeter::new()).await.ok(), Some(5));
}

#[tokio::test]
async fn handler_can_be_spawned() {
    #[db_handler]
    async fn spawned(
        event: LambdaEvent<String>,
        client: &Client,
        line: &mut Line,
    ) -> Result<String, Error> {
        tokio::task::yield_now().await;
        line.uses += 1;
        assert_ne!(client.serial, line.client);
        Ok(event.payload)
    }

    let task = tokio::spawn(spawned(event("text".to_owned())));
    let answer = task.await.expect("no panic");
    assert_eq!(answer.ok().as_deref(), Some("text"));
}

// --- errors ---

#[tokio::test]
async fn boxed_error_contains_crate_error() {
    #[db_handler]
    async fn boxed(_: LambdaEvent<()>, _: &Broken) -> Result<(), lambda_runtime::Error> {
        Ok(())
    }

    let error = boxed(event(())).await.expect_err("never opens");
    assert_eq!(Error::from(error).kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn anyhow_error_contains_crate_error() {
    #[db_handler]
    async fn anyhow(_: LambdaEvent<()>, _: &Broken) -> Result<(), anyhow::Error> {
        Ok(())
    }

    let error = anyhow(event(())).await.expect_err("never opens");
    let ours: &Error = error.downcast_ref().expect("our error");
    assert_eq!(ours.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ours.handler(), Some("it::attribute::anyhow"));
}

#[tokio::test]
async fn custom_error_type_is_converted_from_crate_error() {
    #[derive(Debug, PartialEq)]
    enum OrderError {
        SoldOut,
        Database(ErrorKind),
    }

    impl From<Error> for OrderError {
        fn from(error: Error) -> Self {
            Self::Database(error.kind())
        }
    }

    #[db_handler]
    async fn broken(_: LambdaEvent<()>, _: &Broken) -> Result<(), OrderError> {
        Ok(())
    }

    #[db_handler]
    async fn sold_out(_: LambdaEvent<()>, _: &Client) -> Result<(), OrderError> {
        Err(OrderError::SoldOut)
    }

    let refused = OrderError::Database(ErrorKind::ConnectionRefused);
    assert_eq!(broken(event(())).await, Err(refused));
    assert_eq!(sold_out(event(())).await, Err(OrderError::SoldOut));
}

// --- other attributes ---

/// Records the names of all spans.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<&'static str>>>);

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        _: &span::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(attributes.metadata().name());
    }
}

#[tokio::test]
async fn instrument_creates_one_span_above_and_below_attribute() {
    #[tracing::instrument(skip(client))]
    #[db_handler]
    async fn above(event: LambdaEvent<u32>, client: &Client) -> Result<u32, Error> {
        let _ = client;
        Ok(event.payload)
    }

    #[db_handler]
    #[tracing::instrument(skip_all, fields(number = event.payload))]
    async fn below(event: LambdaEvent<u32>, client: &Client) -> Result<u32, Error> {
        let _ = client;
        Ok(event.payload)
    }

    let spans = Spans::default();
    // For this thread only: the test uses no other.
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    assert_eq!(above(event(1)).await.ok(), Some(1));
    assert_eq!(below(event(2)).await.ok(), Some(2));
    let names = spans.0.lock().expect("nobody panicked with it").clone();
    assert_eq!(names, ["above", "below"]);
}
