//! Which tests run beside which: all of them side by side, but for those that measure time or keep the machine busy.

use std::cell::RefCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// So many tests that measure time may run at once: what they do most is wait.
const MEASURING_AT_ONCE: usize = 2;

static RUNNING: Mutex<Running> = Mutex::new(Running {
    beside: 0,
    measuring: 0,
    alone: 0,
    waiting: 0,
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The turn of the test on this thread. It ends with the thread, and so with the test.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

struct Running {
    beside: usize,
    measuring: usize,
    alone: usize,
    /// Of the latter two kinds: until they have run, nothing else begins.
    waiting: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Beside,
    Measuring,
    Alone,
}

impl Running {
    fn has_room_for(&self, kind: Kind) -> bool {
        self.alone == 0
            && match kind {
                Kind::Beside => self.measuring == 0 && self.waiting == 0,
                Kind::Measuring => self.beside == 0 && self.measuring < MEASURING_AT_ONCE,
                Kind::Alone => self.beside == 0 && self.measuring == 0,
            }
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Beside => &mut self.beside,
            Kind::Measuring => &mut self.measuring,
            Kind::Alone => &mut self.alone,
        }
    }
}

struct Turn(Kind);

impl Turn {
    fn wait_for(kind: Kind) -> Self {
        let mut running = running();
        if kind != Kind::Beside {
            running.waiting += 1;
        }
        running = CHANGED
            .wait_while(running, |running| !running.has_room_for(kind))
            .unwrap_or_else(PoisonError::into_inner);
        if kind != Kind::Beside {
            running.waiting -= 1;
        }
        *running.count(kind) += 1;
        // Who waited behind this one may run beside it.
        CHANGED.notify_all();
        Self(kind)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *running().count(self.0) -= 1;
        CHANGED.notify_all();
    }
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling test keeps both processors busy: no other one runs until it is over.
///
/// # Panics
/// When it has begun to use servers or functions: this comes first in a test.
pub fn alone() {
    first(Kind::Alone);
}

/// The calling test compares what something took with a bound: until it is over, only another one of these runs beside it.
///
/// # Panics
/// When it has begun to use servers or functions: this comes first in a test.
pub fn measures_time() {
    first(Kind::Measuring);
}

/// The calling test runs beside others, unless it has said something else. Whatever starts a server or a function calls this.
pub(crate) fn beside() {
    take(Kind::Beside);
}

fn first(kind: Kind) {
    let has = take(kind);
    assert!(
        has.is_none_or(|has| has == kind),
        "a test says first of all how it runs"
    );
}

/// The first one of a test decides: that one is returned.
fn take(kind: Kind) -> Option<Kind> {
    TURN.with_borrow_mut(|mine| {
        if mine.is_none() && is_a_tests_thread() {
            *mine = Some(Turn::wait_for(kind));
        }
        mine.as_ref().map(|turn| turn.0)
    })
}

/// The harness names a test's thread after the test. On the thread `main` it runs one test at a time; the threads that a test
/// starts share its turn.
fn is_a_tests_thread() -> bool {
    thread::current()
        .name()
        .is_some_and(|name| name.contains("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_one_kind_run_at_once() {
        let mut running = Running {
            beside: 1,
            measuring: 0,
            alone: 0,
            waiting: 0,
        };
        assert!(running.has_room_for(Kind::Beside));
        assert!(!running.has_room_for(Kind::Measuring) && !running.has_room_for(Kind::Alone));
        running.waiting = 1;
        assert!(
            !running.has_room_for(Kind::Beside),
            "it would wait for ever"
        );
        (running.beside, running.measuring) = (0, 1);
        assert!(running.has_room_for(Kind::Measuring));
        assert!(!running.has_room_for(Kind::Beside) && !running.has_room_for(Kind::Alone));
        running.measuring = MEASURING_AT_ONCE;
        assert!(!running.has_room_for(Kind::Measuring));
        (running.measuring, running.alone, running.waiting) = (0, 1, 0);
        for kind in [Kind::Beside, Kind::Measuring, Kind::Alone] {
            assert!(!running.has_room_for(kind));
        }
    }

    #[test]
    fn the_first_word_counts() {
        beside();
        let said_late = std::panic::catch_unwind(measures_time);
        assert!(said_late.is_err());
    }
}
