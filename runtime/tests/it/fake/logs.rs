//! What was logged on this thread.

use std::{
    cell::RefCell,
    fmt::{Debug, Write},
    sync::Once,
};
use tracing::{
    Event, Level, Metadata, Subscriber, callsite,
    field::{Field, Visit},
    span,
    subscriber::set_global_default,
};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Listens from [`listen`](Self::listen) on. A test has a thread for itself.
pub struct Logs(());

impl Logs {
    pub fn listen() -> Self {
        // One for all threads: a listener of one thread may miss what another thread said first.
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| {
            set_global_default(Listener).expect("the only one");
            callsite::rebuild_interest_cache();
        });
        LINES.take();
        Self(())
    }

    /// The line at `level` that contains `text`, with all its fields.
    #[allow(clippy::unused_self, reason = "who has not listened has heard nothing")]
    pub fn find(&self, level: Level, text: &str) -> Option<String> {
        let level = format!("{level} ");
        LINES.with_borrow(|lines| {
            let mut lines = lines.iter().filter(|line| line.starts_with(&level));
            lines.find(|line| line.contains(text)).cloned()
        })
    }
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push(line.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("a string has room");
    }
}
