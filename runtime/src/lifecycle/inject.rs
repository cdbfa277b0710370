//! From the types of a handler's resource parameters to what its body borrows from.

#![allow(
    missing_debug_implementations,
    reason = "these are seen by the expansion only"
)]

use super::{
    finally::PutBack,
    obtain,
    session::{Conclude, Session},
};
use crate::{
    background::Background,
    config::Close,
    error::{Error, Stage},
    lock::lock,
    resource::{Exclusive, Resource, Shared},
    site::Site,
    slot::Borrowed,
    unwind::caught,
};
use futures_util::future::{BoxFuture, try_join, try_join_all};
use std::{
    future::{Future, ready},
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::time::timeout_at;

/// A parameter `&T`.
///
/// A projection rather than the type itself, so that the compiler reports a `T` that is no resource
/// where the user wrote `T`.
pub type Ref<T> = <T as ByRef>::Param;

/// A parameter `&mut T`: see [`Ref`].
pub type RefMut<T> = <T as ByMut>::Param;

/// What can be a parameter `&Self`.
pub trait ByRef {
    /// How it is lent.
    type Param: Param;
}

#[diagnostic::do_not_recommend]
impl<T: Shared> ByRef for T {
    type Param = SharedParam<T>;
}

/// What can be a parameter `&mut Self`.
pub trait ByMut {
    /// How it is lent.
    type Param: Param;
}

#[diagnostic::do_not_recommend]
impl<T: Exclusive> ByMut for T {
    type Param = ExclusiveParam<T>;
}

/// sqlx's own type, whatever its lifetime: see [`OwnTransaction`](crate::resource::sql::OwnTransaction).
#[cfg(feature = "_sql")]
#[diagnostic::do_not_recommend]
impl<DB: crate::resource::sql::Driver> ByMut for sqlx::Transaction<'_, DB> {
    type Param = ExclusiveParam<crate::resource::sql::OwnTransaction<DB>>;
}

/// When the resource of a parameter is closed if the attribute does not say.
#[must_use]
pub const fn default_close<P: Param>() -> Close {
    P::CLOSE
}

/// A parameter `&T`.
pub struct SharedParam<T>(PhantomData<fn() -> T>);

/// A parameter `&mut T`.
pub struct ExclusiveParam<T>(PhantomData<fn() -> T>);

