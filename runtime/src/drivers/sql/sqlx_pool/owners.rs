//! Tracks which invocation uses which connection, for a pool that hands out its connections itself.
//!
//! sqlx's hooks get a connection, but neither its owner nor anything that identifies it except for its age. Each
//! connection has a distinct time of birth, which identifies it here without a round trip.

use crate::{
    config::BIRTHS_APART,
    drivers::sql::{
        Driver,
        users::{User, Users},
    },
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How many cleanups try to cancel a query.
const CANCEL_TRIES: u32 = 2;

/// All invocations that use the pool, and all its connections.
pub(super) struct Owners<DB: Driver> {
    next: u64,
    pub(super) users: Users,
    all: Vec<Owned<DB>>,
    last_birth: Option<Instant>,
    /// The number of names that the pool has had before its current one.
    pub(super) name: u32,
    /// The number of connections that may have been opened under an earlier name.
    pub(super) misnamed: u32,
    /// The number of cancellations by name in progress: a session known only by its name must not get another owner
    /// meanwhile.
    pub(super) by_name: u32,
    /// Connections that were not released in time, and whose queries have been cancelled.
    cancelled: BTreeSet<u64>,
    /// The sessions of connections that are about to end: see [`Driver::IN_PROCESS`].
    closing: Vec<DB::Session>,
}

/// A connection of the pool.
pub(super) struct Owned<DB: Driver> {
    pub(super) number: u64,
    pub(super) session: DB::Session,
    pub(super) session_state: DB::SessionState,
    birth: Birth,
    /// The last invocation that used it; `None` if that is not known, or if there was none.
    pub(super) user: Option<User>,
    pub(super) place: Place,
    /// The session has no state of an invocation.
    pub(super) clean: bool,
    /// The number of the pool's name that it was opened with: see [`Owners::name`].
    pub(super) name: u32,
    /// It must not be reused.
    pub(super) doomed: bool,
    /// The cleanup has only used it without changing its session.
    pub(super) untouched: bool,
    /// How many times cancelling it has failed.
    pub(super) tries: u32,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    /// A handler or a task of its own holds it.
    Out,
    /// A cleanup holds it: nothing on it has to be cancelled.
    Held,
    /// It was released in the middle of a statement, and keeps its place in the pool until that is cancelled.
    Orphan,
    /// Like `Orphan`, and it is being cancelled.
    Cancelling,
    /// Dropped while a statement may still run on the server.
    Dropped,
}

/// When a connection was created, according to the pool, as far as that is known.
#[derive(Debug, Clone, Copy)]
struct Birth {
    not_before: Instant,
    /// Each reading of its age gives a time a little after the actual one.
    not_after: Option<Instant>,
}

impl Birth {
    /// The distance of `seen` from this birth; `None` if it is another connection's.
    fn distance(self, seen: Instant) -> Option<Duration> {
        if seen < self.not_before {
            return None;
        }
        let nearest = self.not_after.unwrap_or(self.not_before);
        Some(seen.saturating_duration_since(nearest))
    }
}

/// A connection that was found by its birth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) number: u64,
}

