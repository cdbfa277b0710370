//! The invocations that use a pool right now.

use super::Waiting;

/// One invocation's use of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::resource::sql) struct User(u64);

/// All of them.
#[derive(Default)]
pub(super) struct Users {
    next: u64,
    all: Vec<Entry>,
}

struct Entry {
    user: User,
    phase: Phase,
    /// One of its connections has been lost: the others cannot be trusted either.
    lost: bool,
    /// It has failed, and nobody knows whether because of a connection.
    suspect: bool,
    /// How many of its acquires wait for what.
    waiting: [usize; 2],
}

/// How far an invocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It gets connections.
    Running,
    /// It gets none any more.
    Over,
    /// It has ended abnormally: what comes back is dropped.
    Stopped,
}

impl Users {
    pub(super) fn add(&mut self) -> User {
        self.next += 1;
        let user = User(self.next);
        self.all.push(Entry {
            user,
            phase: Phase::Running,
            lost: false,
            suspect: false,
            waiting: [0; 2],
        });
        user
    }

    pub(super) fn remove(&mut self, user: User) {
        self.all.retain(|entry| entry.user != user);
    }

    pub(super) fn has(&self, user: User) -> bool {
        self.get(user).is_some()
    }

    pub(super) fn is_alone(&self, user: User) -> bool {
        self.all.iter().all(|entry| entry.user == user)
    }

    /// `None` when it has been removed.
    pub(super) fn phase(&self, user: User) -> Option<Phase> {
        self.get(user).map(|entry| entry.phase)
    }

    /// A stopped one stays stopped.
    pub(super) fn set_phase(&mut self, user: User, phase: Phase) {
        if let Some(entry) = self.get_mut(user)
            && entry.phase != Phase::Stopped
        {
            entry.phase = phase;
        }
    }

    pub(super) fn has_lost(&self, user: User) -> bool {
        self.get(user).is_some_and(|entry| entry.lost)
    }

    pub(super) fn lose(&mut self, user: User) {
        if let Some(entry) = self.get_mut(user) {
            entry.lost = true;
        }
    }

    pub(super) fn is_suspect(&self, user: User) -> bool {
        self.get(user).is_some_and(|entry| entry.suspect)
    }

    pub(super) fn suspect(&mut self, user: User) {
        if let Some(entry) = self.get_mut(user) {
            entry.suspect = true;
        }
    }

    /// `by` more of its acquires wait for `what`.
    pub(super) fn waits(&mut self, user: User, what: Waiting, by: isize) {
        if let Some(entry) = self.get_mut(user) {
            let count = &mut entry.waiting[what as usize];
            *count = count.saturating_add_signed(by);
        }
    }

    pub(super) fn waiting(&self, user: User, what: Waiting) -> bool {
        self.get(user)
            .is_some_and(|entry| entry.waiting[what as usize] > 0)
    }

    pub(super) fn any_waiting(&self, what: Waiting) -> bool {
        self.all
            .iter()
            .any(|entry| entry.waiting[what as usize] > 0)
    }

    fn get(&self, user: User) -> Option<&Entry> {
        self.all.iter().find(|entry| entry.user == user)
    }

    fn get_mut(&mut self, user: User) -> Option<&mut Entry> {
        self.all.iter_mut().find(|entry| entry.user == user)
    }
}