/// One resource parameter.
pub trait Param: 'static {
    /// What the parameter borrows from.
    type Guard: Send;

    /// When its resource is closed if the attribute does not say.
    const CLOSE: Close;

    /// Gets it for one invocation.
    fn lend(
        session: &Session,
        parameter: usize,
    ) -> impl Future<Output = Result<Self::Guard, Error>> + Send;

    /// Whether anything may be open between two invocations.
    fn keeps(site: &'static Site, parameter: usize) -> bool;

    /// Gets ready before the first event.
    fn prepare(
        site: &'static Site,
        parameter: usize,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static;
}

/// Background tasks are the invocation's own: there is nothing to open, and nothing to keep.
#[diagnostic::do_not_recommend]
impl ByRef for Background {
    type Param = BackgroundParam;
}

/// A parameter `&Background`.
pub struct BackgroundParam;

impl Param for BackgroundParam {
    type Guard = BackgroundGuard;

    const CLOSE: Close = Close::Never;

    async fn lend(session: &Session, _: usize) -> Result<Self::Guard, Error> {
        Ok(BackgroundGuard(session.background()))
    }

    fn keeps(_: &'static Site, _: usize) -> bool {
        false
    }

    async fn prepare(_: &'static Site, _: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// What a body's `&Background` borrows from.
pub struct BackgroundGuard(Background);

impl Deref for BackgroundGuard {
    type Target = Background;

    fn deref(&self) -> &Background {
        &self.0
    }
}

impl<T: Shared> Param for SharedParam<T> {
    type Guard = SharedGuard<T::Resource, T>;

    const CLOSE: Close = <T::Resource as Resource>::DEFAULTS.close;

    async fn lend(session: &Session, parameter: usize) -> Result<Self::Guard, Error> {
        let (resource, _) = session
            .lease::<T::Resource>(parameter, Box::new(|_, _| Box::pin(ready(()))))
            .await?;
        Ok(SharedGuard {
            resource,
            borrow: T::borrow,
        })
    }

    fn keeps(site: &'static Site, parameter: usize) -> bool {
        site.settings::<T::Resource>(parameter).keeps()
    }

    async fn prepare(site: &'static Site, parameter: usize) -> Result<(), Error> {
        obtain::prepare::<T::Resource>(site, parameter).await
    }
}

impl<T: Exclusive> Param for ExclusiveParam<T> {
    type Guard = ExclusiveGuard<T::Loan>;

    const CLOSE: Close = <T::Resource as Resource>::DEFAULTS.close;

    async fn lend(session: &Session, parameter: usize) -> Result<Self::Guard, Error> {
        let returned = Returned::<T::Loan>::default();
        let (resource, acquire) = session
            .lease::<T::Resource>(parameter, returned.put_back::<T>())
            .await?;
        let taking = caught::<T::Resource, _>("take", || T::take(&resource, &acquire));
        let loan = match timeout_at(acquire.until(), taking).await {
            Ok(taken) => taken.flatten(),
            Err(_) => Err(acquire.timed_out("taking a connection")),
        };
        match loan {
            Ok(loan) => {
                session.concludes(parameter, returned.conclude::<T>());
                Ok(ExclusiveGuard {
                    loan: Some(loan),
                    returned,
                })
            }
            Err(error) => Err(error.at(Stage::Acquire).in_handler(acquire.handler())),
        }
    }

    fn keeps(site: &'static Site, parameter: usize) -> bool {
        site.settings::<T::Resource>(parameter).keeps()
    }

    async fn prepare(site: &'static Site, parameter: usize) -> Result<(), Error> {
        obtain::prepare::<T::Resource>(site, parameter).await
    }
}

/// What a body's `&T` borrows from.
///
/// Like [`ExclusiveGuard`], it has no bound on `T`: where `T` is no resource, that has been said.
pub struct SharedGuard<R, T: ?Sized> {
    resource: Borrowed<R>,
    borrow: fn(&R) -> &T,
}

impl<R, T: ?Sized> Deref for SharedGuard<R, T> {
    type Target = T;

    fn deref(&self) -> &T {
        (self.borrow)(&self.resource)
    }
}

/// What a body's `&mut T` borrows from. However the body ends, the loan ends up in `returned`.
pub struct ExclusiveGuard<L> {
    loan: Option<L>,
    returned: Returned<L>,
}

impl<L: Deref> Deref for ExclusiveGuard<L> {
    type Target = L::Target;

    fn deref(&self) -> &L::Target {
        match &self.loan {
            Some(loan) => loan,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<L: DerefMut> DerefMut for ExclusiveGuard<L> {
    fn deref_mut(&mut self) -> &mut L::Target {
        match &mut self.loan {
            Some(loan) => loan,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<L> Drop for ExclusiveGuard<L> {
    fn drop(&mut self) {
        *self.returned.lock() = self.loan.take();
    }
}

/// Where a guard leaves its loan for the *finally*.
struct Returned<L>(Arc<Mutex<Option<L>>>);

impl<L> Returned<L> {
    fn lock(&self) -> MutexGuard<'_, Option<L>> {
        lock(&self.0)
    }
}

impl<L: Send + 'static> Returned<L> {
    fn conclude<T: Exclusive<Loan = L>>(&self) -> Conclude {
        let returned = Self(Arc::clone(&self.0));
        Box::new(move |outcome| {
            Box::pin(async move {
                let Some(loan) = returned.lock().take() else {
                    return Ok(());
                };
                // However this ends, the loan is there for the *finally*.
                let mut guard = ExclusiveGuard {
                    loan: Some(loan),
                    returned,
                };
                let Some(loan) = &mut guard.loan else {
                    return Ok(());
                };
                caught::<T::Resource, _>("conclude", || T::conclude(loan, outcome))
                    .await
                    .flatten()
            })
        })
    }

    fn put_back<T: Exclusive<Loan = L>>(&self) -> PutBack<T::Resource> {
        let returned = Self(Arc::clone(&self.0));
        Box::new(move |resource, fate| {
            let loan = returned.lock().take();
            Box::pin(async move {
                if let Some(loan) = loan {
                    T::put_back(resource, loan, fate).await;
                }
            })
        })
    }
}

impl<L> Default for Returned<L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// All resource parameters of a handler: a tuple of [`Ref`] and [`RefMut`], in their order.
pub trait Params: 'static {
    /// What the body borrows from.
    type Guards: Send;

    /// Gets all of them for one invocation.
    fn lend(session: &Session) -> impl Future<Output = Result<Self::Guards, Error>> + Send;

    /// Whether anything may be open between two invocations.
    fn keeps(site: &'static Site) -> bool;

    /// Gets ready before the first event.
    fn prepare(site: &'static Site) -> impl Future<Output = Result<(), Error>> + Send + 'static;
}

/// `A` lent beside `B` beside `C` ..: the first error wins, and what was lent by then is put back.
macro_rules! side_by_side {
    ($session:ident, $param:ident $index:tt) => {
        $param::lend($session, $index)
    };
    ($session:ident, $param:ident $index:tt, $($rest:tt)+) => {
        try_join($param::lend($session, $index), side_by_side!($session, $($rest)+))
    };
}

/// The pattern for what [`side_by_side`] resolves to.
macro_rules! nested {
    ($param:ident) => { $param };
    ($param:ident, $($rest:ident),+) => { ($param, nested!($($rest),+)) };
}

macro_rules! params {
    ($($param:ident $index:tt),+) => {
        impl<$($param: Param),+> Params for ($($param,)+) {
            type Guards = ($($param::Guard,)+);

            async fn lend(session: &Session) -> Result<Self::Guards, Error> {
                #[allow(non_snake_case, reason = "a guard has the name of its parameter")]
                let nested!($($param),+) = side_by_side!(session, $($param $index),+).await?;
                Ok(($($param,)+))
            }

            fn keeps(site: &'static Site) -> bool {
                [$($param::keeps(site, $index)),+].contains(&true)
            }

            async fn prepare(site: &'static Site) -> Result<(), Error> {
                let preparing: Vec<BoxFuture<'static, Result<(), Error>>> =
                    vec![$(Box::pin($param::prepare(site, $index))),+];
                try_join_all(preparing).await.map(drop)
            }
        }
    };
}

params!(A 0);
params!(A 0, B 1);
params!(A 0, B 1, C 2);
params!(A 0, B 1, C 2, D 3);
params!(A 0, B 1, C 2, D 3, E 4);
params!(A 0, B 1, C 2, D 3, E 4, F 5);
params!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
params!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Connect},
        fake::{Fake, Script, poll_once},
    };
    use std::pin::pin;

    #[tokio::test]
    async fn eager_resources_are_opened_side_by_side() {
        static CONFIGS: [Config; 2] = [Config::new().connect(Connect::Eager); 2];
        static SITE: Site = Site::new("inject", "eager", &CONFIGS);
        let script = Script::of("inject::eager");
        let gate = script.gate();
        let mut preparing = pin!(<(Ref<Fake>, Ref<Fake>)>::prepare(&SITE));
        poll_once(&mut preparing).await;
        assert_eq!(script.log(), ["open", "open"]);
        gate.add_permits(2);
        preparing.await.expect("both open");
    }
}