impl<DB: Driver> Owners<DB> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            users: Users::default(),
            all: Vec::new(),
            last_birth: None,
            name: 0,
            misnamed: 0,
            by_name: 0,
            cancelled: BTreeSet::new(),
            closing: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn add_user(&mut self) -> User {
        if self.any(|one| one.place == Place::Dropped && !DB::is_identified(&one.session)) {
            // That query is going to be cancelled by name: no other session of this name is reused.
            self.doom(|one| !DB::is_identified(&one.session));
        }
        self.users.add()
    }

    /// Removes `user`. Connections that have not been cleaned up are not reused.
    pub(super) fn remove_user(&mut self, user: User) {
        self.users.remove(user);
        for owned in self.all.iter_mut().filter(|one| one.user == Some(user)) {
            owned.user = None;
            owned.doomed |= !owned.clean;
        }
    }

    /// Adds a connection that is being opened for `user`. It is [born](Self::is_born) soon.
    pub(super) fn add(&mut self, session: DB::Session, user: Option<User>, most: usize) -> u64 {
        // Entries of connections that were lost without a hook.
        while self.all.len() >= most {
            let idle = self.all.iter().position(|one| one.place == Place::Idle);
            self.all.remove(idle.unwrap_or(0));
        }
        let number = self.number();
        self.all.push(Owned {
            number,
            session,
            session_state: DB::SessionState::default(),
            birth: Birth {
                not_before: Instant::now(),
                not_after: None,
            },
            user,
            place: Place::Out,
            clean: false,
            name: self.name,
            doomed: false,
            untouched: false,
            tries: 0,
        });
        number
    }

    /// Records that the pool counts the age of connection `number` from now on. `Err` is the time to wait first, so
    /// that its birth can be distinguished from the last one.
    pub(super) fn is_born(&mut self, number: u64) -> Result<(), Duration> {
        let now = Instant::now();
        let apart = self
            .last_birth
            .map_or(BIRTHS_APART, |last| now.saturating_duration_since(last));
        if apart < BIRTHS_APART {
            return Err(BIRTHS_APART.saturating_sub(apart));
        }
        self.last_birth = Some(now);
        if let Some(owned) = self.get_mut(number) {
            owned.birth.not_before = now;
        }
        Ok(())
    }

    /// Finds the connection that was born at `seen`; if its birth has not been seen before, it must be in one of `places`.
    pub(super) fn find(&mut self, seen: Instant, places: &[Place]) -> Option<Found> {
        let mut near: Vec<(Duration, usize)> = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, one)| one.place != Place::Dropped)
            .filter_map(|(at, one)| Some((one.birth.distance(seen)?, at)))
            .filter(|(distance, at)| {
                let one = &self.all[*at];
                let is_exact = one.birth.not_after.is_some() && *distance < BIRTHS_APART / 2;
                is_exact || places.contains(&one.place)
            })
            .collect();
        near.sort_unstable();
        let &(distance, at) = near.first()?;
        let sure = match near.get(1) {
            None => true,
            Some((next, _)) => distance < BIRTHS_APART / 2 && *next > BIRTHS_APART / 2,
        };
        let two = || near.iter().take(2).filter_map(|(_, at)| self.all.get(*at));
        // A session that is not yet identified is identified by its next reply.
        let says_so = two().any(|one| !DB::is_identified(&one.session));
        if !sure && (self.users.are_several() || !says_so) {
            // Better to discard both than to use the wrong one.
            let numbers: Vec<u64> = two().map(|one| one.number).collect();
            self.doom(|one| numbers.contains(&one.number));
        }
        let owned = self.all.get_mut(at)?;
        let until = owned.birth.not_after.get_or_insert(seen);
        *until = (*until).min(seen);
        Some(Found {
            number: owned.number,
        })
    }

    pub(super) fn get(&self, number: u64) -> Option<&Owned<DB>> {
        self.all.iter().find(|one| one.number == number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Owned<DB>> {
        self.all.iter_mut().find(|one| one.number == number)
    }

    /// Removes the connection with this number.
    pub(super) fn remove(&mut self, number: u64) {
        self.cancelled.remove(&number);
        let gone = self.all.extract_if(.., |one| one.number == number);
        if DB::IN_PROCESS {
            self.closing.extend(gone.map(|one| one.session));
            self.closing.retain(|session| !DB::session_ended(session));
        } else {
            gone.for_each(drop);
        }
    }

    /// Removes the connections for which `which` returns `true`.
    pub(super) fn remove_all(&mut self, which: impl Fn(&Owned<DB>) -> bool) {
        let numbers = self.numbers(which);
        for number in numbers {
            self.remove(number);
        }
    }

    /// Records that the queries of released connections were cancelled, or have to be cancelled by the next cleanup. A
    /// connection that is still being released need not wait for that any more.
    pub(super) fn cancelled(&mut self, numbers: &[u64], all: bool) {
        for number in numbers {
            let Some(owned) = self.get_mut(*number) else {
                continue;
            };
            if !matches!(owned.place, Place::Orphan | Place::Dropped) {
                if all {
                    self.cancelled.insert(*number);
                }
                continue;
            }
            owned.tries += 1;
            if all || owned.tries == CANCEL_TRIES {
                self.remove(*number);
            } else {
                owned.place = Place::Dropped;
            }
        }
    }

    /// Whether the query of connection `number` was cancelled before the connection was released.
    pub(super) fn was_cancelled(&self, number: u64) -> bool {
        self.cancelled.contains(&number)
    }

    pub(super) fn numbers(&self, which: impl Fn(&Owned<DB>) -> bool) -> Vec<u64> {
        let those = self.all.iter().filter(|one| which(one));
        those.map(|one| one.number).collect()
    }

    pub(super) fn any(&self, which: impl Fn(&Owned<DB>) -> bool) -> bool {
        self.all.iter().any(which)
    }

    pub(super) fn doom(&mut self, which: impl Fn(&Owned<DB>) -> bool) {
        for owned in self.all.iter_mut().filter(|one| which(one)) {
            owned.doomed = true;
        }
    }

    pub(super) fn sessions(&self, which: impl Fn(&Owned<DB>) -> bool) -> Vec<DB::Session> {
        let those = self.all.iter().filter(|one| which(one));
        those.map(|one| one.session.clone()).collect()
    }

    pub(super) fn have_all_left(&self) -> bool {
        self.closing.iter().all(DB::session_ended)
            && self.all.iter().all(|one| DB::session_ended(&one.session))
    }
}
