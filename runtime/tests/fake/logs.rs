//! What was logged on this thread.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{DefaultGuard, set_default},
};

/// Listens for as long as it lives.
pub struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Logs {
    pub fn listen() -> Self {
        let lines = Arc::default();
        let listener = Listener(Arc::clone(&lines));
        Self {
            lines,
            _guard: set_default(listener),
        }
    }

    /// The line at `level` that contains `text`, with all its fields.
    pub fn find(&self, level: Level, text: &str) -> Option<String> {
        let lines = self.lines.lock().expect("nothing panics with it");
        let level = format!("{level} ");
        let mut lines = lines.iter().filter(|line| line.starts_with(&level));
        lines.find(|line| line.contains(text)).cloned()
    }
}

struct Listener(Arc<Mutex<Vec<String>>>);

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
        self.0.lock().expect("nothing panics with it").push(line.0);
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
