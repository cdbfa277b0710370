//! Registry of the annotated handlers of this binary, so that `run` can check a handler's settings before the
//! first event. The attribute submits each handler at link time.

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
    /// Registers the handler of `site`, with the resources `P`.
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

/// Returns whether the handler of type `type_name` may have anything open between two events. If that handler
/// is unknown, any registered one counts.
pub(crate) fn keeps(type_name: &str) -> bool {
    let keeps = |registered: &Registered| (registered.keeps)(registered.site);
    match find(type_name) {
        Some(registered) => keeps(&registered),
        None => inventory::iter::<Registered>.into_iter().any(keeps),
    }
}

/// Prepares the handler of type `type_name` for its first event.
///
/// If that handler is unknown, the first event opens its resources.
pub(crate) async fn prepare(type_name: &str) -> Result<(), Error> {
    match find(type_name) {
        Some(registered) => (registered.prepare)(registered.site).await,
        None => Ok(()),
    }
}

/// Finds the handler of type `type_name`.
///
/// The type of a closure around a handler has another name. It matches if there is only one handler.
fn find(type_name: &str) -> Option<Registered> {
    let all: Vec<Registered> = inventory::iter::<Registered>.into_iter().copied().collect();
    match all.as_slice() {
        [only] if type_name.ends_with("{{closure}}") => Some(*only),
        // A handler of the same name in an outer module also matches.
        several => several
            .iter()
            .copied()
            .filter(|registered| registered.site.is_named(type_name))
            .max_by_key(|registered| registered.site.module().len()),
    }
}
