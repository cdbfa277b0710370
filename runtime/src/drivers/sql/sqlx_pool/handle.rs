//! One invocation's hold on sqlx's pool.

use super::{SqlxPool, state::State};
use crate::{
    config::DROPPED_STATEMENT,
    drivers::sql::{
        Driver,
        users::{Phase, User},
    },
    error::Error,
    resource::{AcquireContext, Handle, Health, InjectRef, Symptom},
};
use futures_util::future::BoxFuture;
use sqlx::{Transaction, pool::Pool};
use std::{fmt, sync::Arc, time::Duration};

/// One invocation's use of a [`SqlxPool`].
pub struct SqlxHandle<DB: Driver> {
    resource: Arc<SqlxPool<DB>>,
    user: User,
}

impl<DB: Driver> SqlxHandle<DB> {
    pub(in crate::drivers::sql) fn pool(&self) -> &Pool<DB> {
        &self.resource.pool
    }

    /// Begins a transaction, and reports why it could not begin.
    pub(in crate::drivers::sql) async fn begin(
        &self,
        acquire: &AcquireContext,
    ) -> Result<Transaction<'static, DB>, Error> {
        State::<DB>::acting_as(self.user, self.resource.begin(acquire)).await
    }
}

impl<DB: Driver> SqlxHandle<DB> {
    /// How long the end of a transaction waits for a dropped statement.
    pub(in crate::drivers::sql) fn ready_within(&self) -> Duration {
        self.resource.state.reply_within(DROPPED_STATEMENT)
    }
}

impl<DB: Driver> Handle for SqlxHandle<DB> {
    type Resource = SqlxPool<DB>;

    fn new(resource: Arc<SqlxPool<DB>>) -> Self {
        let user = resource.state.add_user(resource.pool.size());
        Self { resource, user }
    }

    fn resource(&self) -> &SqlxPool<DB> {
        &self.resource
    }

    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(self.resource.probe_server()))
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        if symptom == Symptom::Unknown {
            self.resource.state.owners().users.suspect(self.user);
        }
        self.resource.diagnosis(symptom)
    }

    fn stop(&self) {
        let state = &self.resource.state;
        state.owners().users.set_phase(self.user, Phase::Stopped);
    }

    fn closing(&self) {
        let state = &self.resource.state;
        // The server's limit is queried through one of the connections first.
        if state.settings.instances.is_none() {
            state.owners().users.close(self.user);
        }
    }

    async fn clean_up(&self, reuse: bool) -> Health {
        self.resource.clean_up(self.user, reuse).await
    }

    fn cleanup_time(&self) -> Duration {
        self.resource.cleanup_time(self.user)
    }

    fn user_of(&self, resource: usize) -> Option<u64> {
        (resource == self.resource.state.key()).then_some(self.user.0)
    }
}

impl<DB: Driver> Drop for SqlxHandle<DB> {
    fn drop(&mut self) {
        self.resource.state.owners().remove_user(self.user);
    }
}

impl<DB: Driver> fmt::Debug for SqlxHandle<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqlxHandle").field(&self.resource).finish()
    }
}

impl<DB: Driver> InjectRef for Pool<DB> {
    type Handle = SqlxHandle<DB>;

    fn borrow(handle: &Self::Handle) -> &Self {
        handle.pool()
    }
}
