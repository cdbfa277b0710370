//! The invocations that use a pool right now.

/// One invocation's use of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User(pub(super) u64);

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
    /// It has failed, and whether because of a connection is not known.
    suspect: bool,
    /// What it used is going to be closed.
    closing: bool,
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

/// What can keep an acquire waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A connection is being opened, or asked whether it is alive.
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

    /// Whether there is more than one: what one has used may be acquired by another next.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    pub(super) fn has(&self, user: User) -> bool {
        self.get(user).is_some()
    }

    pub(super) fn is_alone(&self, user: User) -> bool {
        self.all.iter().all(|entry| entry.user == user)
    }

    /// Whether anybody but `user` gets connections.
    pub(super) fn others_run(&self, user: Option<User>) -> bool {
        self.running().any(|running| Some(running) != user)
    }

    /// The only one that gets connections.
    pub(super) fn only_running(&self) -> Option<User> {
        let mut running = self.running();
        let first = running.next()?;
        running.next().is_none().then_some(first)
    }

    fn running(&self) -> impl Iterator<Item = User> + '_ {
        let runs = |entry: &&Entry| entry.phase == Phase::Running;
        self.all.iter().filter(runs).map(|entry| entry.user)
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

    pub(super) fn is_closing(&self, user: User) -> bool {
        self.get(user).is_some_and(|entry| entry.closing)
    }

    pub(super) fn close(&mut self, user: User) {
        if let Some(entry) = self.get_mut(user) {
            entry.closing = true;
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
