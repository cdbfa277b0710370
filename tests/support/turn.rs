//! Schedules tests: they run concurrently, except those that measure time or keep the machine busy.
//!
//! One kind runs after the other. Tests that mostly wait run together with any kind except the last.

use std::cell::RefCell;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Maximum number of concurrent tests per kind, for any number of harness threads. With more threads than that, tests
/// that wait for the turn of another kind delay none of these. Tests that measure time mostly wait, too.
const AT_ONCE: Counts = Counts {
    waiting: 8,
    beside: 4,
    measuring: 3,
    alone: 1,
};
/// The same with the variable `FEW_AT_ONCE`: for a slower run that must not fail on a busy machine.
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
    /// The turn of the test on this thread. It ends with the thread, which ends with the test.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Kinds run in this order, one after the other, so that the machine stays busy.
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
        // Another test of this kind may now be able to start.
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

/// Declares that the calling test keeps both processors busy: no other test runs until it ends.
///
/// # Panics
/// If the test has already used servers or functions: call this first.
pub fn alone() {
    first(Kind::Alone);
}

/// Declares that the calling test mostly waits, and that its bounds tolerate a busy machine: it runs together with
/// tests that keep the machine busy.
///
/// # Panics
/// If the test has already used servers or functions: call this first.
pub fn waits() {
    first(Kind::Waiting);
}

/// Declares that the calling test measures time: no test that keeps the machine busy runs until it ends.
///
/// # Panics
/// If the test has already used servers or functions: call this first.
pub fn measures_time() {
    first(Kind::Measuring);
}

/// Lets the calling test run together with others, unless it has declared something else. Every helper that starts a
/// server or a function calls this. A test that shares such a resource must call this before it waits for the resource.
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

/// Takes a turn of this kind, unless the test already has one; returns the kind of its turn.
fn take(kind: Kind) -> Option<Kind> {
    TURN.with_borrow_mut(|mine| {
        if mine.is_none() && is_a_tests_thread() {
            *mine = Some(Turn::wait_for(kind));
        }
        mine.as_ref().map(|turn| turn.0)
    })
}

/// Whether this is a test's own thread, which the harness names after the test. On the thread `main` it runs one test
/// at a time. Threads that a test starts share its turn.
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
    fn only_one_kind_runs_together_with_waiting_tests() {
        assert_eq!(roomy([0; 4], [0; 4]), [true; 4]);
        assert_eq!(roomy([1, 0, 0, 0], [0; 4]), [true, true, true, false]);
        assert_eq!(roomy([0, 1, 0, 0], [0; 4]), [true, true, false, false]);
        let another = LIMITS.measuring > 1;
        assert_eq!(roomy([0, 0, 1, 0], [0; 4]), [true, false, another, false]);
        assert_eq!(roomy([0, 0, 0, 1], [0; 4]), [false; 4]);
    }

    #[test]
    fn number_of_tests_per_kind_is_limited() {
        let many = [0, LIMITS.beside, 0, 0];
        assert_eq!(roomy(many, [0; 4]), [true, false, false, false]);
        let many = [0, 0, LIMITS.measuring, 0];
        assert_eq!(roomy(many, [0; 4]), [true, false, false, false]);
    }

    #[test]
    fn kinds_run_in_order() {
        assert_eq!(roomy([0; 4], [0, 1, 1, 1]), [true, true, false, false]);
        assert_eq!(roomy([0; 4], [0, 0, 1, 1]), [true, true, true, false]);
        assert_eq!(roomy([0; 4], [1, 0, 0, 1]), [true, true, true, false]);
    }

    #[test]
    fn first_declaration_wins() {
        beside();
        let said_late = std::panic::catch_unwind(measures_time);
        assert!(said_late.is_err());
    }
}
