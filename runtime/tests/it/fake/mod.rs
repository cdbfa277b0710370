//! A resource without a database, which writes down what the lifecycle does with it.

#![allow(
    dead_code,
    unused_macros,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::field_reassign_with_default,
    reason = "what a test wants of it comes and goes"
)]

pub mod logs;

use db_handler::{
    __private::{Ref, RefMut, Site, handle, signature},
    Error, ErrorKind, Event, Invocation,
    config::Defaults,
    resource::{AcquireContext, Disposition, Handle, Health, InjectMut, Resource, SharedHandle},
};
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    ops::{Deref, DerefMut},
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// What a test tells the fake to do, and what the lifecycle did with it, by handler.
static SCRIPTS: LazyLock<Mutex<HashMap<&'static str, Arc<Script>>>> = LazyLock::new(Mutex::default);

/// The script of one test's handler.
#[derive(Default)]
pub struct Script {
    log: Mutex<Vec<String>>,
    faults: Mutex<Faults>,
    /// An open waits for a permit if there is a semaphore.
    gate: Mutex<Option<Arc<Semaphore>>>,
    generations: Mutex<Generations>,
}

/// The generations by their numbers, counted from 1.
#[derive(Default, Clone)]
pub struct Generations {
    opened: u64,
    /// Neither closed nor dropped.
    pub alive: HashSet<u64>,
    pub closed: HashSet<u64>,
    /// Unfit from now on.
    pub killed: HashSet<u64>,
}

/// What goes wrong.
#[derive(Default, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "one for each thing that can")]
pub struct Faults {
    pub open_fails: bool,
    pub take_fails: bool,
    pub commit_fails: bool,
    pub never_commits: bool,
    pub unfit_at_reset: bool,
    pub never_settles: bool,
    pub never_closes: bool,
    pub close_panics: bool,
    /// The one other method that panics.
    pub panics_in: Option<&'static str>,
}

impl Script {
    pub fn of(handler: &'static str) -> Arc<Self> {
        Arc::clone(lock(&SCRIPTS).entry(handler).or_default())
    }

    pub fn faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    pub fn gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *lock(&self.gate) = Some(Arc::clone(&gate));
        gate
    }

    /// What happened since the last call.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.log))
    }

    pub fn note(&self, what: impl Into<String>) {
        lock(&self.log).push(what.into());
    }

    pub fn generations(&self) -> Generations {
        lock(&self.generations).clone()
    }

    pub fn kill(&self, generation: u64) {
        lock(&self.generations).killed.insert(generation);
    }

    fn opened(self: Arc<Self>) -> Fake {
        let mut generations = lock(&self.generations);
        generations.opened += 1;
        let number = generations.opened;
        generations.alive.insert(number);
        drop(generations);
        Fake(self, number)
    }

    fn panic_in(&self, method: &'static str) {
        assert!(
            self.now().panics_in != Some(method),
            "scripted panic in {method}"
        );
    }

    fn now(&self) -> Faults {
        *lock(&self.faults)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

/// The fake: lent as `&Fake`, and as `&mut Line`.
pub struct Fake(Arc<Script>, u64);

impl Fake {
    /// Its number.
    pub fn generation(&self) -> u64 {
        self.1
    }

    pub fn use_it(&self) {
        self.0.note("used");
    }
}

impl Resource for Fake {
    const NAME: &'static str = "fake";
    const DEFAULTS: Defaults = Defaults::SQL.with_env(None);

    async fn open(acquire: &AcquireContext) -> Result<Self, Error> {
        let script = Script::of(acquire.handler());
        script.note("open");
        script.panic_in("open");
        let gate = lock(&script.gate).clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("never closed").forget();
        }
        if script.now().open_fails {
            return Err(Error::new(ErrorKind::ConnectionRefused, "scripted"));
        }
        Ok(script.opened())
    }

    async fn connect(&self, _: &AcquireContext) -> Result<(), Error> {
        self.0.panic_in("connect");
        Ok(())
    }

    async fn check(&self, idle: Duration) -> Health {
        self.0.panic_in("check");
        self.0.note(format!("check after {} ms", idle.as_millis()));
        let killed = lock(&self.0.generations).killed.contains(&self.1);
        if killed || self.0.now().unfit_at_reset {
            Health::Broken
        } else {
            Health::Healthy
        }
    }

    fn stop(&self) {
        self.0.note("stop");
        self.0.panic_in("stop");
    }

    fn closing(&self) {
        self.0.panic_in("closing");
        // It is said twice after a failure.
        let mut log = lock(&self.0.log);
        if log.last().is_none_or(|last| last != "closing") {
            log.push("closing".to_owned());
        }
    }

    async fn recycle(&self, _: bool) -> Health {
        self.0.note("recycle");
        self.0.panic_in("recycle");
        if self.0.now().never_settles {
            std::future::pending::<()>().await;
        }
        Health::Healthy
    }

    async fn close(&self) {
        let faults = self.0.now();
        assert!(!faults.close_panics, "scripted panic in close");
        if faults.never_closes {
            self.0.note("close hangs");
            std::future::pending::<()>().await;
        }
        lock(&self.0.generations).closed.insert(self.1);
        self.0.note("close");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        lock(&self.0.generations).alive.remove(&self.1);
        self.0.note("gone");
    }
}

