//! The annotated handlers of this binary, so that `run` can look at a handler's settings before the
//! first event: the attribute submits each at link time.

use crate::{error::Error, lifecycle::Params, site::Site};
use futures_util::future::BoxFuture;
use std::fmt;

/// An annotated handler.
#[derive(Clone, Copy)]
pub struct Registered {
    site: &'static Site,
    prepare: fn(&'static Site) -> BoxFuture<'static, Result<(), Error>>,
}

inventory::collect!(Registered);

impl Registered {
    /// The handler of `site`, which is lent the resources `P`.
    #[must_use]
    pub const fn new<P: Params>(site: &'static Site) -> Self {
        Self {
            site,
            prepare: |site| Box::pin(P::prepare(site)),
        }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.site).finish()
    }
}

/// Gets the handler whose type is called `type_name` ready for its first event.
///
/// A closure around a handler has a name of its own; it stands for the only handler there is. If
/// there are several, the first event finds out.
pub(crate) async fn prepare(type_name: &str) -> Result<(), Error> {
    let all: Vec<Registered> = inventory::iter::<Registered>.into_iter().copied().collect();
    let meant = match all.as_slice() {
        [only] if type_name.ends_with("{{closure}}") => Some(*only),
        // A handler of the same name in an outer module matches, too.
        several => several
            .iter()
            .copied()
            .filter(|registered| registered.site.is_named(type_name))
            .max_by_key(|registered| registered.site.module().len()),
    };
    match meant {
        Some(registered) => (registered.prepare)(registered.site).await,
        None => Ok(()),
    }
}
