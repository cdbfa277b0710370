//! Maps the types of a handler's resource parameters to the guards from which its body borrows.

#![allow(
    missing_debug_implementations,
    reason = "these are seen by the expansion only"
)]

use super::{
    acquire,
    background::Background,
    cleanup::Release,
    invocation::{Commit, HandlerCall},
    site::Site,
};
use crate::{
    config::Close,
    error::{Error, Stage},
    resource::{
        Handle, InjectMut, InjectRef, Resource,
        param::{ByRef, MutParam, RefParam},
    },
    util::{catch_panic::catch_panic, lock::lock},
};
use futures_util::future::{BoxFuture, try_join, try_join_all};
use std::{
    future::{Future, ready},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::time::timeout_at;

/// Returns when the resource of a parameter is closed by default.
#[must_use]
pub const fn default_close<P: Param>() -> Close {
    P::CLOSE
}

/// One resource parameter.
pub trait Param: 'static {
    /// The guard from which the parameter borrows.
    type Guard: Send;

    /// When its resource is closed by default.
    const CLOSE: Close;

    /// Acquires it for one invocation.
    fn inject(
        call: &HandlerCall,
        parameter: usize,
    ) -> impl Future<Output = Result<Self::Guard, Error>> + Send;

    /// Returns whether anything may be open between two invocations.
    fn keeps(site: &'static Site, parameter: usize) -> bool;

    /// Prepares for the first event.
    fn prepare(
        site: &'static Site,
        parameter: usize,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static;
}

/// Background tasks belong to the invocation: nothing is opened or reused for them.
#[diagnostic::do_not_recommend]
impl ByRef for Background {
    type Param = BackgroundParam;
}

/// A parameter `&Background`.
pub struct BackgroundParam;

impl Param for BackgroundParam {
    type Guard = BackgroundGuard;

    const CLOSE: Close = Close::Never;

    async fn inject(call: &HandlerCall, _: usize) -> Result<Self::Guard, Error> {
        Ok(BackgroundGuard(call.background()))
    }

    fn keeps(_: &'static Site, _: usize) -> bool {
        false
    }

    async fn prepare(_: &'static Site, _: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// The guard from which a body's `&Background` borrows.
pub struct BackgroundGuard(Background);

impl Deref for BackgroundGuard {
    type Target = Background;

    fn deref(&self) -> &Background {
        &self.0
    }
}

type ResourceOf<H> = <H as Handle>::Resource;

impl<T: InjectRef> Param for RefParam<T> {
    type Guard = RefGuard<T::Handle, T>;

    const CLOSE: Close = <ResourceOf<T::Handle>>::DEFAULTS.close;

    async fn inject(call: &HandlerCall, parameter: usize) -> Result<Self::Guard, Error> {
        let (handle, _) = call
            .lease::<T::Handle>(parameter, Box::new(|_, _| Box::pin(ready(()))))
            .await?;
        Ok(RefGuard {
            handle,
            borrow: T::borrow,
        })
    }

    fn keeps(site: &'static Site, parameter: usize) -> bool {
        site.settings::<ResourceOf<T::Handle>>(parameter).keeps()
    }

    async fn prepare(site: &'static Site, parameter: usize) -> Result<(), Error> {
        acquire::prepare::<ResourceOf<T::Handle>>(site, parameter).await
    }
}

impl<T: InjectMut> Param for MutParam<T> {
    type Guard = MutGuard<T::Guard>;

    const CLOSE: Close = <ResourceOf<T::Handle>>::DEFAULTS.close;

    async fn inject(call: &HandlerCall, parameter: usize) -> Result<Self::Guard, Error> {
        let returned = Returned::<T::Guard>::default();
        let (handle, acquire) = call
            .lease::<T::Handle>(parameter, returned.release::<T>())
            .await?;
        // Boxed: a driver's futures are nested so deeply that with several parameters the compiler would reach
        // its recursion limit in the user's crate.
        let acquiring = Box::pin(catch_panic(
            <ResourceOf<T::Handle>>::NAME,
            "acquire",
            || T::acquire(&handle, &acquire),
        ));
        let guard = match timeout_at(acquire.until(), acquiring).await {
            Ok(acquired) => acquired.flatten(),
            Err(_) => Err(acquire.timeout_error("taking a connection")),
        };
        match guard {
            Ok(guard) => {
                call.must_commit(parameter, returned.commit::<T>());
                Ok(MutGuard {
                    guard: Some(guard),
                    returned,
                })
            }
            Err(error) => Err(error.at(Stage::Acquire).in_handler(acquire.handler())),
        }
    }

    fn keeps(site: &'static Site, parameter: usize) -> bool {
        site.settings::<ResourceOf<T::Handle>>(parameter).keeps()
    }

    async fn prepare(site: &'static Site, parameter: usize) -> Result<(), Error> {
        acquire::prepare::<ResourceOf<T::Handle>>(site, parameter).await
    }
}

/// The guard from which a body's `&T` borrows.
///
/// Like [`MutGuard`], it has no bound on `T`: the compiler already reports a `T` that is not a resource
/// elsewhere.
pub struct RefGuard<H, T: ?Sized> {
    handle: Arc<H>,
    borrow: fn(&H) -> &T,
}

impl<H, T: ?Sized> Deref for RefGuard<H, T> {
    type Target = T;

    fn deref(&self) -> &T {
        (self.borrow)(&self.handle)
    }
}

/// The guard from which a body's `&mut T` borrows. Its value goes to `returned`, however the body ends.
pub struct MutGuard<G> {
    guard: Option<G>,
    returned: Returned<G>,
}

impl<G: Deref> Deref for MutGuard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<G: DerefMut> DerefMut for MutGuard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<G> Drop for MutGuard<G> {
    fn drop(&mut self) {
        *self.returned.lock() = self.guard.take();
    }
}

/// The value of a body's guard, for the cleanup.
struct Returned<G>(Arc<Mutex<Option<G>>>);

impl<G> Returned<G> {
    fn lock(&self) -> MutexGuard<'_, Option<G>> {
        lock(&self.0)
    }
}

impl<G: Send + 'static> Returned<G> {
    fn commit<T: InjectMut<Guard = G>>(&self) -> Commit {
        let returned = Self(Arc::clone(&self.0));
        Box::new(move |succeeded| {
            Box::pin(async move {
                let Some(guard) = returned.lock().take() else {
                    return Ok(());
                };
                // However this ends, the cleanup gets the value back.
                let mut guard = MutGuard {
                    guard: Some(guard),
                    returned,
                };
                let Some(guard) = &mut guard.guard else {
                    return Ok(());
                };
                let name = <ResourceOf<T::Handle>>::NAME;
                if succeeded {
                    catch_panic(name, "commit", || T::commit(guard))
                        .await
                        .flatten()
                } else {
                    catch_panic(name, "rollback", || T::rollback(guard)).await
                }
            })
        })
    }

    fn release<T: InjectMut<Guard = G>>(&self) -> Release<T::Handle> {
        let returned = Self(Arc::clone(&self.0));
        Box::new(move |handle, disposition| {
            let guard = returned.lock().take();
            Box::pin(async move {
                if let Some(guard) = guard {
                    T::release(handle, guard, disposition).await;
                }
            })
        })
    }
}

impl<G> Default for Returned<G> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// All resource parameters of a handler: a tuple of [`Ref`](crate::resource::param::Ref) and
/// [`RefMut`](crate::resource::param::RefMut), in their order.
pub trait Params: 'static {
    /// The guards from which the body borrows.
    type Guards: Send;

    /// Acquires all of them for one invocation.
    fn inject(call: &HandlerCall) -> impl Future<Output = Result<Self::Guards, Error>> + Send;

    /// Returns whether anything may be open between two invocations.
    fn keeps(site: &'static Site) -> bool;

    /// Prepares for the first event.
    fn prepare(site: &'static Site) -> impl Future<Output = Result<(), Error>> + Send + 'static;
}

/// Acquires `A`, `B`, `C` .. concurrently. The first error wins, and what was acquired by then is released.
macro_rules! side_by_side {
    ($call:ident, $param:ident $index:tt) => {
        $param::inject($call, $index)
    };
    ($call:ident, $param:ident $index:tt, $($rest:tt)+) => {
        try_join($param::inject($call, $index), side_by_side!($call, $($rest)+))
    };
}

/// The pattern that matches the output of `side_by_side`.
macro_rules! nested {
    ($param:ident) => { $param };
    ($param:ident, $($rest:ident),+) => { ($param, nested!($($rest),+)) };
}

macro_rules! params {
    ($($param:ident $index:tt),+) => {
        impl<$($param: Param),+> Params for ($($param,)+) {
            type Guards = ($($param::Guard,)+);

            async fn inject(call: &HandlerCall) -> Result<Self::Guards, Error> {
                #[allow(non_snake_case, reason = "a guard has the name of its parameter")]
                let nested!($($param),+) = side_by_side!(call, $($param $index),+).await?;
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
        resource::param::Ref,
    };
    use std::pin::pin;

    #[tokio::test]
    async fn eager_resources_are_opened_side_by_side() {
        static CONFIGS: [Config; 2] = [Config::new().connect(Connect::Eager); 2];
        static SITE: Site = Site::new("params", "eager", &CONFIGS);
        let script = Script::of("params::eager");
        let gate = script.gate();
        let mut preparing = pin!(<(Ref<Fake>, Ref<Fake>)>::prepare(&SITE));
        poll_once(&mut preparing).await;
        assert_eq!(script.log(), ["open", "open"]);
        gate.add_permits(2);
        preparing.await.expect("both open");
    }
}
