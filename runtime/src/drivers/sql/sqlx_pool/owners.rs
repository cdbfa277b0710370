//! Which invocation uses which connection of a pool that hands out its connections itself.
//!
//! sqlx's hooks see a connection, but not whose it is, and nothing by which it could be told from others, except for its
//! age: each has a birth of its own, by which it is found here without a round trip.

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

/// All users, and all connections.
pub(super) struct Owners<DB: Driver> {
    next: u64,
    pub(super) users: Users,
    all: Vec<Owned<DB>>,
    last_birth: Option<Instant>,
    /// How many names the pool has had before this one.
    pub(super) name: u32,
    /// How many connections may have been opened under another name than the pool has now.
    pub(super) misnamed: u32,
    /// Sessions are being cancelled by their names: one that goes by a name alone must not change hands.
    pub(super) by_name: u32,
    /// Those that were not back in time, and on which what ran has been cancelled.
    cancelled: BTreeSet<u64>,
    /// Of connections that are on their way to their end: see [`Driver::IN_PROCESS`].
    leaving: Vec<DB::Session>,
}

/// A connection of the pool.
pub(super) struct Owned<DB: Driver> {
    pub(super) number: u64,
    pub(super) session: DB::Session,
    pub(super) memory: DB::Memory,
    birth: Birth,
    /// Who used it last; `None` if that is not known, or nobody did.
    pub(super) user: Option<User>,
    pub(super) place: Place,
    /// Its session holds nothing of an invocation's.
    pub(super) clean: bool,
    /// Which of the pool's names it was opened with: see [`Owners::name`].
    pub(super) name: u32,
    /// It must not be used again.
    pub(super) doomed: bool,
    /// Only looked at: its session is as it was.
    pub(super) untouched: bool,
    /// How often cancelling it has failed.
    pub(super) tries: u32,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    Out,
    /// It came back in the middle of a statement, and keeps its place in the pool until that is cancelled.
    Orphan,
    /// The same, and it is being cancelled.
    Cancelling,
    /// Dropped, with something still running on the server.
    Dropped,
}

/// When the pool says that a connection came to be, as far as that is known.
#[derive(Debug, Clone, Copy)]
struct Birth {
    not_before: Instant,
    /// Each look at its age says this a little later than it is.
    not_after: Option<Instant>,
}

impl Birth {
    /// How far `seen` is from it; `None` if it is another one's.
    fn distance(self, seen: Instant) -> Option<Duration> {
        if seen < self.not_before {
            return None;
        }
        let nearest = self.not_after.unwrap_or(self.not_before);
        Some(seen.saturating_duration_since(nearest))
    }
}

/// What was found by its birth.
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
            leaving: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn add_user(&mut self) -> User {
        if self.any(|one| one.place == Place::Dropped && !DB::is_identified(&one.session)) {
            // That is going to be cancelled by its name: nothing else of this name is used again.
            self.doom(|one| !DB::is_identified(&one.session));
        }
        self.users.add()
    }

    /// What it used and has not been cleaned up is not used again.
    pub(super) fn remove_user(&mut self, user: User) {
        self.users.remove(user);
        for owned in self.all.iter_mut().filter(|one| one.user == Some(user)) {
            owned.user = None;
            owned.doomed |= !owned.clean;
        }
    }

    /// A connection that is being opened for `user`, to be [born](Self::is_born) soon.
    pub(super) fn add(&mut self, session: DB::Session, user: Option<User>, most: usize) -> u64 {
        // Those of which nobody has heard again.
        while self.all.len() >= most {
            let idle = self.all.iter().position(|one| one.place == Place::Idle);
            self.all.remove(idle.unwrap_or(0));
        }
        let number = self.number();
        self.all.push(Owned {
            number,
            session,
            memory: DB::Memory::default(),
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

    /// From now on the pool counts the age of connection `number`; `Err` says how long that has to be put off, so that it
    /// can be told from the one before.
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

    /// The connection that seems to be born at `seen`; until its birth has been seen before, one that is at `place`.
    pub(super) fn find(&mut self, seen: Instant, place: Place) -> Option<Found> {
        let mut near: Vec<(Duration, usize)> = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, one)| one.place != Place::Dropped)
            .filter_map(|(at, one)| Some((one.birth.distance(seen)?, at)))
            .filter(|(distance, at)| {
                let one = &self.all[*at];
                let is_exact = one.birth.not_after.is_some() && *distance < BIRTHS_APART / 2;
                is_exact || one.place == place
            })
            .collect();
        near.sort_unstable();
        let &(distance, at) = near.first()?;
        let sure = match near.get(1) {
            None => true,
            Some((next, _)) => distance < BIRTHS_APART / 2 && *next > BIRTHS_APART / 2,
        };
        let two = || near.iter().take(2).filter_map(|(_, at)| self.all.get(*at));
        // One that is not yet known for what it is says so in its next reply.
        let says_so = two().any(|one| !DB::is_identified(&one.session));
        if !sure && (self.users.are_several() || !says_so) {
            // Better none of them than the wrong one.
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

    /// The connection with this number is gone.
    pub(super) fn remove(&mut self, number: u64) {
        self.cancelled.remove(&number);
        let gone = self.all.extract_if(.., |one| one.number == number);
        if DB::IN_PROCESS {
            self.leaving.extend(gone.map(|one| one.session));
            self.leaving.retain(|session| !DB::has_left(session));
        } else {
            gone.for_each(drop);
        }
    }

    /// Those of which `which` says so are gone.
    pub(super) fn remove_all(&mut self, which: impl Fn(&Owned<DB>) -> bool) {
        let numbers = self.numbers(which);
        for number in numbers {
            self.remove(number);
        }
    }

    /// What ran on those that came back is cancelled, or else is tried again by the next cleanup. One that is still on
    /// its way back need not wait for that any more.
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

    /// Whether what ran on connection `number` was cancelled before that was back.
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
        self.leaving.iter().all(DB::has_left)
            && self.all.iter().all(|one| DB::has_left(&one.session))
    }
}
