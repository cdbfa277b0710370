//! Orphaned queries: each keeps its place in the pool until it is cancelled, without affecting other queries.

use super::{Returned, State, gone};
use crate::{
    drivers::sql::{
        Driver,
        sqlx_pool::{LOOK_AGAIN, owners::Place},
        users::{Phase, User},
    },
    util::lock::lock,
};
use sqlx::Pool;
use std::{pin::pin, sync::atomic::Ordering};
use tokio::time::{Instant, timeout_at};

impl<DB: Driver> State<DB> {
    /// Handles a connection that was released in the middle of a statement. It keeps its place in the pool until that
    /// is cancelled: here, if its session can be distinguished from the others, otherwise in the cleanup.
    pub(super) async fn orphaned(
        &self,
        number: u64,
        user: Option<User>,
    ) -> Result<Returned, sqlx::Error> {
        {
            let mut owners = self.owners();
            if let Some(user) = user {
                owners.users.lose(user);
            }
            if owners.was_cancelled(number) {
                return Err(gone());
            }
        }
        let round_trip = self.address.round_trip();
        let until = Instant::now() + round_trip.cleanup(self.settings.reserve, true);
        loop {
            let mut returned = pin!(self.returned.notified());
            returned.as_mut().enable();
            match self.begin_to_cancel(number, user) {
                None => return Err(gone()),
                Some(Place::Cancelling) => {
                    tracing::debug!(
                        handler = self.acquire.handler(),
                        "a query was dropped by the handler: cancelling it on the server"
                    );
                    let acquire = self.acquire.restarted();
                    let (sessions, _by_name) = self.to_cancel(&[number]);
                    let cancelling = self.address.cancel(&acquire, &sessions, None, until);
                    if cancelling.await.all {
                        return Err(gone());
                    }
                    break;
                }
                Some(Place::Orphan) => {}
                // The cleanup has failed to cancel it.
                Some(_) => break,
            }
            if Instant::now() >= until {
                break;
            }
            let next_look = until.min(Instant::now() + LOOK_AGAIN);
            // A connection that fails to open notifies no task.
            let _ = timeout_at(next_look, returned).await;
        }
        if let Some(owned) = self.owners().get_mut(number) {
            owned.place = Place::Dropped;
        }
        Ok(Returned::StillRunning)
    }

    /// Decides what to do with a connection whose statement is orphaned: cancel it, or wait until its session can be
    /// distinguished from the others, or until the cleanup of its invocation cancels it. `None` if it is gone.
    fn begin_to_cancel(&self, number: u64, user: Option<User>) -> Option<Place> {
        let size = lock(&self.pool).as_ref().map_or(0, Pool::size);
        let is_opening = self.opening(size) > 0;
        let abandoned = self.abandoned.load(Ordering::Acquire);
        let mut owners = self.owners();
        let phase = user.and_then(|user| owners.users.phase(user));
        let runs = matches!(phase, None | Some(Phase::Running));
        let has_namesake = owners.any(|one| {
            one.number != number && one.place != Place::Dropped && !DB::is_identified(&one.session)
        });
        let (name, misnamed) = (owners.name, owners.misnamed);
        let owned = owners.get_mut(number)?;
        if !matches!(owned.place, Place::Out | Place::Held | Place::Orphan) {
            return Some(owned.place);
        }
        let is_identified = DB::is_identified(&owned.session);
        // A connection that is opened meanwhile must not have the same name.
        let must_change_name = !is_identified && owned.name == name;
        let is_unique = !must_change_name && !has_namesake && !is_opening && misnamed == 0;
        let place = if runs && (is_identified || is_unique) && !abandoned {
            Place::Cancelling
        } else {
            Place::Orphan
        };
        let is_new = owned.place != place;
        owned.place = place;
        if must_change_name {
            self.change_name(owners, size);
        } else {
            drop(owners);
        }
        if is_new {
            self.returned.notify_waiters();
        }
        Some(place)
    }

    /// The sessions of the connections with these `numbers`, and no others.
    pub(in crate::drivers::sql::sqlx_pool) fn to_cancel(
        &self,
        numbers: &[u64],
    ) -> (Vec<DB::Session>, Option<ByName<'_, DB>>) {
        let mut owners = self.owners();
        let mut meant = owners.sessions(|one| numbers.contains(&one.number));
        let others = owners
            .sessions(|one| !numbers.contains(&one.number) && DB::is_identified(&one.session));
        let by_name = meant.iter().any(|session| !DB::is_identified(session));
        if !by_name {
            return (meant, None);
        }
        for session in &mut meant {
            if !DB::is_identified(session) {
                *session = DB::all_but(session, &others);
            }
        }
        owners.by_name += 1;
        (meant, Some(ByName(self)))
    }
}

/// Marks a cancellation by name while it exists.
pub(in crate::drivers::sql::sqlx_pool) struct ByName<'a, DB: Driver>(&'a State<DB>);

impl<DB: Driver> Drop for ByName<'_, DB> {
    fn drop(&mut self) {
        self.0.owners().by_name -= 1;
    }
}
