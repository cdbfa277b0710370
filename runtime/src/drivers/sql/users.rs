//! The invocations that currently use a pool.

/// One invocation's use of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User(pub(super) u64);

/// All current users of a pool.
#[derive(Default)]
pub(super) struct Users {
    next: u64,
    all: Vec<Entry>,
}

struct Entry {
    user: User,
    phase: Phase,
    /// One of its connections was lost: the others cannot be trusted either.
    lost: bool,
    /// It has failed, and it is not known whether because of a connection.
    suspect: bool,
    /// Its connections are going to be closed.
    closing: bool,
    /// The number of its waiting acquires, by [`Waiting`].
    waiting: [usize; 2],
}

/// The state of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may acquire connections.
    Running,
    /// It may no longer acquire connections.
    Over,
    /// It ended abnormally: released connections are dropped.
    Stopped,
}

/// What an acquire waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A connection is being opened or pinged.
    Opening,
    /// Every connection is in use.
    Return,
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
            closing: false,
            waiting: [0; 2],
        });
        user
    }

    pub(super) fn remove(&mut self, user: User) {
        self.all.retain(|entry| entry.user != user);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether there is more than one user: a connection that one has used may be acquired by another next.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    pub(super) fn has(&self, user: User) -> bool {
        self.get(user).is_some()
    }

    pub(super) fn is_alone(&self, user: User) -> bool {
        self.all.iter().all(|entry| entry.user == user)
    }

    /// Whether any user other than `user` may acquire connections.
    pub(super) fn others_run(&self, user: Option<User>) -> bool {
        self.running().any(|running| Some(running) != user)
    }

    /// The only user that may acquire connections, if there is exactly one.
    pub(super) fn only_running(&self) -> Option<User> {
        let mut running = self.running();
        let first = running.next()?;
        running.next().is_none().then_some(first)
    }

    fn running(&self) -> impl Iterator<Item = User> + '_ {
        let runs = |entry: &&Entry| entry.phase == Phase::Running;
        self.all.iter().filter(runs).map(|entry| entry.user)
    }

    /// The user's phase; `None` if it has been removed.
    pub(super) fn phase(&self, user: User) -> Option<Phase> {
        self.get(user).map(|entry| entry.phase)
    }

    /// Sets the phase. A stopped user stays stopped.
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

    pub(super) fn is_closing(&self, user: User) -> bool {
        self.get(user).is_some_and(|entry| entry.closing)
    }

    pub(super) fn close(&mut self, user: User) {
        if let Some(entry) = self.get_mut(user) {
            entry.closing = true;
        }
    }

    /// Adds `by` to the number of the user's acquires that wait for `what`.
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