/// What a handler has for itself.
pub struct Line;

/// The same, with a work that lasts when the handler succeeds.
pub struct Work;

/// What holds a [`Work`], with the script that it notes its end in.
pub struct WorkGuard(Work, Arc<Script>);

impl Deref for WorkGuard {
    type Target = Work;

    fn deref(&self) -> &Work {
        &self.0
    }
}

impl DerefMut for WorkGuard {
    fn deref_mut(&mut self) -> &mut Work {
        &mut self.0
    }
}

impl InjectMut for Work {
    type Handle = SharedHandle<Fake>;
    type Guard = WorkGuard;

    async fn acquire(handle: &SharedHandle<Fake>, _: &AcquireContext) -> Result<WorkGuard, Error> {
        Ok(WorkGuard(Work, Arc::clone(&handle.resource().0)))
    }

    async fn commit(guard: &mut WorkGuard) -> Result<(), Error> {
        let script = &guard.1;
        script.note("commit");
        script.panic_in("commit");
        if script.now().never_commits {
            std::future::pending::<()>().await;
        }
        if script.now().commit_fails {
            return Err(Error::new(ErrorKind::CommitFailed, "scripted"));
        }
        Ok(())
    }

    async fn rollback(guard: &mut WorkGuard) {
        let script = &guard.1;
        script.note("rollback");
        script.panic_in("rollback");
    }

    async fn release(handle: &SharedHandle<Fake>, _: WorkGuard, disposition: Disposition) {
        handle
            .resource()
            .0
            .note(format!("release: {disposition:?}"));
    }
}

/// What holds a [`Line`].
pub struct LineGuard(Line);

impl Deref for LineGuard {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

impl DerefMut for LineGuard {
    fn deref_mut(&mut self) -> &mut Line {
        &mut self.0
    }
}

impl InjectMut for Line {
    type Handle = SharedHandle<Fake>;
    type Guard = LineGuard;

    async fn acquire(handle: &SharedHandle<Fake>, _: &AcquireContext) -> Result<LineGuard, Error> {
        handle.resource().0.note("acquire");
        handle.resource().0.panic_in("acquire");
        if handle.resource().0.now().take_fails {
            return Err(Error::new(ErrorKind::PoolExhausted, "scripted"));
        }
        Ok(LineGuard(Line))
    }

    async fn release(handle: &SharedHandle<Fake>, _: LineGuard, disposition: Disposition) {
        handle
            .resource()
            .0
            .note(format!("release: {disposition:?}"));
        handle.resource().0.panic_in("release");
    }
}

/// An event that knows its deadline.
#[derive(Default)]
pub struct FakeEvent {
    pub deadline: Option<Instant>,
}

impl FakeEvent {
    pub fn with_ms_left(ms: u64) -> Self {
        Self {
            deadline: Some(Instant::now() + Duration::from_millis(ms)),
        }
    }
}

impl Event for FakeEvent {
    fn invocation(&self) -> Invocation {
        let mut invocation = Invocation::default();
        invocation.deadline = self.deadline;
        invocation
    }
}

/// Calls a handler that takes `&Fake`.
pub async fn shared<Out>(
    site: &'static Site,
    event: FakeEvent,
    body: impl AsyncFnOnce(&Fake) -> Result<Out, Error>,
) -> Result<Out, Error> {
    handle::<(Ref<Fake>,), _, _, _, _>(site, signature(), event, async move |_, (fake,)| {
        body(&fake).await
    })
    .await
}

/// Calls a handler that takes `&mut Line`.
pub async fn exclusive<Out>(
    site: &'static Site,
    body: impl AsyncFnOnce(&mut Line) -> Result<Out, Error>,
) -> Result<Out, Error> {
    let event = FakeEvent::default();
    handle::<(RefMut<Line>,), _, _, _, _>(site, signature(), event, async move |_, (mut line,)| {
        body(&mut line).await
    })
    .await
}

/// A handler's site with its script; every test has its own.
macro_rules! site {
    ($name:ident, $config:expr) => {{
        static CONFIGS: [Config; 1] = [$config];
        static SITE: Site = Site::new(module_path!(), stringify!($name), &CONFIGS);
        (
            &SITE,
            $crate::fake::Script::of(concat!(module_path!(), "::", stringify!($name))),
        )
    }};
}

/// Lets the tasks run that clean up after dropped handlers. The clock, if it is paused, does not advance.
pub async fn let_cleanups_run() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// Polls `future` once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) {
    let _ = futures_util::poll!(future);
}
