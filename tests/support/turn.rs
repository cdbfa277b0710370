//! Which tests run beside which: all of them side by side, but for those that measure time or keep the machine busy.
//!
//! The kinds come one after the other. Those that wait for most of their time run beside any of them but the last.

use std::cell::RefCell;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

/// So many tests of a kind run at once, whatever number of threads the harness has: with more threads than that, those that wait
/// for another kind's turn keep none of these waiting. Those that measure time wait for most of it, too.
const AT_ONCE: Counts = Counts {
    waiting: 8,
    beside: 4,
    measuring: 3,
    alone: 1,
};
/// The same with the variable `FEW_AT_ONCE`: for a run that may take its time, and must not fail because the machine is busy.
const FEW_AT_ONCE: Counts = Counts {
    waiting: 3,
    beside: 2,
    measuring: 1,
    alone: 1,
};

static LIMITS: LazyLock<Counts> = LazyLock::new(|| {
    if std::env::var_os("FEW_AT_ONCE").is_some() {
        FEW_AT_ONCE
    } else {
        AT_ONCE
    }
});

static TURNS: Mutex<Turns> = Mutex::new(Turns {
    running: Counts::NONE,
    queued: Counts::NONE,
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The turn of the test on this thread. It ends with the thread, and so with the test.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Those that come first in this list go first: kind after kind, so that the machine does not run empty each time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiting,
    Beside,
    Measuring,
    Alone,
}

#[derive(Clone, Copy)]
struct Counts {
    waiting: usize,
    beside: usize,
    measuring: usize,
    alone: usize,
}

struct Turns {
    running: Counts,
    queued: Counts,
}

impl Counts {
    const NONE: Self = Self {
        waiting: 0,
        beside: 0,
        measuring: 0,
        alone: 0,
    };

    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Waiting => &mut self.waiting,
            Kind::Beside => &mut self.beside,
            Kind::Measuring => &mut self.measuring,
            Kind::Alone => &mut self.alone,
        }
    }
}

impl Turns {
    fn has_room_for(&self, kind: Kind) -> bool {
        let Self { running, queued } = self;
        match kind {
            Kind::Waiting => running.waiting < LIMITS.waiting && running.alone == 0,
            Kind::Beside => {
                running.beside < LIMITS.beside && running.measuring == 0 && running.alone == 0
            }
            Kind::Measuring => {
                running.measuring < LIMITS.measuring
                    && running.beside + queued.beside == 0
                    && running.alone == 0
            }
            Kind::Alone => {
                running.alone == 0
                    && running.waiting + queued.waiting == 0
                    && running.beside + queued.beside == 0
                    && running.measuring + queued.measuring == 0
            }
        }
    }
}

struct Turn(Kind);

impl Turn {
    fn wait_for(kind: Kind) -> Self {
        let mut turns = turns();
        *turns.queued.of(kind) += 1;
        turns = CHANGED
            .wait_while(turns, |turns| !turns.has_room_for(kind))
            .unwrap_or_else(PoisonError::into_inner);
        *turns.queued.of(kind) -= 1;
        *turns.running.of(kind) += 1;
        // Another one of this kind may have waited for nothing but this one.
        CHANGED.notify_all();
        Self(kind)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *turns().running.of(self.0) -= 1;
        CHANGED.notify_all();
    }
}

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling test keeps both processors busy: no other one runs until it is over.
///
/// # Panics
/// When it has begun to use servers or functions: this comes first in a test.
pub fn alone() {
    first(Kind::Alone);
}

/// The calling test waits for most of its time, and its bounds leave room for a busy machine: it runs beside others that need
/// the machine.
///
/// # Panics
/// When it has begun to use servers or functions: this comes first in a test.
pub fn waits() {
    first(Kind::Waiting);
}

/// The calling test compares what something took with a bound: until it is over, no other one runs beside it.
///
/// # Panics
/// When it has begun to use servers or functions: this comes first in a test.
pub fn measures_time() {
    first(Kind::Measuring);
}

/// The calling test runs beside others, unless it has said something else. Whatever starts a server or a function calls this;
/// who shares something of their own between tests calls it before they wait for that.
pub fn beside() {
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

    const KINDS: [Kind; 4] = [Kind::Waiting, Kind::Beside, Kind::Measuring, Kind::Alone];

    fn roomy(running: [usize; 4], queued: [usize; 4]) -> [bool; 4] {
        let counts = |[waiting, beside, measuring, alone]: [usize; 4]| Counts {
            waiting,
            beside,
            measuring,
            alone,
        };
        let turns = Turns {
            running: counts(running),
            queued: counts(queued),
        };
        KINDS.map(|kind| turns.has_room_for(kind))
    }

    #[test]
    fn only_tests_of_one_kind_run_at_once_beside_those_that_wait() {
        assert_eq!(roomy([0; 4], [0; 4]), [true; 4]);
        assert_eq!(roomy([1, 0, 0, 0], [0; 4]), [true, true, true, false]);
        assert_eq!(roomy([0, 1, 0, 0], [0; 4]), [true, true, false, false]);
        let another = LIMITS.measuring > 1;
        assert_eq!(roomy([0, 0, 1, 0], [0; 4]), [true, false, another, false]);
        assert_eq!(roomy([0, 0, 0, 1], [0; 4]), [false; 4]);
    }

    #[test]
    fn no_more_of_a_kind_run_than_may() {
        let many = [0, LIMITS.beside, 0, 0];
        assert_eq!(roomy(many, [0; 4]), [true, false, false, false]);
        let many = [0, 0, LIMITS.measuring, 0];
        assert_eq!(roomy(many, [0; 4]), [true, false, false, false]);
    }

    #[test]
    fn one_kind_comes_after_the_other() {
        assert_eq!(roomy([0; 4], [0, 1, 1, 1]), [true, true, false, false]);
        assert_eq!(roomy([0; 4], [0, 0, 1, 1]), [true, true, true, false]);
        assert_eq!(roomy([0; 4], [1, 0, 0, 1]), [true, true, true, false]);
    }

    #[test]
    fn the_first_word_counts() {
        beside();
        let said_late = std::panic::catch_unwind(measures_time);
        assert!(said_late.is_err());
    }
}
