//! The annotated handlers of this binary, so that `run` can look at a handler's settings before the
//! first event: the attribute submits each at link time.

use super::{Params, site::Site};
use crate::error::Error;
use futures_util::future::BoxFuture;
use std::fmt;

/// An annotated handler.
#[derive(Clone, Copy)]
pub struct Registered {
    site: &'static Site,
    keeps: fn(&'static Site) -> bool,
    prepare: fn(&'static Site) -> BoxFuture<'static, Result<(), Error>>,
}

inventory::collect!(Registered);

impl Registered {
    /// The handler of `site`, which is lent the resources `P`.
    #[must_use]
    pub const fn new<P: Params>(site: &'static Site) -> Self {
        Self {
            site,
            keeps: P::keeps,
            prepare: |site| Box::pin(P::prepare(site)),
        }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.site).finish()
    }
}

/// Whether the handler whose type is called `type_name` may keep anything open between two events.
/// Where it is not known which handler that is, any of them may.
pub(crate) fn keeps(type_name: &str) -> bool {
    let keeps = |registered: &Registered| (registered.keeps)(registered.site);
    match find(type_name) {
        Some(registered) => keeps(&registered),
        None => inventory::iter::<Registered>.into_iter().any(keeps),
    }
}

/// Gets the handler whose type is called `type_name` ready for its first event.
///
/// If it is not known which one that is, the first event finds out.
pub(crate) async fn prepare(type_name: &str) -> Result<(), Error> {
    match find(type_name) {
        Some(registered) => (registered.prepare)(registered.site).await,
        None => Ok(()),
    }
}

/// The handler whose type is called `type_name`.
///
/// A closure around a handler has a name of its own; it stands for the only handler there is.
fn find(type_name: &str) -> Option<Registered> {
    let all: Vec<Registered> = inventory::iter::<Registered>.into_iter().copied().collect();
    match all.as_slice() {
        [only] if type_name.ends_with("{{closure}}") => Some(*only),
        // A handler of the same name in an outer module matches, too.
        several => several
            .iter()
            .copied()
            .filter(|registered| registered.site.is_named(type_name))
            .max_by_key(|registered| registered.site.module().len()),
    }
}
